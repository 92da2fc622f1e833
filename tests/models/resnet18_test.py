"""The residual network for larger images: sizes, values, norms, precision."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn
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
from nsl_jax.models import layers, resnet18

SMALL = {'width': 1 / 16}  # 4, 8, 16 and 32 filters
# The convolutions in the order of the network: of a stage, the two of a block,
# the shortcut if it has one, and the two of the next block.
_FIRST = ((1, 2, None), (3, 4, None))
_OTHERS = tuple(
  ((start, start + 1, start + 2), (start + 3, start + 4, None))
  for start in (5, 10, 15)
)


def build(classes=10, precision='float32', **fields):
  return models.build(
    {'name': 'resnet18', **fields}, classes, precision=precision
  )


def plain_group_norm(x, layer, groups):
  """Of f32[B, H, W, C], over the map and the channels of a group."""
  parts = x.reshape(*x.shape[:3], groups, -1)
  mean = parts.mean((1, 2, 4), keepdims=True)
  var = parts.var((1, 2, 4), keepdims=True)
  y = ((parts - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
  scale, bias = np.asarray(layer['scale']), np.asarray(layer['bias'])
  return y * scale[None, None, None] + bias[None, None, None]


def plain_features(params, x, stem, stats=None):
  """Pooled features; by the norms that `params` has."""

  def unit(x, index, stride=1):
    kernel = params[f'Conv_{index}']['kernel']
    side = kernel.shape[0] // 2
    x = plain_conv(
      x, {'kernel': kernel}, stride=stride, padding=[(side, side)] * 2
    )
    if f'GroupNorm_{index}' in params:
      groups = max(1, x.shape[-1] // 2)  # where there are at most 64
      return plain_group_norm(x, params[f'GroupNorm_{index}'], groups)
    name = f'BatchNorm_{index}'
    return plain_norm(x, params[name], 1e-5, stats and stats[name])

  x = np.maximum(unit(x, 0, 2 if stem == 'imagenet' else 1), 0)
  if stem == 'imagenet':
    x = np.asarray(nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))))
  for first, second, shortcut in sum((_FIRST, *_OTHERS), ()):
    stride = 2 if shortcut else 1
    h = np.maximum(unit(x, first, stride), 0)
    h = unit(h, second)
    x = np.maximum(h + (unit(x, shortcut, 2) if shortcut else x), 0)
  return x.mean((1, 2))


class SizeTest(parameterized.TestCase):
  @parameterized.parameters(
    # The known number; that of CIFAR's variant; the norms have as many.
    ('batch', 'imagenet', 1000, (224, 224, 3), 11_689_512),
    ('group', 'imagenet', 1000, (224, 224, 3), 11_689_512),
    ('batch', 'small', 10, (32, 32, 3), 11_173_962),
    ('batch', 'imagenet', 1000, (64, 96, 3), 11_689_512),
    ('group', 'imagenet', 7, (65, 65, 1), 11_176_512 + 7 * 513 - 2 * 49 * 64),
  )
  def test_parameters(self, norm, stem, classes, shape, expected):
    params, stats = shapes(build(classes, norm=norm, stem=stem), shape)
    self.assertEqual(count(params), expected)
    # Of 20 norms mean, variance and a counter.
    self.assertEqual(count(stats), 2 * 4800 + 20 if norm == 'batch' else 0)

  @parameterized.parameters(
    ('imagenet', (224, 224), (56, 56), (7, 7)),
    ('imagenet', (64, 97), (16, 25), (2, 4)),
    ('small', (32, 32), (32, 32), (4, 4)),
  )
  def test_maps(self, stem, sides, first, last):
    module = models.NETWORKS['resnet18'](num_classes=10, stem=stem)
    outputs, variables = jax.eval_shape(
      lambda key: module.init_with_output(
        key,
        jnp.zeros((2, *sides, 3)),
        train=False,
        capture_intermediates=True,
        mutable=True,
      ),
      jax.random.key(0),
    )
    found = variables['intermediates']
    shape_of = lambda name: found[name]['__call__'][0].shape
    self.assertEqual(shape_of('Conv_1'), (2, *first, 64))
    self.assertEqual(shape_of('GroupNorm_19'), (2, *last, 512))
    self.assertEqual(outputs.logits.shape, (2, 10))
    self.assertEqual(outputs.consistency.shape, (2, 10))
    self.assertEqual(outputs.features.shape, (2, 512))

  @parameterized.parameters(
    ({'width': 0.0}, 64, 'resnet18: width=0.0: must be > 0'),
    ({'norm': 'layer'}, 64, "resnet18: norm='layer': known: batch, group"),
    ({'stem': 'cifar'}, 64, "resnet18: stem='cifar': known: "),
    ({}, 31, 'stem=imagenet needs .* 32x32 pixels, not 31x31; use stem=small'),
    ({'stem': 'small'}, 7, 'at least 8x8 pixels, not 7x7; use small_cnn'),
  )
  def test_rejects(self, fields, side, message):
    module = models.NETWORKS['resnet18'](num_classes=3, **fields)
    for use in (
      lambda: shapes(build(**fields), (side, side, 3)),
      lambda: module.init(
        jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False
      ),
    ):
      with self.assertRaisesRegex(errors.UserError, message) as caught:
        use()
      self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(
    (1, 1), (2, 1), (3, 1), (4, 2), (24, 12), (64, 32), (96, 32), (512, 32)
  )
  def test_groups(self, filters, expected):
    self.assertEqual(resnet18.groups_of(filters), expected)

  def test_initial_values(self):
    names = ('Conv_2', 'Conv_18', *(f'GroupNorm_{n}' for n in range(20)))
    params = initial(build(100, width=1 / 8), (32, 32, 3), *names, 'Dense_0')
    for name in ('Conv_2', 'Conv_18'):
      kernel = params[name]['kernel']
      std = (2 / (9 * kernel.shape[-1])) ** 0.5
      tolerance = 5 / (2 * kernel.size) ** 0.5
      self.assertAlmostEqual(kernel.std() / std, 1, delta=tolerance)
    last = [second for _, second, _ in sum((_FIRST, *_OTHERS), ())]
    for n in range(20):
      scale = params[f'GroupNorm_{n}']['scale']
      np.testing.assert_array_equal(scale, 0 if n in last else 1, str(n))
    kernel = params['Dense_0']['kernel']
    self.assertAlmostEqual(kernel.std() / (2 / 164) ** 0.5, 1, delta=0.05)


class ValueTest(parameterized.TestCase):
  @parameterized.parameters(
    ('group', 'imagenet', (45, 40, 3)), ('batch', 'small', (16, 18, 1))
  )
  def test_evaluation_written_out(self, norm, stem, shape):
    model = build(5, norm=norm, stem=stem, **SMALL)
    params, stats = values(model, shape)
    params, stats = noisy(params, 1), noisy(stats, 2, 0, 0.5)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    outputs = evaluate(model, params, stats, x)
    features = plain_features(params, x, stem, stats or None)
    np.testing.assert_allclose(outputs.features, features, rtol=1e-3, atol=1e-3)
    head = params['Dense_0']
    expected = features @ head['kernel'] + np.asarray(head['bias'])[None]
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(outputs.consistency, outputs.logits)

  def test_training_with_batch_norm_moves_the_statistics(self):
    model = build(5, norm='batch', stem='small', **SMALL)
    params, stats = values(model, (16, 16, 3))
    params, x = noisy(params, 1), images(4, 16)
    outputs, moved = quick_jit(
      lambda params, stats: model.apply(params, stats, x, train=True)
    )(params, stats)
    features = plain_features(params, x, 'small')
    np.testing.assert_allclose(outputs.features, features, rtol=1e-3, atol=1e-3)
    kernel = {'kernel': params['Conv_0']['kernel']}
    check_first_norm(moved, plain_conv(x, kernel))

  def test_gradients_are_finite_at_the_start(self):
    """The last scales are zero there: no branch has a gradient but they."""
    model = build(5, **SMALL)
    params, _ = values(model, (32, 32, 3))
    last = [second for _, second, _ in sum((_FIRST, *_OTHERS), ())]
    for n in last:
      params[f'GroupNorm_{n}']['scale'] *= 0
    x = np.zeros((2, 32, 32, 3), np.float32)
    x[1] = images(1, 32)[0]  # beside an image of one color

    def loss(params, x):
      outputs, _ = model.apply(params, {}, x, train=True)
      return (outputs.logits**2).sum()

    grads, to_image = quick_jit(jax.grad(loss, (0, 1)))(params, x)
    for leaf in jax.tree.leaves((grads, to_image)):
      self.assertTrue(np.isfinite(leaf).all())
    self.assertGreater(np.abs(to_image[1]).max(), 0)
    self.assertGreater(np.abs(grads['GroupNorm_2']['scale']).max(), 0)
    np.testing.assert_array_equal(grads['Conv_1']['kernel'], 0)

  def test_max_pool_3x3(self):
    """On a side of an odd and one of an even length."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 8, 3)), jnp.float32)

    def windowed(x):
      return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    found = layers.max_pool_3x3(x)
    np.testing.assert_array_equal(found, windowed(x))
    self.assertEqual(found.shape, (2, 4, 4, 3))
    grads = jax.jit(
      lambda x: [
        jax.grad(lambda x: jnp.sum(pool(x) ** 2))(x)
        for pool in (layers.max_pool_3x3, windowed)
      ]
    )(x)
    np.testing.assert_allclose(*grads, rtol=1e-6)


class PrecisionTest(parameterized.TestCase):
  @parameterized.parameters('group', 'batch')
  def test_layers_are_bfloat16(self, norm):
    model = build(3, 'bfloat16', norm=norm, **SMALL)
    for leaf in jax.tree.leaves(shapes(model, (32, 32, 3))):
      self.assertEqual(leaf.dtype, jnp.float32)
    module = models.NETWORKS['resnet18'](
      num_classes=3, norm=norm, dtype=jnp.bfloat16, **SMALL
    )
    outputs, variables = jax.eval_shape(
      lambda key: module.init_with_output(
        key,
        jnp.zeros((1, 32, 32, 3)),
        train=True,
        capture_intermediates=True,
        mutable=True,
      ),
      jax.random.key(0),
    )
    for leaf in jax.tree.leaves(outputs):
      self.assertEqual(leaf.dtype, jnp.float32)
    for layer, found in variables['intermediates'].items():
      if layer.startswith(('Conv', 'BatchNorm', 'GroupNorm')):
        self.assertEqual(found['__call__'][0].dtype, jnp.bfloat16, layer)

  def test_bfloat16(self):
    # A last map of 4x4: on one of 1x1 a norm of two filters is a sign.
    x, fields = images(4, 32), {'stem': 'small', **SMALL}
    params, _ = values(build(5, **fields), (32, 32, 3))
    rough = evaluate(build(5, 'bfloat16', **fields), params, {}, x)
    fine = evaluate(build(5, **fields), params, {}, x)
    difference = np.abs(rough.logits - fine.logits).max()
    self.assertGreater(difference, 0)
    self.assertLess(difference, 0.1 * np.abs(fine.logits).max())


if __name__ == '__main__':
  absltest.main()
