"""The network of the domain adaptation: its layers, noise and corner pool."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from model_helpers import (
  check_first_norm,
  count,
  evaluate,
  images,
  initial,
  noisy,
  plain_act,
  plain_conv,
  plain_norm,
  quick_jit,
  shapes,
  values,
)

from nsl_jax import errors, models


def build(classes=10, precision='float32', **fields):
  return models.build({'name': 'cnn3', **fields}, classes, precision=precision)


def plain_pool(x):
  """2x2 max-pooling of f32[B, H, W, C], an odd last row or column dropped."""
  batch, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return x.max((2, 4))


def plain_map(params, x, stats=None):
  """The last map, written out; with the batch's statistics unless given."""
  for layer in range(3):
    name = f'BatchNorm_{layer}'
    x = plain_conv(x, params[f'WeightNormConv_{layer}'])
    x = plain_act(
      plain_norm(x, params[name], 1e-5, None if stats is None else stats[name])
    )
    if layer < 2:
      x = plain_pool(x)
  return x


def plain_head(features, layer):
  """Weight-normalized dense layer, f32[B, D] -> f32[B, K]."""
  norm = np.sqrt(np.square(layer['v']).sum(0))
  kernel = layer['v'] * (layer['g'] / norm)[None]
  return features @ kernel + np.asarray(layer['bias'])[None]


class SizeTest(parameterized.TestCase):
  @parameterized.parameters(
    (3, 10, (28, 28, 1), 15_256),
    (3, 10, (28, 28, 3), 15_256),
    (1, 10, (28, 28, 1), 14_968),
    (3, 7, (28, 28, 1), 15_256 - 6 * 34),
    (3, 10, (32, 32, 3), 15_256),
  )
  def test_parameters(self, channels, classes, shape, expected):
    params, stats = shapes(build(classes, channels=channels), shape)
    self.assertEqual(count(params), expected)
    self.assertEqual(count(stats), 2 * (16 + 32 + 32) + 3)

  @parameterized.parameters(
    ((24, 24, 1),), ((28, 28, 1),), ((32, 32, 3),), ((24, 40, 1),)
  )
  def test_outputs(self, shape):
    model = build(7)
    params, stats = shapes(model, shape)
    outputs, _ = jax.eval_shape(
      lambda params, stats, x: model.apply(params, stats, x, train=False),
      params,
      stats,
      jax.ShapeDtypeStruct((5, *shape), jnp.float32),
    )
    self.assertEqual(outputs.logits.shape, (5, 7))
    self.assertEqual(outputs.consistency.shape, (5, 7))
    self.assertEqual(outputs.features.shape, (5, 32))

  @parameterized.parameters(
    ({'channels': 2}, (28, 28, 1), 'channels must be 1 or 3, not 2'),
    ({'channels': 1}, (28, 28, 3), 'have 3 channels, not 1; set channels=3'),
    ({'noise': -0.1}, (28, 28, 1), 'noise must not be negative'),
    ({'noise': float('nan')}, (28, 28, 1), 'noise must not be negative'),
    ({'dropout': 1.0}, (28, 28, 1), r'dropout must be in \[0, 1\)'),
    ({}, (23, 28, 1), 'at least 24x24 pixels, not 23x28'),
    ({}, (28, 16, 1), 'at least 24x24 pixels, not 28x16'),
  )
  def test_rejects_values_at_first_use(self, fields, shape, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      shapes(build(**fields), shape)
    self.assertNotIn('\n', str(caught.exception))

  def test_fields(self):
    known = models.options_of('cnn3')
    defaults = {name: option.default for name, option in known.items()}
    expected = {'channels': 3, 'noise': 0.15, 'dropout': 0.5, 'init_from': ''}
    self.assertEqual(defaults, expected)

  def test_initial_values_are_uniform(self):
    params = initial(
      build(),
      (24, 24, 1),
      'WeightNormConv_2',
      'WeightNormDense_0',
      'WeightNormDense_1',
    )
    for layer in params.values():
      v = layer['v']
      bound = np.prod(v.shape[:-1]) ** -0.5
      self.assertLessEqual(np.abs(v).max(), bound)
      self.assertGreater(np.abs(v).max(), 0.9 * bound)
      norm = np.sqrt(np.square(v).sum(tuple(range(v.ndim - 1))))
      np.testing.assert_allclose(layer['g'], norm, rtol=1e-5)
    heads = [params[f'WeightNormDense_{head}']['v'] for head in range(2)]
    self.assertGreater(np.abs(heads[0] - heads[1]).max(), 0.1)


class ValueTest(parameterized.TestCase):
  def variables(self, model, shape):
    return tuple(
      noisy(tree, seed) for seed, tree in enumerate(values(model, shape))
    )

  @parameterized.parameters(
    ((28, 28, 1), 3), ((28, 28, 1), 1), ((32, 36, 3), 3)
  )
  def test_evaluation_written_out(self, shape, channels):
    model = build(5, channels=channels)
    params, stats = self.variables(model, shape)
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    outputs = evaluate(model, params, stats, x)
    repeated = np.concatenate([x] * (channels // x.shape[-1]), axis=-1)
    last = plain_map(params, repeated, stats)
    self.assertEqual(last.shape[1:3], (shape[0] // 4, shape[1] // 4))
    features = last[:, :6, :6].mean((1, 2))
    self.assertGreater(np.abs(features - last.mean((1, 2))).max(), 1e-2)
    np.testing.assert_allclose(outputs.features, features, rtol=1e-3, atol=1e-4)
    for found, head in ((outputs.logits, 0), (outputs.consistency, 1)):
      expected = plain_head(features, params[f'WeightNormDense_{head}'])
      np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)

  def test_training_uses_the_batch_and_moves_the_statistics(self):
    model = build(5, noise=0.0, dropout=0.0)
    params, stats = values(model, (28, 28, 1))
    x = images(6, 28, 1)
    outputs, moved = quick_jit(
      lambda params, stats: model.apply(params, stats, x, train=True)
    )(params, stats)
    repeated = np.concatenate([x] * 3, axis=-1)
    features = plain_map(params, repeated)[:, :6, :6].mean((1, 2))
    np.testing.assert_allclose(outputs.features, features, rtol=1e-3, atol=1e-4)
    check_first_norm(moved, plain_conv(repeated, params['WeightNormConv_0']))

  def test_pool_sees_a_corner_of_the_map(self):
    # Row 5 of the last map, over two poolings, sees rows up to 30.
    model = build(5)
    params, stats = self.variables(model, (40, 40, 1))
    x = images(1, 40, 1)
    beyond, within = x.copy(), x.copy()
    beyond[:, 31:], beyond[:, :, 31:] = 3, 3
    within[:, 30] = 3
    base, same, other = (
      evaluate(model, params, stats, image).features
      for image in (x, beyond, within)
    )
    np.testing.assert_array_equal(base, same)
    self.assertGreater(np.abs(base - other).max(), 1e-4)


class NoiseTest(parameterized.TestCase):
  def run_training(self, model, x, key):
    params, stats = values(model, x.shape[1:])
    return quick_jit(
      lambda params, stats: (
        model.apply(params, stats, x, train=True, key=key)[0].logits
      )
    )(params, stats)

  def test_of_the_input_in_training_only(self):
    module = models.NETWORKS['cnn3'](num_classes=5, noise=0.25)
    x = images(20, 28, 1)

    def seen(train, rngs):
      """What the first convolution is given."""
      return module.apply({}, x, train, rngs=rngs, method='_input')

    repeated = np.concatenate([x] * 3, axis=-1)
    with_key = {'dropout': jax.random.key(0)}
    np.testing.assert_array_equal(seen(False, with_key), repeated)
    np.testing.assert_array_equal(seen(True, None), repeated)
    noise = np.asarray(seen(True, with_key)) - repeated
    # 47,040 values: four standard errors.
    self.assertAlmostEqual(noise.std(), 0.25, delta=0.0033)
    self.assertAlmostEqual(noise.mean(), 0, delta=0.0047)
    copies = np.corrcoef(noise.reshape(-1, 3), rowvar=False)
    self.assertLess(np.abs(copies - np.eye(3)).max(), 0.04)

  def test_follows_the_key(self):
    model, x = build(5, dropout=0.0), images(4, 28, 1)
    first = self.run_training(model, x, jax.random.key(1))
    second_pass = self.run_training(model, x, jax.random.key(1))
    other = self.run_training(model, x, jax.random.key(2))
    np.testing.assert_array_equal(first, second_pass)
    self.assertGreater(np.abs(first - other).max(), 1e-3)

  def test_dropout_without_noise(self):
    model, x = build(5, noise=0.0), images(4, 28, 1)
    first = self.run_training(model, x, jax.random.key(1))
    other = self.run_training(model, x, jax.random.key(2))
    self.assertGreater(np.abs(first - other).max(), 1e-3)
    still = self.run_training(model, x, None)  # no key, no dropout
    np.testing.assert_array_equal(still, self.run_training(model, x, None))
    self.assertGreater(np.abs(first - still).max(), 1e-3)


class PrecisionTest(parameterized.TestCase):
  def test_bfloat16(self):
    x, key = images(8, 28, 1), jax.random.key(1)
    params, stats = values(build(5), (28, 28, 1))

    def run(precision):
      model = build(5, precision)
      for leaf in jax.tree.leaves(shapes(model, (28, 28, 1))):
        self.assertEqual(leaf.dtype, jnp.float32)
      return quick_jit(
        lambda params, stats: model.apply(params, stats, x, train=True, key=key)
      )(params, stats)

    rough, moved = run('bfloat16')
    for leaf in jax.tree.leaves((rough, moved)):
      self.assertEqual(leaf.dtype, jnp.float32)
      self.assertTrue(np.isfinite(leaf).all())
    fine, _ = run('float32')
    difference = np.abs(rough.logits - fine.logits).max()
    self.assertGreater(difference, 0)
    self.assertLess(difference, 0.1 * np.abs(fine.logits).max())

  def test_layers_are_bfloat16(self):
    module = models.NETWORKS['cnn3'](num_classes=3, dtype=jnp.bfloat16)
    _, variables = jax.eval_shape(
      lambda key: module.init_with_output(
        key,
        jnp.zeros((1, 28, 28, 1)),
        train=False,
        capture_intermediates=True,
        mutable=True,
      ),
      jax.random.key(0),
    )
    found = variables['intermediates']
    for layer in range(3):
      for kind in ('WeightNormConv', 'BatchNorm'):
        value = found[f'{kind}_{layer}']['__call__'][-1]
        self.assertEqual(value.dtype, jnp.bfloat16)
    last = found['BatchNorm_2']['__call__'][-1]
    self.assertEqual(last.shape, (1, 7, 7, 32))


if __name__ == '__main__':
  absltest.main()
