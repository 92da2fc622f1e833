"""The landmark network: its size, and its layers written out."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from model_helpers import (
  count,
  evaluate,
  images,
  initial,
  noisy,
  plain_conv,
  shapes,
  values,
)

from nsl_jax import errors, models


def build(outputs=10, **fields):
  return models.build({'name': 'tcdcn'}, outputs, **fields)


def plain_pool(x):
  """2x2 max-pooling of f32[B, 2 H, 2 W, C]."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return x.max((2, 4))


class SizeTest(parameterized.TestCase):
  @parameterized.parameters(
    (10, (60, 60, 1), 285_586),
    (4, (60, 60, 1), 285_586 - 6 * 257),
    (10, (60, 60, 3), 285_586 + 2 * 500),
    (10, (44, 44, 1), 285_586 - 8 * 80 * 256),  # a map of 1x1, not 3x3
  )
  def test_parameters(self, outputs, shape, expected):
    """Invariant 32."""
    params, stats = shapes(build(outputs), shape)
    self.assertEqual(count(params), expected)
    self.assertEqual(stats, {})

  def test_parameters_of_each_layer(self):
    params, _ = shapes(build(), (60, 60, 1))
    self.assertEqual(
      {name: count(layer) for name, layer in params.items()},
      {
        'Conv_0': 520,
        'Conv_1': 24_048,
        'Conv_2': 27_712,
        'Conv_3': 46_160,
        'Dense_0': 184_576,
        'Dense_1': 2570,
      },
    )

  def test_too_small(self):
    with self.assertRaisesRegex(errors.UserError, 'at least 44x44.*not 43x60'):
      shapes(build(), (43, 60, 1))


class ValueTest(parameterized.TestCase):
  def test_layers_written_out(self):
    """Convolution, clip, pool, three times; then a linear layer."""
    model = build()
    params, stats = values(model, (60, 60, 1))
    params = noisy(params, 1, -0.02, 0.02)
    x = images(3, 60, 1)
    found = evaluate(model, params, stats, x)
    sides = []
    for block in range(4):
      x = plain_conv(x, params[f'Conv_{block}'], padding='VALID')
      x = np.clip(x, -1, 1)
      x = plain_pool(x) if block < 3 else x
      sides.append(x.shape[1])
    self.assertEqual(sides, [28, 12, 5, 3])
    self.assertBetween(np.mean(np.abs(x) == 1), 0.02, 0.98)
    dense = lambda x, layer: x @ layer['kernel'] + layer['bias'][None]
    features = dense(x.reshape(3, 720), params['Dense_0'])
    np.testing.assert_allclose(found.features, features, atol=2e-4)
    np.testing.assert_allclose(
      found.logits, dense(features, params['Dense_1']), atol=2e-4
    )
    np.testing.assert_array_equal(found.logits, found.consistency)

  def test_training_is_as_evaluation(self):
    """There is no dropout and nothing that a batch could move."""
    model = build()
    params, stats = values(model, (44, 44, 1))
    x = images(2, 44, 1)
    outputs, moved = model.apply(
      params, stats, x, train=True, key=jax.random.key(0)
    )
    self.assertEqual(moved, {})
    np.testing.assert_allclose(
      outputs.logits, evaluate(model, params, stats, x).logits, atol=1e-4
    )

  def test_starts_uniform_by_fan_in(self):
    bound = (5 * 5 * 20) ** -0.5
    layer = initial(build(), (60, 60, 1), 'Conv_1')['Conv_1']
    for name in 'kernel', 'bias':
      self.assertBetween(np.abs(layer[name]).max(), 0.9 * bound, bound)

  def test_bfloat16(self):
    model = build(precision='bfloat16')
    params, stats = values(model, (44, 44, 1))
    found = evaluate(model, params, stats, images(2, 44, 1))
    self.assertEqual(found.logits.dtype, jnp.float32)
    exact = evaluate(build(), params, stats, images(2, 44, 1)).logits
    self.assertLess(np.abs(found.logits - exact).max(), 0.1)
    self.assertGreater(np.abs(found.logits - exact).max(), 0.0)


if __name__ == '__main__':
  absltest.main()
