"""Mean Teacher against loops, alone and with terms."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from model_helpers import quick_jit
from scipy import special
from softmax_options import EXACT, PROBED, TEACHER, TWO
from softmax_toy import (
  ICT,
  LABELS,
  ONCE,
  B,
  K,
  Toy,
  build,
  make_batch,
  negative_sampling_loss,
  probs_of,
  run,
)

from nsl_jax import errors, models
from nsl_jax.methods import mean_teacher


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
  def test_the_teacher_is_evaluated(self):
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


if __name__ == '__main__':
  absltest.main()
