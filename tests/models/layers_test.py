"""Networks: normalization, dropout and precision."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn
from model_helpers import (
  MOMENTUM,
  TINY,
  images,
  noisy,
  plain_conv,
  quick_jit,
  shapes,
  values,
)

from nsl_jax import models
from nsl_jax.models import layers


class StatisticsTest(parameterized.TestCase):
  @parameterized.parameters(*TINY)
  def test_moves_by_momentum(self, name):
    model = models.build(TINY[name], 4)
    params, stats = values(model, (12, 12, 3))
    key, x = jax.random.key(1), images(6, 12)
    train = quick_jit(
      lambda stats: model.apply(params, stats, x, train=True, key=key)
    )
    # Batch n enters with momentum min(MOMENTUM, n / (n + 9)).
    for batches, momentum in (
      (0, 0.0),
      (1, 0.1),
      (9, 0.5),
      (10**6, MOMENTUM[name]),
    ):
      begun = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
          leaf * 0 + batches if path[-1].key == 'count' else leaf
        ),
        stats,
      )
      shift = lambda path, leaf: leaf + (path[-1].key != 'count')
      outputs, moved = train(begun)
      shifted, moved_shifted = train(
        jax.tree_util.tree_map_with_path(shift, begun)
      )
      # The pass itself uses the batch, whatever the running values are.
      np.testing.assert_array_equal(outputs.logits, shifted.logits)
      for layer in moved:
        self.assertEqual(moved[layer]['count'], batches + 1)
        for kind in 'mean', 'var':
          before, after = moved[layer][kind], moved_shifted[layer][kind]
          np.testing.assert_allclose(
            after - before,
            momentum,
            rtol=0,
            atol=2e-6 * (1 + np.abs(before).max()),
          )
      first = next(iter(n for n in params if n.endswith('Conv_0')))
      h = plain_conv(x, params[first])
      np.testing.assert_allclose(
        moved['BatchNorm_0']['mean'],
        (1 - momentum) * h.mean((0, 1, 2)),
        rtol=1e-4,
        atol=1e-6,
      )
      np.testing.assert_allclose(
        moved['BatchNorm_0']['var'],
        momentum + (1 - momentum) * h.var((0, 1, 2)),
        rtol=1e-5,
      )

  @parameterized.parameters(*TINY)
  def test_evaluation_uses_and_leaves_them(self, name):
    model = models.build(TINY[name], 4)
    params, stats = values(model, (12, 12, 3))
    x = images(6, 12)
    evaluate = quick_jit(
      lambda stats, x: model.apply(params, stats, x, train=False)
    )
    outputs, same = evaluate(stats, x)
    jax.tree.map(np.testing.assert_array_equal, same, stats)
    # A row's result does not depend on the rows beside it.
    mixed, _ = evaluate(stats, np.concatenate([x[:1], 5 * x[1:] + 1]))
    np.testing.assert_allclose(
      outputs.logits[:1], mixed.logits[:1], rtol=1e-4, atol=1e-5
    )
    other, _ = evaluate(noisy(stats, 3, 0, 1), x)
    self.assertGreater(np.abs(outputs.logits - other.logits).max(), 1e-3)


class DropoutTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.x = images(4, 12)

  def test_uses_key(self):
    model = models.build(TINY['vat'], 4)
    params, stats = values(model, (12, 12, 3))
    train = quick_jit(
      lambda key: model.apply(params, stats, self.x, train=True, key=key)[0]
    )
    first = train(jax.random.key(1)).logits
    np.testing.assert_array_equal(first, train(jax.random.key(1)).logits)
    difference = np.abs(first - train(jax.random.key(2)).logits)
    self.assertGreater(difference.max(), 1e-3)

  def test_none_without_key(self):
    logits = {}
    for name, fields in ('none', {'dropout': 0.0}), ('off', {}):
      model = models.build(TINY['vat'] | fields, 4)
      params, stats = values(model, (12, 12, 3))
      run = quick_jit(
        lambda m=model, p=params, s=stats: (
          m.apply(p, s, self.x, train=True)[0].logits
        )
      )
      logits[name] = run()
    np.testing.assert_array_equal(logits['none'], logits['off'])

  def test_needs_none_without_dropout(self):
    for config in (TINY['vat'] | {'dropout': 0.0}, TINY['small_cnn']):
      model = models.build(config, 4)
      params, stats = values(model, (12, 12, 3))
      outputs, _ = jax.eval_shape(
        lambda p, s, m=model: m.apply(p, s, self.x, train=True), params, stats
      )
      self.assertEqual(outputs.logits.shape, (4, 4))


class PrecisionTest(parameterized.TestCase):
  @parameterized.parameters('small_cnn', 'oliver', 'dual_student')
  def test_bfloat16(self, name):
    x, key = images(8, 12), jax.random.key(1)

    def run(model, params, stats):
      return quick_jit(
        lambda params, stats: model.apply(params, stats, x, train=True, key=key)
      )(params, stats)

    exact = models.build(TINY[name], 4)
    model = models.build(TINY[name], 4, precision='bfloat16')
    params, _ = shapes(model, (12, 12, 3))
    for leaf in jax.tree.leaves(params):
      self.assertEqual(leaf.dtype, jnp.float32)
    variables = values(model, (12, 12, 3))
    rough, moved = run(model, *variables)
    for leaf in jax.tree.leaves((rough, moved)):
      self.assertEqual(leaf.dtype, jnp.float32)
      self.assertTrue(np.isfinite(leaf).all())
    fine, _ = run(exact, *variables)
    difference = np.abs(rough.logits - fine.logits).max()
    self.assertGreater(difference, 0)
    self.assertLess(difference, 0.1 * np.abs(fine.logits).max())

  def test_convolutions_are_bfloat16(self):
    for name, width in (('wide_resnet', 1), ('cnn13', 0.1)):
      module = models.NETWORKS[name](
        num_classes=3, width=width, dtype=jnp.bfloat16
      )
      _, variables = jax.eval_shape(
        lambda key, module=module: module.init_with_output(
          key,
          jnp.zeros((1, 12, 12, 3)),
          train=False,
          capture_intermediates=True,
          mutable=True,
        ),
        jax.random.key(0),
      )
      for layer, found in variables['intermediates'].items():
        if layer.startswith(('Conv', 'BatchNorm')):
          self.assertEqual(found['__call__'][0].dtype, jnp.bfloat16, layer)

  def test_norm_computes_in_float32(self):
    class Norm(nn.Module):
      @nn.compact
      def __call__(self, x):
        return layers.batch_norm(x, train=True, momentum=0.0, epsilon=1e-3)

    # 1,000 values near 8 sum to what bfloat16 could not hold.
    x = jnp.asarray(8 + images(10, 10), jnp.bfloat16)
    norm = Norm()
    variables = norm.init(jax.random.key(0), x)
    y, moved = norm.apply(variables, x, mutable=['batch_stats'])
    exact = np.asarray(x, np.float32)
    stats = moved['batch_stats']['BatchNorm_0']
    np.testing.assert_allclose(stats['mean'], exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(stats['var'], exact.var((0, 1, 2)), rtol=1e-3)
    self.assertEqual(y.dtype, jnp.bfloat16)
    expected = (exact - exact.mean((0, 1, 2))[None]) / np.sqrt(
      exact.var((0, 1, 2)) + 1e-3
    )[None]
    np.testing.assert_allclose(
      np.asarray(y, np.float32), expected, rtol=5e-3, atol=5e-3
    )


class LayerTest(parameterized.TestCase):
  def test_weight_norm_depends_on_direction_only(self):
    for layer, shape in (
      (layers.WeightNormConv(5, (3, 3)), (2, 4, 4, 3)),
      (layers.WeightNormDense(5), (2, 3)),
    ):
      x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
      y, variables = layer.init_with_output(jax.random.key(1), x)
      params = variables['params']
      axes = tuple(range(params['v'].ndim - 1))
      np.testing.assert_allclose(
        params['g'], np.sqrt(np.square(params['v']).sum(axes)), rtol=1e-5
      )
      longer = layer.apply({'params': params | {'v': 3 * params['v']}}, x)
      np.testing.assert_allclose(y, longer, rtol=1e-4, atol=1e-5)
      bias = np.broadcast_to(params['bias'], y.shape)
      doubled = layer.apply({'params': params | {'g': 2 * params['g']}}, x)
      np.testing.assert_allclose(
        2 * (y - bias), doubled - bias, rtol=1e-4, atol=1e-5
      )

  @parameterized.parameters((8, 8), (7, 9))
  def test_max_pool(self, height, width):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, height, width, 3)), jnp.float32)

    def windowed(x):
      return nn.max_pool(x, (2, 2), (2, 2))

    np.testing.assert_array_equal(layers.max_pool(x), windowed(x))
    np.testing.assert_allclose(
      jax.grad(lambda x: jnp.sum(layers.max_pool(x) ** 2))(x),
      jax.grad(lambda x: jnp.sum(windowed(x) ** 2))(x),
      rtol=1e-6,
    )


if __name__ == '__main__':
  absltest.main()
