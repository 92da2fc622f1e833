"""Networks: sizes, initial values, normalisation, dropout and precision."""

import functools
import math

from absl.testing import absltest
from absl.testing import parameterized
import flax
from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from nsl_jax import errors
from nsl_jax import models
from nsl_jax.models import layers

# Compiling takes most of the time of these tests.
quick_jit = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)

TINY = {
    'small_cnn': {'name': 'small_cnn', 'batch_norm': True},
    'oliver': {'name': 'wide_resnet', 'width': 1, 'depth': 10},
    'vat': {'name': 'cnn13', 'width': 1 / 32},
    'l2i': {'name': 'cnn13', 'variant': 'l2i', 'width': 1 / 32},
    'dual_student': {
        'name': 'cnn13', 'variant': 'dual_student', 'width': 1 / 32
    },
}
MOMENTUM = {
    'small_cnn': 0.999,
    'oliver': 0.999,
    'vat': 0.99,
    'l2i': 0.9,
    'dual_student': 0.9,
}


def shapes(model, image_shape):
  """Shapes of the variables, without computing them."""
  return jax.eval_shape(
      lambda key: model.init(key, image_shape), jax.random.key(0)
  )


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def noisy(tree, seed, low=-0.3, high=0.3):
  """A tree with uniform noise added to every leaf."""
  leaves, treedef = jax.tree.flatten(tree)
  rng = np.random.default_rng(seed)
  return treedef.unflatten([
      leaf + rng.uniform(low, high, leaf.shape).astype(np.float32)
      for leaf in leaves
  ])


def values(model, image_shape):
  """Plausible variables from NumPy, which is faster than the initialisers."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name in ('kernel', 'v'):
      scale = (2 / math.prod(leaf.shape[:-1])) ** 0.5
      return rng.normal(scale=scale, size=leaf.shape).astype(np.float32)
    start = 1 if name in ('scale', 'var', 'g') else 0
    return np.full(leaf.shape, start, np.float32)

  params, stats = shapes(model, image_shape)
  return tuple(
      jax.tree_util.tree_map_with_path(draw, tree) for tree in (params, stats)
  )


def initial(model, image_shape, *names):
  """Initial parameters of some layers; only theirs are compiled."""

  def init(key):
    params, _ = model.init(key, image_shape)
    return {name: params[name] for name in names}

  return jax.tree.map(np.asarray, quick_jit(init)(jax.random.key(0)))


def evaluate(model, params, stats, x):
  """Outputs in evaluation mode, compiled as one."""
  return quick_jit(
      lambda params, stats: model.apply(params, stats, x, train=False)[0]
  )(params, stats)


def images(batch, side, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(batch, side, side, channels)).astype(np.float32)


def plain_conv(x, layer, *, stride=1, padding='SAME'):
  """Convolution written out from its parameters."""
  kernel = layer.get('kernel')
  if kernel is None:
    norm = np.sqrt(np.square(layer['v']).sum((0, 1, 2), keepdims=True))
    kernel = np.asarray(layer['v']) / norm
    kernel = kernel * np.asarray(layer['g'])[None, None, None]
  y = jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  if 'bias' in layer:
    y = y + np.asarray(layer['bias'])[None, None, None]
  return np.asarray(y)


def plain_norm(x, layer, epsilon, stats=None):
  """Batch normalisation, with the batch where no statistics are given."""
  mean = x.mean((0, 1, 2)) if stats is None else np.asarray(stats['mean'])
  var = x.var((0, 1, 2)) if stats is None else np.asarray(stats['var'])
  scale = np.asarray(layer['scale']) / np.sqrt(var + epsilon)
  return (x - mean[None]) * scale[None] + np.asarray(layer['bias'])[None]


def plain_act(x):
  return np.where(x > 0, x, 0.1 * x)


def plain_wrn_features(params, x, *, units, epsilon, activate_all=False):
  """Pooled features of a three-stage network, in the order of section 3.1."""
  conv_names = iter(f'Conv_{i}' for i in range(100))
  norm_names = iter(f'BatchNorm_{i}' for i in range(100))

  def conv(x, stride=1):
    return plain_conv(x, params[next(conv_names)], stride=stride)

  def norm(x):
    return plain_act(plain_norm(x, params[next(norm_names)], epsilon))

  x = conv(x)
  for stage in range(3):
    for unit in range(units):
      stride = 2 if stage and not unit else 1
      h = norm(x)
      source = h if activate_all or (stage, unit) == (0, 0) else x
      h = conv(norm(conv(h, stride)))
      # Every stage of these networks changes the number of channels once.
      x = h + (conv(source, stride) if unit == 0 else source)
  return norm(x).mean((1, 2))


class BuildTest(parameterized.TestCase):

  @parameterized.parameters(
      ({'name': 'smal_cnn'}, "unknown network 'smal_cnn'.*'small_cnn'"),
      ({}, 'unknown network None'),
      ({'name': 'cnn13', 'widht': 1.0}, "field of cnn13 'widht'.*'width'"),
      ({'name': 'cnn13', 'num_classes': 3}, "field of cnn13 'num_classes'"),
      ({'name': 'cnn13', 'width': 'wide'}, 'cnn13: width must be of type'),
      ({'name': 'cnn13', 'width': True}, 'cnn13: width must be of type'),
      ({'name': 'cnn13', 'top_bn': 1}, 'top_bn must be true, false or null'),
      ({'name': 'small_cnn', 'batch_norm': 1}, 'batch_norm must be of type'),
      ({'name': 'wide_resnet', 'width': 2.0}, 'width must be of type int'),
  )
  def test_rejects_config(self, config, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      models.build(config, 10)
    self.assertNotIn('\n', str(caught.exception))

  def test_rejects_precision(self):
    with self.assertRaisesRegex(errors.UserError, "mean 'bfloat16'"):
      models.build({'name': 'small_cnn'}, 10, precision='bfloat')

  @parameterized.parameters(
      ({'name': 'wide_resnet', 'variant': 'olivier'}, 32, "mean 'oliver'"),
      ({'name': 'wide_resnet', 'stages': 5}, 32, 'stages must be 3 or 4'),
      ({'name': 'wide_resnet', 'width': 0}, 32, 'width must be at least 1'),
      ({'name': 'wide_resnet', 'depth': 27}, 32, 'depth must be 10, 16'),
      ({'name': 'cnn13', 'variant': 'dual'}, 32, 'no variant'),
      ({'name': 'cnn13', 'width': 0.0}, 32, 'width must be positive'),
      ({'name': 'cnn13', 'dropout': 1.0}, 32, r'dropout must be in \[0, 1\)'),
      ({'name': 'cnn13'}, 8, 'at least 12x12 pixels, not 8x8'),
      ({'name': 'small_cnn'}, 3, 'at least 4x4 pixels, not 3x3'),
  )
  def test_rejects_values_at_first_use(self, config, side, message):
    with self.assertRaisesRegex(errors.UserError, message):
      shapes(models.build(config, 10), (side, side, 3))

  def test_reads_config_dict_and_leaves_it(self):
    config = ml_collections.ConfigDict(TINY['vat'])
    params, _ = shapes(models.build(config, 7), (32, 32, 3))
    self.assertEqual(params['Dense_0']['kernel'].shape, (4, 7))
    self.assertEqual(config.to_dict(), TINY['vat'])

  def test_fields(self):
    self.assertEqual(models.fields('small_cnn'), {'batch_norm': False})
    self.assertEqual(
        models.fields('wide_resnet'),
        {'variant': 'oliver', 'stages': 3, 'width': 2, 'depth': 28},
    )


class ShapeTest(parameterized.TestCase):

  @parameterized.parameters(
      ('oliver', 10, 1_467_610),
      ('oliver', 100, 1_479_220),
      ('mixmatch', 10, 1_469_642),
      ('mixmatch', 100, 1_481_252),
      ('l2i', 10, 1_469_626),
      ('l2i', 100, 1_481_236),
  )
  def test_wide_resnet_parameters(self, variant, classes, expected):
    model = models.build({'name': 'wide_resnet', 'variant': variant}, classes)
    params, stats = shapes(model, (32, 32, 3))
    self.assertEqual(count(params), expected)
    self.assertEqual(count(stats), 3616)

  @parameterized.parameters(('mixmatch', 5_933_770), ('oliver', 5_929_434))
  def test_four_stage_parameters(self, variant, expected):
    config = {'name': 'wide_resnet', 'variant': variant, 'stages': 4}
    params, _ = shapes(models.build(config, 10), (96, 96, 3))
    self.assertEqual(count(params), expected)

  @parameterized.parameters(
      ('vat', None, 10, (32, 32, 3), 3_121_802),
      ('vat', True, 10, (32, 32, 3), 3_121_822),
      ('l2i', False, 10, (32, 32, 3), 3_123_850),
      ('l2i', False, 100, (32, 32, 3), 3_135_460),
      ('l2i', None, 10, (32, 32, 3), 3_123_870),
      ('l2i', None, 100, (32, 32, 3), 3_135_660),
      ('dual_student', None, 10, (32, 32, 3), 3_127_208),
      ('dual_student', None, 100, (32, 32, 3), 3_150_608),
      ('dual_student', None, 10, (28, 28, 1), 3_124_904),
  )
  def test_cnn13_parameters(self, variant, top_bn, classes, shape, expected):
    config = {'name': 'cnn13', 'variant': variant, 'top_bn': top_bn}
    params, _ = shapes(models.build(config, classes), shape)
    self.assertEqual(count(params), expected)

  def test_small_cnn_parameters(self):
    params, stats = shapes(models.build({'name': 'small_cnn'}, 10), (28, 28, 1))
    self.assertEqual(count(params), 421_642)
    self.assertEqual(stats, {})
    params, stats = shapes(models.build(TINY['small_cnn'], 10), (28, 28, 1))
    self.assertEqual(count(params), 421_642 + 192)
    self.assertEqual(count(stats), 192)

  @parameterized.product(
      config=(
          ({'name': 'small_cnn'}, 128),
          ({'name': 'wide_resnet'}, 128),
          ({'name': 'wide_resnet', 'stages': 4}, 256),
          ({'name': 'cnn13'}, 128),
          ({'name': 'cnn13', 'variant': 'dual_student'}, 128),
      ),
      shape=((28, 28, 1), (32, 32, 3), (64, 64, 3), (96, 96, 3)),
  )
  def test_outputs(self, config, shape):
    config, width = config
    model = models.build(config, 7)
    params, stats = shapes(model, shape)
    outputs, _ = jax.eval_shape(
        lambda params, stats, x: model.apply(params, stats, x, train=False),
        params, stats, jax.ShapeDtypeStruct((5, *shape), jnp.float32),
    )
    self.assertEqual(outputs.logits.shape, (5, 7))
    self.assertEqual(outputs.consistency.shape, (5, 7))
    self.assertEqual(outputs.features.shape, (5, width))

  @parameterized.parameters(
      ('wide_resnet', 'BatchNorm_24', 32, (1, 8, 8, 128)),
      ('cnn13', 'BatchNorm_8', 32, (1, 6, 6, 128)),
      ('cnn13', 'BatchNorm_8', 28, (1, 5, 5, 128)),
  )
  def test_map_before_pooling(self, name, last, side, expected):
    module = models.NETWORKS[name](num_classes=10)
    _, variables = jax.eval_shape(
        lambda key: module.init_with_output(
            key, jnp.zeros((1, side, side, 3)), train=False,
            capture_intermediates=True, mutable=True,
        ),
        jax.random.key(0),
    )
    (found,) = variables['intermediates'][last]['__call__']
    self.assertEqual(found.shape, expected)

  def test_small_cnn_follows_image_size(self):
    model = models.build({'name': 'small_cnn'}, 10)
    params, stats = values(model, (8, 8, 1))
    self.assertEqual(params['Dense_0']['kernel'].shape, (2 * 2 * 64, 128))
    outputs, moved = model.apply(params, stats, images(3, 8, 1), train=True)
    self.assertEqual(outputs.logits.shape, (3, 10))
    self.assertEqual(moved, {})


class ValueTest(parameterized.TestCase):
  """The networks against their definitions written out in NumPy."""

  @parameterized.parameters(('mixmatch', 1e-3), ('l2i', 1e-5))
  def test_wide_resnet_units(self, variant, epsilon):
    config = {'name': 'wide_resnet', 'variant': variant, 'depth': 16}
    model = models.build(config, 3)
    params, stats = values(model, (8, 8, 3))
    params = noisy(params, 1)
    # Faint images make the epsilon of the first norm visible.
    x = 0.05 * images(4, 8)
    outputs, _ = quick_jit(
        lambda params, x: model.apply(params, stats, x, train=True)
    )(params, x)
    expected = plain_wrn_features(params, x, units=2, epsilon=epsilon)
    np.testing.assert_allclose(outputs.features, expected, rtol=3e-4, atol=3e-4)
    head = jax.tree.map(np.asarray, params['Dense_0'])
    np.testing.assert_allclose(
        outputs.logits, expected @ head['kernel'] + head['bias'][None],
        rtol=1e-3, atol=1e-3,
    )
    for wrong in (
        plain_wrn_features(
            params, x, units=2, epsilon=epsilon, activate_all=True
        ),
        plain_wrn_features(params, x, units=2, epsilon=1e-4),
    ):
      self.assertGreater(np.abs(outputs.features - wrong).max(), 3e-3)

  @parameterized.parameters(
      ('vat', 1e-6), ('l2i', 1e-5), ('dual_student', 1e-5)
  )
  def test_cnn13_layers(self, variant, epsilon):
    model = models.build(TINY[variant] | {'top_bn': False}, 3)
    params, stats = values(model, (12, 12, 3))
    params, stats = noisy(params, 1), noisy(stats, 2, 0.0, 0.5)
    x = images(4, 12)
    outputs = evaluate(model, params, stats, x)
    same_heads = np.array_equal(outputs.logits, outputs.consistency)
    self.assertEqual(same_heads, variant != 'dual_student')
    conv = 'WeightNormConv' if variant == 'dual_student' else 'Conv'
    h = x
    for i in range(9):
      if i in (3, 6):
        h = np.asarray(nn.max_pool(h, (2, 2), (2, 2)))
      padding = 'VALID' if i == 6 else 'SAME'
      h = plain_conv(h, params[f'{conv}_{i}'], padding=padding)
      norm = f'BatchNorm_{i}'
      h = plain_act(plain_norm(h, params[norm], epsilon, stats[norm]))
    np.testing.assert_allclose(
        outputs.features, h.mean((1, 2)), rtol=3e-4, atol=3e-4
    )

  @parameterized.parameters(True, False)
  def test_small_cnn_layers(self, batch_norm):
    config = {'name': 'small_cnn', 'batch_norm': batch_norm}
    model = models.build(config, 3)
    params, stats = values(model, (12, 12, 3))
    params, x = noisy(params, 1), 0.05 * images(4, 12)
    outputs, _ = quick_jit(
        lambda params: model.apply(params, stats, x, train=True)
    )(params)
    h = x
    for i in range(2):
      h = plain_conv(h, params[f'Conv_{i}'])
      if batch_norm:
        h = plain_norm(h, params[f'BatchNorm_{i}'], 1e-3)
      h = np.asarray(nn.max_pool(np.maximum(h, 0), (2, 2), (2, 2)))
    h = h.reshape(4, -1) @ params['Dense_0']['kernel']
    h = np.maximum(h + params['Dense_0']['bias'][None], 0)
    np.testing.assert_allclose(outputs.features, h, rtol=1e-3, atol=1e-3)
    logits = h @ params['Dense_1']['kernel'] + params['Dense_1']['bias'][None]
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-3, atol=2e-3)
    np.testing.assert_array_equal(outputs.consistency, outputs.logits)

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


class InitialValueTest(parameterized.TestCase):

  def test_wide_resnet_is_fan_out_normal(self):
    config = {'name': 'wide_resnet', 'variant': 'mixmatch', 'depth': 10}
    # First, 3x3, 1x1 and last 3x3 convolutions.
    convs = ('Conv_0', 'Conv_1', 'Conv_6', 'Conv_8')
    params = initial(
        models.build(config, 100), (8, 8, 3), *convs, 'BatchNorm_0', 'Dense_0'
    )
    for name in convs:
      kernel = params[name]['kernel']
      size, _, _, filters = kernel.shape
      std = math.sqrt(2 / (size**2 * filters))
      tolerance = 5 / math.sqrt(2 * kernel.size)
      self.assertAlmostEqual(kernel.std() / std, 1, delta=tolerance)
      np.testing.assert_array_equal(params[name]['bias'], 0)
    # A truncated normal of this deviation ends at 2.3 of it.
    self.assertGreater(np.abs(params['Conv_8']['kernel']).max(), 3 * std)
    np.testing.assert_array_equal(params['BatchNorm_0']['scale'], 1)
    np.testing.assert_array_equal(params['BatchNorm_0']['bias'], 0)
    np.testing.assert_array_equal(params['Dense_0']['bias'], 0)
    kernel = params['Dense_0']['kernel']
    self.assertAlmostEqual(kernel.std() / math.sqrt(2 / 228), 1, delta=0.05)

  def test_cnn13_vat_is_fan_in(self):
    model = models.build({'name': 'cnn13', 'width': 1 / 8}, 10)
    params = initial(model, (12, 12, 3), 'Conv_6', 'Conv_7')
    for layer in params.values():
      kernel = layer['kernel']
      std = math.sqrt(2 / math.prod(kernel.shape[:-1]))
      self.assertAlmostEqual(kernel.std() / std, 1, delta=0.08)
      self.assertNotIn('bias', layer)

  def test_cnn13_dual_student_is_uniform(self):
    config = {'name': 'cnn13', 'variant': 'dual_student', 'width': 1 / 8}
    params = initial(
        models.build(config, 10), (12, 12, 3),
        'WeightNormConv_6', 'WeightNormDense_1',
    )
    for layer in params.values():
      v = layer['v']
      bound = 1 / math.sqrt(math.prod(v.shape[:-1]))
      self.assertLessEqual(np.abs(v).max(), bound)
      self.assertGreater(np.abs(v).max(), 0.95 * bound)
      self.assertLessEqual(np.abs(layer['bias']).max(), bound)

  def test_l2i_bias_and_kernel_are_uniform(self):
    config = {'name': 'cnn13', 'variant': 'l2i', 'width': 1 / 8}
    params = initial(models.build(config, 10), (12, 12, 3), 'Conv_6')
    bound = 1 / math.sqrt(9 * 32)
    for leaf in params['Conv_6'].values():
      self.assertLessEqual(np.abs(leaf).max(), bound)
      self.assertGreater(np.abs(leaf).max(), 0.9 * bound)


class StatisticsTest(parameterized.TestCase):

  @parameterized.parameters(*TINY)
  def test_moves_by_momentum(self, name):
    model = models.build(TINY[name], 4)
    params, stats = values(model, (12, 12, 3))
    key, x = jax.random.key(1), images(6, 12)
    train = quick_jit(
        lambda stats: model.apply(params, stats, x, train=True, key=key)
    )
    outputs, moved = train(stats)
    shifted, moved_shifted = train(jax.tree.map(lambda leaf: leaf + 1, stats))
    # The pass itself uses the batch, whatever the running values are.
    np.testing.assert_array_equal(outputs.logits, shifted.logits)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            b - a, MOMENTUM[name], rtol=0, atol=2e-6 * (1 + np.abs(a).max())
        ),
        moved, moved_shifted,
    )
    first = next(iter(n for n in params if n.endswith('Conv_0')))
    h = plain_conv(x, params[first])
    decay = MOMENTUM[name]
    np.testing.assert_allclose(
        moved['BatchNorm_0']['mean'], (1 - decay) * h.mean((0, 1, 2)),
        rtol=1e-4, atol=1e-6,
    )
    np.testing.assert_allclose(
        moved['BatchNorm_0']['var'],
        decay + (1 - decay) * h.var((0, 1, 2)),
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

  def test_needs_and_uses_key(self):
    model = models.build(TINY['vat'], 4)
    params, stats = values(model, (12, 12, 3))
    with self.assertRaises(flax.errors.InvalidRngError):
      jax.eval_shape(
          lambda p, s: model.apply(p, s, self.x, train=True), params, stats
      )
    train = quick_jit(
        lambda key: model.apply(params, stats, self.x, train=True, key=key)[0]
    )
    first = train(jax.random.key(1)).logits
    np.testing.assert_array_equal(first, train(jax.random.key(1)).logits)
    difference = np.abs(first - train(jax.random.key(2)).logits)
    self.assertGreater(difference.max(), 1e-3)

  def test_needs_none_without_dropout(self):
    for config in (TINY['vat'] | {'dropout': 0.0}, TINY['small_cnn']):
      model = models.build(config, 4)
      params, stats = values(model, (12, 12, 3))
      outputs, _ = jax.eval_shape(
          lambda p, s, m=model: m.apply(p, s, self.x, train=True),
          params, stats,
      )
      self.assertEqual(outputs.logits.shape, (4, 4))


class PrecisionTest(parameterized.TestCase):

  @parameterized.parameters('small_cnn', 'oliver', 'dual_student')
  def test_bfloat16(self, name):
    x, key = images(8, 12), jax.random.key(1)

    def run(model, params, stats):
      return quick_jit(
          lambda params, stats: model.apply(
              params, stats, x, train=True, key=key
          )
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
              key, jnp.zeros((1, 12, 12, 3)), train=False,
              capture_intermediates=True, mutable=True,
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


if __name__ == '__main__':
  absltest.main()
