"""MixMatch and its mixed baselines against loops in numpy.

Here are also the toy network and the helpers of the other methods' tests.
"""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from model_helpers import TINY, images, quick_jit
from softmax_toy import (
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
  share_of,
)

from nsl_jax import errors, models
from nsl_jax.compose import combinators, mixing
from nsl_jax.methods import mixmatch
from nsl_jax.training import sharding
from nsl_jax.types import Batch, Components


def swapped(chunks):
  """MixMatch's interleaving: piece i of chunk i for piece i of the first."""
  count, rows = len(chunks), len(chunks[0])
  sizes = [rows // count] * count
  for i in range(rows - sum(sizes)):
    sizes[-1 - i] += 1
  found = [np.array(chunk) for chunk in chunks]
  for i in range(1, count):
    for row in range(sum(sizes[:i]), sum(sizes[: i + 1])):
      found[0][row], found[i][row] = chunks[i][row], chunks[0][row]
  return found


def partner_of(mixed, own, rows):
  """Which row was mixed into `own`, and the share of `own`."""
  fits = [share_of(mixed, own, row) for row in rows]
  other = min(
    (i for i in range(len(rows)) if fits[i][0] < 1 + 1e-5),
    key=lambda i: fits[i][1],
  )
  assert fits[other][1] < 1e-5, fits
  return other, fits[other][0]


class MixMatchTest(parameterized.TestCase):
  @parameterized.parameters((1, False), (2, False), (2, True), (3, False))
  def test_against_a_loop(self, views, per_batch):
    """Every step of section 'MixMatch', with NS3L (invariant 7: masks from
    the mixed labels, all rows) and a ramp at a quarter; draws are read off
    the images that the network was shown.
    """
    toy, batch = Toy(noise=0.3), make_batch()
    fields = dict(
      MIX,
      views=views,
      weight=12.0,
      ramp='linear',
      ramp_steps=16_384,
      ratio_per_batch=per_batch,
      terms={'ns3l': dict(NS3L, threshold=0.05, weight=2.0)},
    )
    state = quick_jit(build('mixmatch', toy, **fields).init)(
      jax.random.key(0)
    ).replace(step=jnp.array(4096))
    toy.calls = 0
    _, after, metrics = run('mixmatch', toy, batch, state, **fields)
    guesses, passes = toy.views[:views], toy.views[views:]
    (x,) = (new for old, new in toy.augmented if np.array_equal(old, batch.x))
    u = [new for old, new in toy.augmented if np.array_equal(old, batch.u)]
    np.testing.assert_array_equal(guesses, u)
    labels = [np.eye(K)[label] for label in LABELS] + views * [
      p**2 / sum(p**2)
      for p in sum(probs_of(view, state.params) for view in u) / views
    ]
    rows, shown = np.concatenate([x, *u]), np.concatenate(swapped(passes))
    mixed, shares = [], []
    for i, image in enumerate(shown):
      other, share = partner_of(image, rows[i], rows)
      mixed.append(share * labels[i] + (1 - share) * labels[other])
      if share < 1 - 1e-5:  # else it was mixed with itself
        shares.append(share)
    self.assertBetween(min(shares), 0.5 - 1e-5, 0.9)
    self.assertEqual(np.ptp(shares) < 1e-4, per_batch)
    probs = probs_of(shown, state.params)
    known = -np.mean([sum(q * np.log(p)) for q, p in zip(mixed[:B], probs[:B])])
    guess = np.mean([(q - p) ** 2 for q, p in zip(mixed[B:], probs[B:])])
    ns3l = np.mean(
      [negative_sampling_loss(q, p, 0.05) for q, p in zip(mixed, probs)]
    )
    self.assertGreater(ns3l, 0.0)
    for name, value in (
      ('cross_entropy', known),
      ('mixmatch', guess),
      ('ns3l', ns3l),
      ('loss', known + 3.0 * guess + 2.0 * ns3l),
    ):
      np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    check_moved_once(after, passes[0])
    self.check_step(state, after, shown, probs, np.array(mixed), 3.0)

  def check_step(self, state, after, shown, probs, mixed, weight):
    """Invariant 18: the step is that of targets that are constant."""
    slope = np.zeros((K + 1, K))
    for i, (image, p, q) in enumerate(zip(shown, probs, mixed)):
      if i < B:
        change = (p - q) / B
      else:
        gap = weight * 2 * (p - q) / K / (len(shown) - B)
        change = p * (gap - sum(p * gap))
      negative = q < 0.05
      masked = sum(p[negative])
      more = np.where(negative, p, -p * masked / (1 - masked))
      change += 2.0 * more / len(shown)
      slope += np.outer(np.append(image.reshape(-1), 1.0), change)
    for name, want in ('kernel', slope[:-1]), ('bias', slope[-1]):
      got = state.params['head'][name] - after.params['head'][name]
      np.testing.assert_allclose(got / 0.1, want, atol=2e-4)

  def test_passes_as_one_program_give_the_same(self):
    """As on an accelerator: logits, statistics and gradients to rounding."""
    model = models.build(TINY['oliver'], K)
    components = Toy().components(model=model, num_devices=1)
    batches = [images(4, 8, seed=seed) for seed in range(3)]

    def passes(params, stats):
      logits, moved = mixmatch.each_pass(
        components, params, stats, batches, jax.random.key(1), moved_by='first'
      )
      return jnp.sum(logits**2), (logits, moved)

    params, stats = quick_jit(lambda key: model.init(key, (8, 8, 3)))(
      jax.random.key(0)
    )
    found = []
    for backend in 'cpu', 'gpu':
      with mock.patch.object(jax, 'default_backend', lambda: backend):
        grads = jax.grad(passes, has_aux=True)
        found.append(quick_jit(lambda *args: grads(*args))(params, stats))
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
      *found,
    )

  def test_several_accelerators_divide_the_rows(self):
    """None of the 4 devices gathers the images of the others."""
    model = models.build(TINY['oliver'], K)
    components = Toy().components(model=model)
    rows = sharding.batch_sharding(sharding.make(4))
    batches = [jax.device_put(images(8, 8, seed=at), rows) for at in range(3)]
    params, stats = quick_jit(lambda key: model.init(key, (8, 8, 3)))(
      jax.random.key(0)
    )

    @jax.jit
    def logits(params, stats, batches):
      return mixmatch.each_pass(
        components, params, stats, batches, jax.random.key(1), moved_by='first'
      )[0]

    with mock.patch.object(jax, 'default_backend', lambda: 'gpu'):
      text = logits.lower(params, stats, batches).compile().as_text()
    self.assertIn('all-reduce', text)  # of batch normalization
    self.assertNotIn('all-gather', text)

  def test_every_pass_may_move_the_statistics(self):
    """L2I's code: guesses, then mixed chunks, each after the last (F-L23)."""
    toy = Toy(noise=0.3)
    state = quick_jit(build('mixmatch', toy, **MIX).init)(jax.random.key(0))
    toy.calls = 0
    _, after, _ = run('mixmatch', toy, state=state, moved_by='all', **MIX)
    mean = 0.0
    for view in toy.views:
      mean = 0.9 * mean + 0.1 * view.mean()
    self.assertLen(toy.views, 5)
    self.assertEqual(after.stats['passes'], 5)
    np.testing.assert_allclose(after.stats['mean'], mean, rtol=1e-4)

  def test_unknown_mover(self):
    with self.assertRaisesRegex(errors.UserError, "did you mean 'first'"):
      build('mixmatch', moved_by='frst', **MIX)

  def test_batch_norm_moves_once(self):
    """Invariant 18: one update, by 0.999, of a network with batch norm."""
    components = Components(
      model=models.build(TINY['small_cnn'], K),
      tx=optax.sgd(0.1),
      augment=lambda images, key: images,
      image_shape=(4, 4, 1),
    )
    method = build('mixmatch', components=components, **MIX)
    batch = Batch(
      x=images(3, 4, 1),
      y=jnp.arange(3),
      u=images(3, 4, 1, 1),
      u_index=jnp.arange(3),
      per_image_tables={},
    )
    update = quick_jit(method.update)
    state = quick_jit(method.init)(jax.random.key(0))
    late = jax.tree_util.tree_map_with_path(  # once momentum has warmed up
      lambda path, leaf: leaf + 1e6 * (path[-1].key == 'count'), state.stats
    )
    state = state.replace(stats=late)
    shifted = state.replace(
      stats=jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 1.0 * (path[-1].key != 'count'), late
      )
    )
    with mock.patch.object(  # drawing takes long to compile
      mixing, 'mix_ratio', lambda *args, **more: jnp.full(9, 0.75)
    ):
      first, second = (
        update(start, batch, jax.random.key(1))[0].stats
        for start in (state, shifted)
      )
    for name, layer in first.items():
      self.assertEqual(layer['count'], 1e6 + 1)  # one pass of five
      for kind in 'mean', 'var':
        np.testing.assert_allclose(
          second[name][kind] - layer[kind], 0.999, rtol=1e-5
        )

  def test_kernels_alone_decay_and_after_the_average(self):
    """Invariant 18: without gradients kernels shrink by 1 - 0.02 lr."""
    components = (
      Toy()
      .components(
        weight_decay=0.02, ema_decay=0.5, learning_rate=lambda step: 0.002
      )
      ._replace(tx=optax.sgd(0.0))
    )
    state, after, _ = run('mixmatch', components=components, **MIX)
    before, now = state.params['head'], after.params['head']
    np.testing.assert_array_equal(
      now['kernel'], before['kernel'] * np.float32(1 - 4e-5)
    )
    np.testing.assert_array_equal(now['bias'], before['bias'])
    np.testing.assert_array_equal(
      after.slots[combinators.EMA]['head']['kernel'], before['kernel']
    )

  @parameterized.parameters(
    (dict(alpha=0.0), 'alpha=0.0'),
    (dict(temperature=-1.0), 'temperature'),
    (dict(views=0), 'views=0'),
    (
      dict(terms={'ns3l': dict(sampler='furthest', passes=1, **ONCE)}),
      'not a single image',
    ),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      run('mixmatch', **{**MIX, **fields})
    self.assertNotIn('\n', str(caught.exception))

  def test_unequal_batches(self):
    with self.assertRaisesRegex(errors.UserError, 'same number'):
      run('mixmatch', batch=make_batch(4, 6), **MIX)


if __name__ == '__main__':
  absltest.main()
