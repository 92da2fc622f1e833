"""The network of 13 layers against its definition, and how it starts."""

import math

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
  values,
)

from nsl_jax import models


class ValueTest(parameterized.TestCase):
  """Against the definition written out in NumPy."""

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


class InitialValueTest(parameterized.TestCase):
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
