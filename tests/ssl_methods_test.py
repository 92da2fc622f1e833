"""Consistency, adversarial and mixing methods against loops in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from scipy import special

from nsl_jax import compose, errors, methods, perturb
from nsl_jax.types import Batch, Model, Outputs, Tools

SHAPE, K, B = (2, 2, 1), 4, 6
ONCE = dict(weight=1.0, ramp='none', ramp_steps=0)
VAT = dict(eps=0.5, **ONCE)
MIX = dict(alpha=0.75, temperature=0.5, views=2, **ONCE)
NS3L = dict(sampler='threshold', threshold=0.2, passes=1, **ONCE)


class Toy:
  """Softmax regression that keeps what it is shown, in order."""

  def __init__(self, noise=0.0):
    self.seen, self.params, self.noise = {}, [], noise

  def _note(self, number, images):
    self.seen[int(number)] = np.asarray(images)

  @property
  def views(self):
    """What each application was shown, in order."""
    jax.effects_barrier()
    return [self.seen[number] for number in range(len(self.params))]

  def init(self, key, image_shape):
    weights = jax.random.normal(key, (math.prod(image_shape), K))
    return {'head': {'kernel': weights, 'bias': jnp.zeros(K)}}, {
        'mean': jnp.zeros(())}

  def apply(self, params, stats, images, *, train, key=None):
    jax.debug.callback(self._note, len(self.params), images, ordered=True)
    self.params.append(params)
    flat = images.reshape(images.shape[0], -1)
    logits = flat @ params['head']['kernel'] + params['head']['bias'][None]
    moved = {'mean': images.mean()} if train else stats
    return Outputs(logits, flat, logits), moved

  def augment(self, images, key):
    return images + self.noise * jax.random.normal(key, images.shape)

  def tools(self, **options):
    return Tools(model=Model(self.init, self.apply), tx=optax.sgd(0.1),
                 augment=self.augment, image_shape=SHAPE, **options)


def make_batch(labelled=B, unlabelled=B, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda n: jnp.asarray(rng.normal(size=(n, *SHAPE)), jnp.float32)
  return Batch(x=draw(labelled), y=jnp.arange(labelled) % K,
               u=draw(unlabelled), u_index=jnp.arange(unlabelled), side={})


def run(name, toy=None, batch=None, state=None, key=1, tools=None, **fields):
  """One update: the state before, the state after, the metrics."""
  toy = toy or Toy()
  method = methods.build(
      {'name': name, 'terms': {}, **fields}, tools or toy.tools())
  state = state or method.init(jax.random.key(0))
  after, metrics = method.update(
      state, batch or make_batch(), jax.random.key(key))
  return state, after, metrics


def probs_of(view, params):
  flat = np.asarray(view, np.float64).reshape(len(view), -1)
  head = {k: np.asarray(v, np.float64) for k, v in params['head'].items()}
  return special.softmax(flat @ head['kernel'] + head['bias'], axis=-1)


class PassesTest(parameterized.TestCase):

  @parameterized.parameters(
      ('supervised', {}, 1), ('pseudo_label', dict(threshold=0.9, **ONCE), 1),
      ('ns3l', NS3L, 1), ('ns3l', dict(NS3L, passes=2), 2), ('pi', ONCE, 2),
      ('mean_teacher', dict(decay=0.9, **ONCE), 2),
      ('vat', dict(mode='exact', **VAT), 2),
      ('vat', dict(mode='finite_difference', **VAT), 3),
      ('mixup', dict(alpha=0.75), 3),
      ('ict', dict(alpha=0.75, decay=0.9, **ONCE), 3),
      ('mixmatch', MIX, 5), ('mixmatch', dict(MIX, views=1), 3),
      ('mixmatch', dict(MIX, terms={'ns3l': NS3L}), 5),
      ('pi', dict(ONCE, terms={'ns3l': dict(NS3L, passes=2)}), 3),
      ('vat', dict(VAT, mode='exact', terms={
          'ns3l': NS3L, 'entropy': ONCE, 'pseudo_label': dict(
              threshold=0.9, **ONCE)}), 2),
  )
  def test_number(self, name, fields, passes):
    """Each forward pass is made once."""
    toy = Toy(noise=0.1)
    run(name, toy, **fields)
    self.assertLen(toy.views, passes)

  @parameterized.parameters(
      ('pi', ONCE), ('mean_teacher', dict(decay=0.9, **ONCE)),
      ('vat', dict(mode='exact', **VAT)),
      ('vat', dict(mode='finite_difference', **VAT)),
      ('ns3l', dict(NS3L, passes=2)),
  )
  def test_only_the_clean_pass_moves_the_statistics(self, name, fields):
    """Invariant 18, for every method of family O."""
    toy = Toy(noise=0.1)
    _, after, _ = run(name, toy, **fields)
    np.testing.assert_allclose(
        after.stats['mean'], toy.views[0].mean(), rtol=1e-6)

  @parameterized.parameters('pi', 'mean_teacher', 'vat', 'ns3l')
  def test_apart(self, name):
    """Family M: each group is a batch and a mean of its own."""
    fields = {
        'pi': ONCE, 'mean_teacher': dict(decay=0.9, **ONCE),
        'vat': dict(mode='exact', **VAT), 'ns3l': NS3L}[name]
    toy = Toy(noise=0.1)
    state, after, metrics = run(
        name, toy, make_batch(5, 7), joint=False, **fields)
    sizes = [len(view) for view in toy.views]
    self.assertEqual(sizes.count(5), 1)
    self.assertEqual(set(sizes), {5, 7})
    labelled = toy.views[sizes.index(5)]
    np.testing.assert_allclose(
        after.stats['mean'], labelled.mean(), rtol=1e-6)
    probs = probs_of(labelled, state.params)
    np.testing.assert_allclose(
        metrics['cross_entropy'],
        -np.log(probs[np.arange(5), np.arange(5) % K]).mean(), rtol=1e-5)


class ConsistencyTest(parameterized.TestCase):

  @parameterized.parameters('pi', 'mean_teacher')
  def test_value_against_a_loop(self, name):
    fields = dict(decay=0.9, **ONCE) if name == 'mean_teacher' else ONCE
    toy = Toy(noise=0.5)
    method = methods.build({'name': name, 'terms': {}, **fields}, toy.tools())
    state = method.init(jax.random.key(0))
    if name == 'mean_teacher':
      other = jax.tree.map(lambda leaf: 0.5 * leaf, state.params)
      state = state.replace(slots={'teacher': other})
    _, _, metrics = run(name, toy, state=state, **fields)
    taught = other if name == 'mean_teacher' else state.params
    student, teacher = (
        probs_of(view, params)[B:]
        for view, params in zip(toy.views, (state.params, taught)))
    total = 0.0
    for row in range(B):
      total += np.mean([(student[row, k] - teacher[row, k])**2
                        for k in range(K)])
    np.testing.assert_allclose(metrics[name], total / (2 * B), rtol=1e-5)

  @parameterized.parameters(
      ('pi', ONCE), ('mean_teacher', dict(decay=0.9, **ONCE)),
      ('vat', dict(VAT, mode='exact', eps=1e-6)))
  def test_nothing_where_passes_are_the_same(self, name, fields):
    """Invariant 9."""
    _, _, metrics = run(name, Toy(noise=0.0), **fields)
    np.testing.assert_allclose(metrics[name], 0.0, atol=1e-7)

  def test_no_gradient_into_the_teacher(self):
    """Invariant 9: with the student fixed, moving the teacher's weights adds
    nothing to the student's gradient but through its targets' values."""
    def gradient(detached):
      toy = Toy(noise=0.5)
      tools = toy.tools()
      method = methods.build({'name': 'pi', 'terms': {}, **ONCE}, tools)
      state = method.init(jax.random.key(0))
      after, _ = method.update(state, make_batch(), jax.random.key(1))
      student, teacher = toy.views

      def by_hand(params):
        probs = lambda view, params: jax.nn.softmax(
            view.reshape(len(view), -1) @ params['head']['kernel']
            + params['head']['bias'][None])
        known = -jnp.log(
            probs(student[:B], params)[jnp.arange(B), jnp.arange(B) % K])
        fixed = state.params if detached else params
        gap = probs(student[B:], params) - probs(teacher[B:], fixed)
        return (known.sum() + (gap**2).mean(-1).sum()) / (2 * B)

      want = jax.grad(by_hand)(state.params)['head']['kernel']
      got = (state.params['head']['kernel'] - after.params['head']['kernel'])
      return np.abs(got / 0.1 - want).max()

    self.assertLess(gradient(detached=True), 1e-5)
    self.assertGreater(gradient(detached=False), 1e-3)

  def test_teacher_follows_after_the_step(self):
    """Invariant 11, with L2I's rule: the first update copies."""
    state, after, _ = run(
        'mean_teacher', decay=0.9, warm_up_decay=True, **ONCE)
    kernel = lambda tree: tree['head']['kernel']
    np.testing.assert_allclose(
        kernel(after.slots['teacher']), kernel(after.params), rtol=1e-6)
    _, constant, _ = run('mean_teacher', decay=0.9, **ONCE)
    np.testing.assert_allclose(
        kernel(constant.slots['teacher']),
        0.9 * kernel(state.params) + 0.1 * kernel(constant.params), rtol=1e-5)

  def test_mean_teacher_term_needs_its_method(self):
    with self.assertRaisesRegex(errors.UserError, 'needs the method'):
      run('pi', terms={'mean_teacher': ONCE}, **ONCE)


class VatTest(parameterized.TestCase):

  def oracle(self, view, params):
    """Rows' Fisher matrices of softmax regression."""
    kernel = np.asarray(params['head']['kernel'], np.float64)
    return [kernel @ (np.diag(p) - np.outer(p, p)) @ kernel.T
            for p in probs_of(view, params)]

  @parameterized.parameters('adversarial', 'clean')
  def test_exact_value_against_a_loop(self, direction):
    toy = Toy(noise=0.3)
    state, _, metrics = run(
        'vat', toy, mode='exact', kl_direction=direction, **VAT)
    clean, moved = (np.asarray(v, np.float64).reshape(2 * B, -1)
                    for v in toy.views)
    change = moved - clean
    np.testing.assert_allclose(
        np.linalg.norm(change, axis=1), 0.5, rtol=1e-4)
    total = 0.0
    for row, p, q in zip(range(2 * B), probs_of(clean, state.params),
                         probs_of(moved, state.params)):
      if row >= B:
        first, second = (q, p) if direction == 'adversarial' else (p, q)
        total += np.sum(first * np.log(first / second))
    np.testing.assert_allclose(metrics['vat'], total / (2 * B), rtol=1e-3)

  def test_directions_are_those_of_the_fisher_matrix(self):
    """Invariant 10, both modes in the method as a whole."""
    for mode, xi in ('exact', 1e-6), ('finite_difference', 1e-2):
      toy = Toy(noise=0.0)
      state, _, _ = run('vat', toy, mode=mode, xi=xi, **VAT)
      clean, moved = (np.asarray(v, np.float64).reshape(2 * B, -1)
                      for v in (toy.views[0], toy.views[-1]))
      change = (moved - clean) / 0.5
      for row, fisher in enumerate(self.oracle(clean, state.params)):
        # One power iteration from a random start ends in the range of F.
        residual = change[row] - fisher @ np.linalg.pinv(fisher) @ change[row]
        self.assertLess(np.linalg.norm(residual), 0.02, (mode, row))

  def test_finite_difference_augments_every_pass(self):
    toy = Toy(noise=0.3)
    run('vat', toy, mode='finite_difference', xi=1e-6, **VAT)
    clean, _, moved = toy.views
    self.assertGreater(
        np.linalg.norm(np.asarray(moved - clean).reshape(2 * B, -1),
                       axis=1).max(), 0.6)

  @parameterized.parameters(
      (dict(mode='exakt'), "did you mean 'exact'"),
      (dict(mode='exact', kl_direction='cleann'), "did you mean 'clean'"),
      (dict(mode='exact', eps=0.0), 'must be > 0'),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      run('vat', **{**VAT, **fields})


class MixMatchTest(parameterized.TestCase):

  @parameterized.parameters((1, False), (2, False), (2, True), (3, False))
  def test_against_a_loop(self, views, per_batch):
    """Every step of section 'MixMatch', draws taken from the same keys."""
    toy, batch = Toy(noise=0.3), make_batch()
    state, after, metrics = run(
        'mixmatch', toy, batch, ratio_per_batch=per_batch,
        **dict(MIX, views=views, weight=3.0))
    guesses, passes = toy.views[:views], toy.views[views:]
    mean = np.mean([probs_of(v, state.params) for v in guesses], axis=0)
    sharp = mean**2 / (mean**2).sum(1, keepdims=True)
    _, _, mixing, _, *_ = jax.random.split(
        jax.random.key(1), 4 + views)
    order, ratio = jax.random.split(mixing)
    rows = B * (1 + views)
    other = np.asarray(jax.random.permutation(order, rows))
    share = np.asarray(perturb.mix_ratio(
        ratio, 0.75, rows, per_batch=per_batch))
    labels = np.concatenate([np.eye(K)[np.arange(B) % K], *[sharp] * views])
    mixed = np.stack([share[i] * labels[i] + (1 - share[i]) * labels[other[i]]
                      for i in range(rows)])
    np.testing.assert_allclose(mixed.sum(1), 1.0, rtol=1e-6)
    shown = perturb.interleave([np.asarray(v) for v in passes])
    probs = probs_of(np.concatenate(shown), state.params)
    known = -np.mean([np.sum(mixed[i] * np.log(probs[i])) for i in range(B)])
    guess = np.mean((mixed[B:] - probs[B:])**2)
    np.testing.assert_allclose(metrics['cross_entropy'], known, rtol=1e-4)
    np.testing.assert_allclose(metrics['mixmatch'], guess, rtol=1e-4)
    np.testing.assert_allclose(
        metrics['loss'], known + 3.0 * guess, rtol=1e-4)
    np.testing.assert_allclose(
        after.stats['mean'], passes[0].mean(), rtol=1e-6)

  def test_ns3l_on_top(self):
    """Invariant 7: masks from the mixed labels, all rows, no extra pass."""
    toy = Toy(noise=0.3)
    fields = dict(MIX, terms={'ns3l': dict(NS3L, threshold=0.05, weight=2.0)})
    state, _, metrics = run('mixmatch', toy, **fields)
    plain, _, without = run('mixmatch', Toy(noise=0.3), key=1, **MIX)
    self.assertLen(toy.views, 5)
    self.assertGreater(metrics['ns3l'], 0.0)
    np.testing.assert_allclose(
        metrics['loss'], metrics['cross_entropy'] + metrics['mixmatch']
        + 2.0 * metrics['ns3l'], rtol=1e-5)

  def test_kernels_alone_decay_and_after_the_average(self):
    """Invariant 18: without gradients kernels shrink by 1 - 0.02 lr."""
    tools = Toy().tools(
        weight_decay=0.02, ema_decay=0.5, learning_rate=lambda step: 0.002
    )._replace(tx=optax.sgd(0.0))
    state, after, _ = run('mixmatch', tools=tools, **MIX)
    before, now = state.params['head'], after.params['head']
    np.testing.assert_allclose(
        now['kernel'], before['kernel'] * (1 - 4e-5), rtol=1e-6)
    np.testing.assert_array_equal(now['bias'], before['bias'])
    np.testing.assert_array_equal(
        after.slots[compose.EMA]['head']['kernel'], before['kernel'])

  @parameterized.parameters(
      (dict(alpha=0.0), 'alpha=0.0'), (dict(temperature=-1.0), 'temperature'),
      (dict(views=0), 'views=0'),
      (dict(terms={'ns3l': dict(sampler='furthest', passes=1, **ONCE)}),
       'no single image'),
      (dict(terms={'pi': ONCE}), 'no second pass'),
      (dict(terms={'vat': dict(mode='exact', **VAT)}), 'no clean pass'),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      run('mixmatch', **{**MIX, **fields})

  def test_unequal_batches(self):
    with self.assertRaisesRegex(errors.UserError, 'same number'):
      run('mixmatch', batch=make_batch(4, 6), **MIX)


class MixedBaselinesTest(absltest.TestCase):

  def test_mixup_against_a_loop(self):
    toy, batch = Toy(noise=0.0), make_batch()
    state, after, metrics = run('mixup', toy, batch, alpha=0.75)
    guessing, labelled, unlabelled = toy.views
    guess = probs_of(guessing, state.params)
    for name, view, images, labels in (
        ('cross_entropy', labelled, batch.x, np.eye(K)[np.arange(B) % K]),
        ('mixup', unlabelled, batch.u, guess)):
      flat = np.asarray(images, np.float64)
      total = 0.0
      for row in range(B):
        # The ratio shows in the mixed image itself.
        gap = flat[row] - flat[B - 1 - row]
        share = np.sum((np.asarray(view[row]) - flat[B - 1 - row]) * gap)
        share /= np.sum(gap**2)
        self.assertBetween(share, 0.5 - 1e-4, 1.0 + 1e-4)
        target = share * labels[row] + (1 - share) * labels[B - 1 - row]
        total -= np.sum(target * np.log(probs_of(view, state.params)[row]))
      np.testing.assert_allclose(metrics[name], total / B, rtol=1e-3)
    np.testing.assert_allclose(
        after.stats['mean'], labelled.mean(), rtol=1e-6)

  def test_ict_against_a_loop(self):
    toy, batch = Toy(noise=0.0), make_batch()
    method = methods.build(
        {'name': 'ict', 'terms': {}, 'alpha': 0.75, 'decay': 0.9, **ONCE},
        toy.tools())
    state = method.init(jax.random.key(0))
    other = jax.tree.map(lambda leaf: 0.3 * leaf, state.params)
    state = state.replace(slots={'teacher': other})
    _, metrics = method.update(state, batch, jax.random.key(1))
    _, teaching, mixed = toy.views
    teacher = probs_of(teaching, other)
    flat, total = np.asarray(batch.u, np.float64), 0.0
    for row in range(B):
      gap = flat[row] - flat[B - 1 - row]
      share = np.sum((np.asarray(mixed[row]) - flat[B - 1 - row]) * gap)
      share /= np.sum(gap**2)
      target = share * teacher[row] + (1 - share) * teacher[B - 1 - row]
      total += np.mean((probs_of(mixed, state.params)[row] - target)**2)
    np.testing.assert_allclose(metrics['ict'], total / B, rtol=1e-3)


if __name__ == '__main__':
  absltest.main()
