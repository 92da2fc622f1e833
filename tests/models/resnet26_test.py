"""The network of the many-class experiment: its sizes, blocks and precision."""

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
  plain_conv,
  plain_norm,
  quick_jit,
  shapes,
  values,
)

from nsl_jax import errors, models
from nsl_jax.models import layers

SMALL = {'width': 1 / 8, 'blocks': 2}  # 4 filters, then 8, 16, 32


def build(classes=10, precision='float32', **fields):
  return models.build(
    {'name': 'resnet26', **fields}, classes, precision=precision
  )


def plain_block(params, x, layer, stride, norm):
  """One block of f32[B, H, W, C], whose first convolution is `Conv_{layer}`."""
  h = np.maximum(
    norm(plain_conv(x, params[f'Conv_{layer}'], stride=stride), layer), 0
  )
  h = norm(plain_conv(h, params[f'Conv_{layer + 1}']), layer + 1)
  if stride == 2:
    corners = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
    x = np.concatenate([sum(corners) / 4, np.zeros_like(h)], axis=-1)
  return np.maximum(h + x[..., : h.shape[-1]], 0)


def plain_features(params, x, blocks, stats=None):
  """Pooled features; with the batch's statistics unless given."""

  def norm(x, layer):
    name = f'BatchNorm_{layer}'
    return plain_norm(
      x, params[name], 1e-5, None if stats is None else stats[name]
    )

  x = norm(plain_conv(x, params['Conv_0']), 0)
  for block in range(3 * blocks):
    stride = 1 if block % blocks else 2
    x = plain_block(params, x, 2 * block + 1, stride, norm)
  return np.maximum(norm(x, 6 * blocks + 1), 0).mean((1, 2))


class SizeTest(parameterized.TestCase):
  @parameterized.parameters(
    (200, (64, 64, 3), 5_866_088),
    (200, (32, 32, 3), 5_866_088),
    (10, (64, 64, 3), 5_814_688 + 10 * 257),
    (200, (64, 64, 1), 5_866_088 - 2 * 9 * 32),
  )
  def test_parameters(self, classes, shape, expected):
    """Invariant 32."""
    params, stats = shapes(build(classes), shape)
    self.assertEqual(count(params), expected)
    convolutions = 32 + 8 * (64 + 128 + 256)
    self.assertEqual(count(stats), 2 * (convolutions + 256) + 26)

  def test_parameters_of_the_body(self):
    params, _ = shapes(build(200), (64, 64, 3))
    head = params.pop('Dense_0')
    self.assertEqual(count(params), 5_814_688)
    self.assertEqual(count(head), 200 * 256 + 200)
    # 25 convolutions and the dense layer are the 26.
    self.assertLen([name for name in params if 'Conv' in name], 25)
    for name, layer in params.items():
      if 'Conv' in name:
        self.assertEqual(list(layer), ['kernel'], name)

  @parameterized.parameters(
    ((64, 64, 3), (8, 8)), ((32, 32, 3), (4, 4)), ((16, 40, 1), (2, 5))
  )
  def test_maps(self, shape, side):
    """Invariant 32: 8x8x256 before the pool."""
    module = models.NETWORKS['resnet26'](num_classes=10)
    _, variables = jax.eval_shape(
      lambda key: module.init_with_output(
        key,
        jnp.zeros((1, *shape)),
        train=False,
        capture_intermediates=True,
        mutable=True,
      ),
      jax.random.key(0),
    )
    found = variables['intermediates']
    last = lambda name: found[name]['__call__'][0].shape
    self.assertEqual(last('BatchNorm_25'), (1, *side, 256))
    self.assertEqual(last('BatchNorm_0'), (1, *shape[:2], 32))
    self.assertEqual(last('BatchNorm_8'), (1, shape[0] // 2, shape[1] // 2, 64))
    self.assertEqual(
      last('BatchNorm_9'), (1, shape[0] // 4, shape[1] // 4, 128)
    )

  @parameterized.parameters(
    ({}, 7, 256), ({'width': 0.5}, 3, 128), ({'blocks': 1}, 200, 256)
  )
  def test_outputs(self, fields, classes, width):
    model = build(classes, **fields)
    params, stats = shapes(model, (64, 64, 3))
    outputs, _ = jax.eval_shape(
      lambda params, stats, x: model.apply(params, stats, x, train=False),
      params,
      stats,
      jax.ShapeDtypeStruct((5, 64, 64, 3), jnp.float32),
    )
    self.assertEqual(outputs.logits.shape, (5, classes))
    self.assertEqual(outputs.consistency.shape, (5, classes))
    self.assertEqual(outputs.features.shape, (5, width))

  @parameterized.parameters(
    ({'width': 0.0}, (64, 64, 3), 'width must be positive, not 0.0'),
    ({'width': float('nan')}, (64, 64, 3), 'width must be positive'),
    ({'blocks': 0}, (64, 64, 3), 'blocks must be at least 1, not 0'),
    ({}, (28, 28, 1), 'multiples of 8, not 28x28'),
    ({}, (64, 60, 3), 'multiples of 8, not 64x60'),
  )
  def test_rejects_values_at_first_use(self, fields, shape, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      shapes(build(**fields), shape)
    self.assertNotIn('\n', str(caught.exception))

  def test_fields(self):
    known = models.options_of('resnet26')
    defaults = {name: option.default for name, option in known.items()}
    self.assertEqual(defaults, {'width': 1.0, 'blocks': 4, 'init_from': ''})

  def test_convolutions_are_fan_out_normal(self):
    names = ('Conv_1', 'Conv_5', 'Conv_6')
    params = initial(
      build(100, blocks=1), (8, 8, 3), *names, 'BatchNorm_2', 'Dense_0'
    )
    for name in names:
      kernel = params[name]['kernel']
      std = (2 / (9 * kernel.shape[-1])) ** 0.5
      tolerance = 5 / (2 * kernel.size) ** 0.5
      self.assertAlmostEqual(kernel.std() / std, 1, delta=tolerance)
    # A truncated normal of this deviation ends at 2.3 of it.
    self.assertGreater(np.abs(params['Conv_6']['kernel']).max(), 3 * std)
    np.testing.assert_array_equal(params['BatchNorm_2']['scale'], 1)
    np.testing.assert_array_equal(params['Dense_0']['bias'], 0)


class ValueTest(parameterized.TestCase):
  def test_evaluation_written_out(self):
    model = build(5, **SMALL)
    params, stats = values(model, (16, 24, 3))
    params, stats = noisy(params, 1), noisy(stats, 2, 0, 0.5)
    x = np.random.default_rng(0).normal(size=(3, 16, 24, 3))
    x = x.astype(np.float32)
    outputs = evaluate(model, params, stats, x)
    features = plain_features(params, x, 2, stats)
    np.testing.assert_allclose(outputs.features, features, rtol=1e-3, atol=1e-4)
    head = params['Dense_0']
    expected = features @ head['kernel'] + np.asarray(head['bias'])[None]
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(outputs.consistency, outputs.logits)

  def test_training_uses_the_batch_and_moves_the_statistics(self):
    model = build(5, **SMALL)
    params, stats = values(model, (16, 16, 3))
    params = noisy(params, 1)
    # Faint images make the epsilon of the first norm visible.
    x = 0.01 * images(6, 16)
    outputs, moved = quick_jit(
      lambda params, stats: model.apply(params, stats, x, train=True)
    )(params, stats)
    features = plain_features(params, x, 2)
    np.testing.assert_allclose(outputs.features, features, rtol=1e-3, atol=1e-3)
    check_first_norm(moved, plain_conv(x, params['Conv_0']))

  def test_shortcut_fills_up_with_zeros(self):
    model = build(5, width=1 / 8, blocks=1)
    params, stats = values(model, (16, 16, 3))
    # Branches that give nothing leave the stem's four channels, averaged.
    for layer in range(1, 7):
      params[f'Conv_{layer}']['kernel'] *= 0
    x = images(2, 16)
    features = evaluate(model, params, stats, x).features
    h = plain_norm(
      plain_conv(x, params['Conv_0']),
      params['BatchNorm_0'],
      1e-5,
      stats['BatchNorm_0'],
    )
    for _ in range(3):
      h = h.reshape(2, h.shape[1] // 2, 2, h.shape[2] // 2, 2, 4).mean((2, 4))
      h = np.maximum(h, 0)
    np.testing.assert_allclose(
      features[:, :4], h.mean((1, 2)), rtol=1e-4, atol=1e-5
    )
    self.assertGreater(features[:, :4].max(), 0.1)
    np.testing.assert_array_equal(features[:, 4:], 0)

  def test_mean_pool(self):
    x = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    found = layers.mean_pool(jnp.asarray(x))
    self.assertEqual(found.shape, (2, 2, 3, 3))
    for row in range(2):
      for column in range(3):
        window = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_allclose(
          found[:, row, column], window.mean((1, 2)), rtol=1e-6
        )


class PrecisionTest(parameterized.TestCase):
  def test_bfloat16(self):
    x = images(8, 16)
    params, stats = values(build(5, **SMALL), (16, 16, 3))

    def run(precision):
      model = build(5, precision, **SMALL)
      for leaf in jax.tree.leaves(shapes(model, (16, 16, 3))):
        self.assertEqual(leaf.dtype, jnp.float32)
      return quick_jit(
        lambda params, stats: model.apply(params, stats, x, train=True)
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
    module = models.NETWORKS['resnet26'](
      num_classes=3, dtype=jnp.bfloat16, **SMALL
    )
    _, variables = jax.eval_shape(
      lambda key: module.init_with_output(
        key,
        jnp.zeros((1, 16, 16, 3)),
        train=False,
        capture_intermediates=True,
        mutable=True,
      ),
      jax.random.key(0),
    )
    for layer, found in variables['intermediates'].items():
      if layer.startswith(('Conv', 'BatchNorm')):
        self.assertEqual(found['__call__'][0].dtype, jnp.bfloat16, layer)


if __name__ == '__main__':
  absltest.main()
