"""The small convolutional network against its definition."""

import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn
from model_helpers import (
  images,
  noisy,
  plain_conv,
  plain_norm,
  quick_jit,
  values,
)

from nsl_jax import models


class ValueTest(parameterized.TestCase):
  """Against the definition written out in NumPy."""

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


if __name__ == '__main__':
  absltest.main()
