"""The wide residual network against its definition, and how it starts."""

import math

import jax
import numpy as np
from absl.testing import absltest, parameterized
from model_helpers import (
  images,
  initial,
  noisy,
  plain_wrn_features,
  quick_jit,
  values,
)

from nsl_jax import models


class ValueTest(parameterized.TestCase):
  """Against the definition written out in NumPy."""

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


if __name__ == '__main__':
  absltest.main()
