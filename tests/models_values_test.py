"""Networks against their definitions, and how they start."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn
from model_helpers import (
  TINY,
  evaluate,
  images,
  initial,
  noisy,
  plain_act,
  plain_conv,
  plain_norm,
  plain_wrn_features,
  quick_jit,
  values,
)

from nsl_jax import models
from nsl_jax.models import layers


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
      outputs.logits,
      expected @ head['kernel'] + head['bias'][None],
      rtol=1e-3,
      atol=1e-3,
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
      models.build(config, 10),
      (12, 12, 3),
      'WeightNormConv_6',
      'WeightNormDense_1',
    )
    for layer in params.values():
      v = layer['v']
      bound = 1 / math.sqrt(math.prod(v.shape[:-1]))
      self.assertLessEqual(np.abs(v).max(), bound)
      self.assertGreater(np.abs(v).max(), 0.95 * bound)
      self.assertLessEqual(np.abs(layer['bias']).max(), bound)

  def test_cnn13_l2i_is_fan_out_and_xavier(self):
    """N(0, 2 / (9 128)) is .042 at the first layers, the last is .12."""
    config = {'name': 'cnn13', 'variant': 'l2i', 'top_bn': False}
    params = initial(
      models.build(config, 10), (12, 12, 3), 'Conv_1', 'Conv_8', 'Dense_0'
    )
    for name, std in (
      ('Conv_1', 0.04167),
      ('Conv_8', 0.125),
      ('Dense_0', math.sqrt(2 / 138)),
    ):
      kernel = params[name]['kernel']
      tolerance = 5 / math.sqrt(2 * kernel.size)
      self.assertAlmostEqual(kernel.std() / std, 1, delta=tolerance, msg=name)
    # A truncated normal of this deviation ends at 2.3 of it.
    self.assertGreater(np.abs(params['Conv_1']['kernel']).max(), 3 * 0.04167)
    np.testing.assert_array_equal(params['Dense_0']['bias'], 0)
    bound = 1 / math.sqrt(9 * 128)
    bias = np.abs(params['Conv_1']['bias'])
    self.assertLessEqual(bias.max(), bound)
    self.assertGreater(bias.max(), 0.9 * bound)


if __name__ == '__main__':
  absltest.main()
