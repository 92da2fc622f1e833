"""Consistency and adversarial methods against loops in numpy; what a step of
every method costs, and which terms go on which method.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from mixmatch_test import (
  ICT,
  LABELS,
  MIX,
  NS3L,
  ONCE,
  B,
  K,
  Toy,
  build,
  check_moved_once,
  make_batch,
  negative_sampling_loss,
  probs_of,
  run,
)
from model_helpers import quick_jit
from scipy import special

from nsl_jax import errors, methods, models, terms
from nsl_jax.methods import mean_teacher

EXACT = dict(eps=0.5, mode='exact', **ONCE)
PROBED = dict(eps=0.5, mode='finite_difference', **ONCE)
TEACHER = dict(decay=0.9, **ONCE)
TWO = dict(NS3L, passes=2)
# Options of every method, and the passes that its definition needs. The two
# networks of a pair both learn on one view and teach on another.
OWN = {
  'supervised': ({}, 1),
  'pseudo_label': (dict(threshold=0.9, **ONCE), 1),
  'ns3l': (NS3L, 1),
  'pi': (ONCE, 2),
  'mean_teacher': (TEACHER, 2),
  'vat': (EXACT, 2),
  'mixup': (dict(alpha=0.75), 3),
  'ict': (ICT, 3),
  'mixmatch': (MIX, 5),
  'pseudo_label_l2i': (dict(teacher=False, **ONCE), 3),
  'dnll': (dict(selection='ep', count=1, unsupervised='both', **ONCE), 4),
  'dual_student': (
    dict(
      consistency=1.0,
      stabilization=1.0,
      tie=0.01,
      threshold=0.8,
      ramp='none',
      ramp_steps=0,
    ),
    4,
  ),
}
# Options of every term, and the passes that it adds.
ADDED = {
  'entropy': (ONCE, 0),
  'pseudo_label': (dict(threshold=0.9, **ONCE), 0),
  'ns3l': (NS3L, 0),
  'pi': (ONCE, 1),
  'mean_teacher': (ONCE, 1),
  'vat': (EXACT, 1),
  'dnll': (dict(count=1, **ONCE), 1),
}
MIXED, PAIRS = ('mixup', 'ict', 'mixmatch'), ('dnll', 'dual_student')


def refusal(method, term):
  """The message for a combination without a meaning, None for the others."""
  if method == term and method not in PAIRS:
    return 'has the term .* already: set it in config.method'
  if term == 'mean_teacher' and method != 'ict':
    return 'needs the method mean_teacher'
  if method in MIXED and term in ('pi', 'mean_teacher', 'dnll'):
    return f'has no second pass for {term}'
  if method in (*MIXED, *PAIRS, 'pseudo_label_l2i') and term == 'vat':
    return 'has no first pass for vat'
  return None


def trace(name, **fields):
  """Number of applications of the network in a step, and its metrics."""
  toy = Toy(noise=0.1)
  method = build(name, toy, **fields)
  state = jax.eval_shape(method.init, jax.random.key(0))
  toy.calls = 0
  _, metrics = jax.eval_shape(
    method.update, state, make_batch(), jax.random.key(1)
  )
  return toy.calls, metrics


class CombinationsTest(parameterized.TestCase):
  def test_all_are_here(self):
    """A new method or term needs an entry, and with it these tests."""
    for name in methods.names():
      takes = 'terms' in inspect.signature(methods.find(name)).parameters
      self.assertEqual(takes, name in (*OWN, 'mean_label'), name)
    self.assertCountEqual(terms.names(), ADDED)

  @parameterized.parameters(*OWN)
  def test_every_term(self, name):
    """By the config alone; each forward pass is made once."""
    options, passes = OWN[name]
    networks = 2 if name in PAIRS else 1
    self.assertEqual(trace(name, **options)[0], passes)
    for term, (fields, more) in ADDED.items():
      message = refusal(name, term)
      with self.subTest(term):
        if message is None:
          calls, metrics = trace(name, terms={term: fields}, **options)
          self.assertEqual(calls, passes + networks * more)
          shown = f'{term}_a' if name in PAIRS else term
          self.assertEqual(metrics[shown].shape, ())
          continue
        with self.assertRaisesRegex(errors.UserError, message) as caught:
          trace(name, terms={term: fields}, **options)
        self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(*MIXED)
  def test_no_second_pass_over_mixed_rows(self, name):
    with self.assertRaisesRegex(errors.UserError, 'for ns3l: set passes=1'):
      trace(name, terms={'ns3l': TWO}, **OWN[name][0])

  @parameterized.parameters(
    ('ns3l', TWO, 2),
    ('vat', PROBED, 3),
    ('vat', dict(PROBED, iterations=3), 5),
    ('vat', dict(EXACT, iterations=3), 2),
    ('mixmatch', dict(MIX, views=1), 3),
    ('mixmatch', dict(MIX, views=3), 7),
    ('pi', dict(ONCE, terms={'ns3l': TWO}), 3),
    ('mean_teacher', dict(TEACHER, terms={'ns3l': TWO}), 3),
    ('vat', dict(EXACT, terms={'ns3l': TWO}), 3),
    ('vat', dict(PROBED, terms={'ns3l': TWO}), 4),
    (
      'vat',
      dict(
        EXACT,
        terms={
          'ns3l': NS3L,
          'entropy': ONCE,
          'pseudo_label': dict(threshold=0.9, **ONCE),
        },
      ),
      2,
    ),
    ('mixmatch', dict(MIX, terms={'ns3l': NS3L, 'entropy': ONCE}), 5),
    # Labeled and unlabeled images apart: one first pass more.
    ('ns3l', dict(NS3L, shared_batch_norm=False), 2),
    ('pi', dict(ONCE, shared_batch_norm=False), 3),
    ('mean_teacher', dict(TEACHER, shared_batch_norm=False), 3),
    ('vat', dict(EXACT, shared_batch_norm=False), 3),
    ('vat', dict(PROBED, shared_batch_norm=False), 4),
  )
  def test_passes_with_options(self, name, fields, passes):
    self.assertEqual(trace(name, **fields)[0], passes)

  @parameterized.parameters(
    ('supervised', {}),
    ('ns3l', TWO),
    ('pi', ONCE),
    ('mean_teacher', TEACHER),
    ('vat', EXACT),
    ('vat', PROBED),
  )
  def test_clean_pass_alone_moves_the_statistics(self, name, fields):
    """Invariant 18, for family O."""
    toy = Toy(noise=0.1)
    _, after, _ = run(name, toy, **fields)
    check_moved_once(after, toy.views[0])


class ApartTest(parameterized.TestCase):
  @parameterized.parameters('pi', 'mean_teacher', 'vat', 'ns3l')
  def test_each_group_for_itself(self, name):
    """Family M: each group is a batch and a mean of its own."""
    toy = Toy(noise=0.1)
    state, after, metrics = run(
      name, toy, make_batch(5, 7), shared_batch_norm=False, **OWN[name][0]
    )
    sizes = [len(view) for view in toy.views]
    self.assertEqual(sizes.count(5), 1)
    self.assertEqual(set(sizes), {5, 7})
    labeled = toy.views[sizes.index(5)]
    check_moved_once(after, labeled)
    probs = probs_of(labeled, state.params)
    np.testing.assert_allclose(
      metrics['cross_entropy'],
      -np.log(probs[np.arange(5), np.arange(5) % K]).mean(),
      rtol=1e-5,
    )


class ConsistencyTest(parameterized.TestCase):
  @parameterized.parameters(('pi', ONCE), ('mean_teacher', TEACHER))
  def test_value_against_a_loop(self, name, fields):
    """Also with NS3L and entropy on top (invariant 13: each row 1 / 12)."""
    toy = Toy(noise=0.5)
    fields = dict(
      fields,
      weight=8.0,
      terms={'ns3l': dict(TWO, weight=2.0), 'entropy': dict(ONCE, weight=0.5)},
    )
    state = quick_jit(build(name, toy, **fields).init)(jax.random.key(0))
    network_loss = state.params
    if name == 'mean_teacher':
      network_loss = jax.tree.map(lambda leaf: 0.5 * leaf, state.params)
      state = state.replace(slots={'teacher': network_loss})
    _, _, metrics = run(name, toy, state=state, **fields)
    clean, teacher, second = (
      probs_of(view, params)
      for view, params in zip(
        toy.views, (state.params, network_loss, state.params)
      )
    )
    found = dict.fromkeys(('cross_entropy', name, 'ns3l', 'entropy'), 0.0)
    for row in range(B):
      found['cross_entropy'] -= np.log(clean[row, LABELS[row]])
    for p, q, s in zip(clean[B:], teacher[B:], second[B:]):
      found[name] += sum((p[k] - q[k]) ** 2 for k in range(K)) / K
      found['ns3l'] += negative_sampling_loss(p, s, 0.2)
      found['entropy'] -= sum(p[k] * np.log(p[k]) for k in range(K))
    for part, value in found.items():
      self.assertGreater(value, 0.0)
      # A term is logged as the mean over its own rows; in the loss each row
      # weighs 1 / 2 B.
      rows = 2 * B if part == 'cross_entropy' else B
      np.testing.assert_allclose(
        metrics[part], value / rows, rtol=1e-5, err_msg=part
      )
    weights = dict(zip(found, (1.0, 8.0, 2.0, 0.5)))
    np.testing.assert_allclose(
      metrics['loss'],
      sum(weights[part] * found[part] for part in found) / (2 * B),
      rtol=1e-5,
    )

  @parameterized.parameters(
    ('pi', ONCE),
    ('mean_teacher', TEACHER),
    ('vat', dict(EXACT, eps=1e-30)),
    ('vat', dict(PROBED, eps=1e-30)),
  )
  def test_nothing_where_passes_are_the_same(self, name, fields):
    """Invariant 9."""
    _, _, metrics = run(name, Toy(noise=0.0), **fields)
    np.testing.assert_allclose(metrics[name], 0.0, atol=1e-7)

  def test_no_gradient_into_the_teacher(self):
    """Invariant 9: the step is that of a loss whose targets are constant."""
    toy = Toy(noise=0.5)
    state, after, _ = run('pi', toy, **ONCE)
    student, teacher = toy.views

    def by_hand(params, teaching):
      probs = lambda view, params: jax.nn.softmax(
        view.reshape(2 * B, -1) @ params['head']['kernel']
        + params['head']['bias'][None]
      )
      found = probs(student, params)
      gap = (found - probs(teacher, teaching))[B:]
      known = -jnp.log(found[jnp.arange(B), LABELS])
      return (known.sum() + (gap**2).mean(-1).sum()) / (2 * B)

    kernel = lambda tree: tree['head']['kernel']
    got = (kernel(state.params) - kernel(after.params)) / 0.1
    constant, moving = (
      kernel(grad)
      for grad in quick_jit(jax.grad(by_hand, (0, 1)))(
        state.params, state.params
      )
    )
    np.testing.assert_allclose(got, constant, atol=1e-5)
    self.assertGreater(np.abs(moving).max(), 1e-3)

  @parameterized.parameters(('mean_teacher', TEACHER), ('ict', ICT))
  def test_no_gradient_into_the_averaged_network(self, name, fields):
    """Invariant 9: exactly none into its weights."""
    method = build(name, Toy(noise=0.5), **fields)
    state = quick_jit(method.init)(jax.random.key(0))

    def loss(teacher):
      start = state.replace(slots={'teacher': teacher})
      return method.update(start, make_batch(), jax.random.key(1))[1]['loss']

    for leaf in jax.tree.leaves(quick_jit(jax.grad(loss))(state.params)):
      np.testing.assert_array_equal(leaf, 0.0)


class TeacherTest(parameterized.TestCase):
  def test_the_teacher_is_judged(self):
    """By averages of all that the student was, weights and statistics."""
    images = jax.random.normal(jax.random.key(1), (2, B, 8, 8, 1))
    batch = make_batch()._replace(x=images[0], u=images[1])
    model = models.build({'name': 'small_cnn', 'batch_norm': True}, K)
    components = Toy().components(
      model=model, image_shape=(8, 8, 1), augment=lambda images, key: images
    )
    method = build(
      'mean_teacher',
      components=components,
      **dict(TEACHER, warm_up_decay=True, eval_with='teacher'),
    )
    update = quick_jit(method.update)
    state = quick_jit(method.init)(jax.random.key(0))
    weights, stats = state.params, state.stats
    for number, keep in enumerate((0.0, 0.5, 2 / 3)):
      state, _ = update(state, batch, jax.random.key(number))
      weights, stats = (
        jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, *trees)
        for trees in ((weights, state.params), (stats, state.stats))
      )
      state = state.replace(step=jnp.array(number + 1))
    logits = method.predict(state, batch.u)
    expected, _ = model.apply(weights, stats, batch.u, train=False)
    raw, _ = model.apply(state.params, state.stats, batch.u, train=False)
    np.testing.assert_allclose(logits, expected.logits, rtol=1e-4, atol=1e-5)
    self.assertGreater(np.abs(logits - raw.logits).max(), 1e-3)
    with self.assertRaisesRegex(errors.UserError, "did you mean 'teacher'"):
      build('mean_teacher', **dict(TEACHER, eval_with='techer'))
    with self.assertRaisesRegex(errors.UserError, 'set config.ema_decay to 0'):
      build(
        'mean_teacher',
        components=Toy().components(ema_decay=0.9),
        **dict(TEACHER, eval_with='teacher'),
      )

  def steps(self, batch, count, **fields):
    """States after each of `count` steps, the first one before them."""
    method = build('mean_teacher', Toy(), **fields)
    update = quick_jit(method.update)
    states = [quick_jit(method.init)(jax.random.key(0))]
    for number in range(count):
      state, _ = update(states[-1], batch, jax.random.key(number))
      states.append(state.replace(step=jnp.array(number + 1)))
    return states

  def test_against_a_loop(self):
    """Three steps of SGD and of the average, gradients by hand."""
    batch = make_batch()
    states = self.steps(batch, 3, **dict(TEACHER, weight=5.0))
    rows = np.concatenate([batch.x, batch.u]).reshape(2 * B, -1)
    rows = np.append(rows, np.ones((2 * B, 1)), axis=1).astype(np.float64)
    stack = lambda tree: np.concatenate(
      [tree['head']['kernel'], tree['head']['bias'][None]]
    )
    student = stack(states[0].params).astype(np.float64)
    teacher = student.copy()
    for state in states[1:]:
      slope = np.zeros_like(student)
      for i, row in enumerate(rows):
        p, q = (special.softmax(row @ w) for w in (student, teacher))
        if i < B:
          change = p - np.eye(K)[LABELS[i]]
        else:
          gap = 5.0 * 2 * (p - q) / K
          change = p * (gap - sum(p * gap))
        slope += np.outer(row, change) / (2 * B)
      student = student - 0.1 * slope
      teacher = 0.9 * teacher + 0.1 * student
      np.testing.assert_allclose(stack(state.params), student, rtol=1e-4)
      np.testing.assert_allclose(
        stack(state.slots['teacher']), teacher, rtol=1e-4
      )

  def test_warm_up_rule(self):
    """min(1 - 1 / (step + 1), 0.999): 0 at first, whole from step 999 on."""
    rule = mean_teacher.warm_up(0.999)
    self.assertEqual(rule(0), 0.0)
    found = jax.vmap(rule)(jnp.arange(2000))
    want = [min(step / (step + 1), 0.999) for step in range(2000)]
    np.testing.assert_allclose(found, want, rtol=1e-6)
    self.assertEqual(want.index(0.999), 999)

  def test_warm_up(self):
    """Invariant 11: the teacher is the student after step 0, and the mean of
    all students so far until the decay is reached, here at step 3.
    """
    states = self.steps(
      make_batch(), 5, warm_up_decay=True, **dict(TEACHER, decay=0.75)
    )
    kernels = [
      np.asarray(state.params['head']['kernel']) for state in states[1:]
    ]
    teachers = [
      state.slots['teacher']['head']['kernel'] for state in states[1:]
    ]
    np.testing.assert_array_equal(teachers[0], kernels[0])
    for done in 2, 3, 4:
      np.testing.assert_allclose(
        teachers[done - 1], np.mean(kernels[:done], axis=0), rtol=1e-5
      )
    np.testing.assert_allclose(
      teachers[4], 0.75 * teachers[3] + 0.25 * kernels[4], rtol=1e-5
    )

  @parameterized.parameters(
    (dict(second_pass_rows='unlabled'), "second_pass_rows=.*'unlabeled'"),
    (dict(eval_with='techer'), "eval_with=.*mean 'teacher'"),
    (dict(decay=1.0), r'decay=1.0: must be in \[0, 1\)'),
    (dict(tie=-1.0), 'tie=-1.0: must be >= 0'),
    (dict(shared_batch_norm=1), 'shared_batch_norm=1: must be true or false'),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, f'mean_teacher {message}'):
      build('mean_teacher', **{**TEACHER, **fields})


class VatTest(parameterized.TestCase):
  def oracle(self, view, params):
    """Rows' Fisher matrices of softmax regression."""
    kernel = np.asarray(params['head']['kernel'], np.float64)
    return [
      kernel @ (np.diag(p) - np.outer(p, p)) @ kernel.T
      for p in probs_of(view, params)
    ]

  @parameterized.parameters('adversarial', 'clean')
  def test_exact_value_against_a_loop(self, direction):
    toy = Toy(noise=0.3)
    state, _, metrics = run('vat', toy, kl_direction=direction, **EXACT)
    clean, moved = (
      np.asarray(v, np.float64).reshape(2 * B, -1) for v in toy.views
    )
    change = moved - clean
    np.testing.assert_allclose(np.linalg.norm(change, axis=1), 0.5, rtol=1e-4)
    total = 0.0
    for row, p, q in zip(
      range(2 * B), probs_of(clean, state.params), probs_of(moved, state.params)
    ):
      if row >= B:
        first, second = (q, p) if direction == 'adversarial' else (p, q)
        total += np.sum(first * np.log(first / second))
    np.testing.assert_allclose(metrics['vat'], total / B, rtol=1e-3)

  def test_directions_are_those_of_the_fisher_matrix(self):
    """Invariant 10, both modes in the method as a whole."""
    for fields in EXACT, dict(PROBED, xi=1e-2):
      toy = Toy(noise=0.0)
      state, _, _ = run('vat', toy, **fields)
      clean, moved = (
        np.asarray(v, np.float64).reshape(2 * B, -1)
        for v in (toy.views[0], toy.views[-1])
      )
      change = (moved - clean) / 0.5
      for row, fisher in enumerate(self.oracle(clean, state.params)):
        # One power iteration from a random start ends in the range of F.
        residual = change[row] - fisher @ np.linalg.pinv(fisher) @ change[row]
        self.assertLess(np.linalg.norm(residual), 0.02, row)

  def test_finite_difference_augments_every_pass(self):
    toy = Toy(noise=0.3)
    run('vat', toy, xi=1e-6, **PROBED)
    clean, _, moved = toy.views
    self.assertGreater(
      np.linalg.norm(
        np.asarray(moved - clean).reshape(2 * B, -1), axis=1
      ).max(),
      0.6,
    )

  @parameterized.parameters(
    (dict(mode='exakt'), "did you mean 'exact'"),
    (dict(kl_direction='cleann'), "did you mean 'clean'"),
    (dict(eps=0.0), 'must be > 0'),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      trace('vat', **{**EXACT, **fields})


if __name__ == '__main__':
  absltest.main()
