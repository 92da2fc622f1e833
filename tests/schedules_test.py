"""Schedules: ramps by hand, weights, and the one drop of the rate."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nsl_jax import errors
from nsl_jax import optimizers
from nsl_jax import schedules


class RampTest(parameterized.TestCase):

  @parameterized.parameters(
      (0, 0.006738), (100, 0.060055), (200, 0.286505), (400, 1.0),
      (401, 1.0), (10**9, 1.0),
  )
  def test_sigmoid(self, step, expected):
    """Invariant 14: exp(-5 (1 - t)^2), 1 at the end and for ever after."""
    ramp = schedules.sigmoid_ramp(400)
    np.testing.assert_allclose(ramp(step), expected, rtol=1e-4)
    traced = jax.jit(ramp)(jnp.asarray(step, jnp.int32))
    np.testing.assert_allclose(traced, ramp(step), rtol=1e-6)

  @parameterized.parameters(
      (0, 0.0), (4096, 0.25), (16383, 16383 / 16384), (16384, 1.0),
      (20000, 1.0),
  )
  def test_linear(self, step, expected):
    """Invariant 14: the weight of MixMatch is whole at step 16,384."""
    ramp = schedules.linear_ramp(16384)
    np.testing.assert_allclose(ramp(step), expected, rtol=1e-6)
    traced = jax.jit(ramp)(jnp.asarray(step, jnp.int32))
    np.testing.assert_allclose(traced, expected, rtol=1e-6)

  @parameterized.parameters('sigmoid', 'linear')
  def test_never_falls(self, name):
    ramp = schedules.weight(1.0, name, 50)
    values = np.array([ramp(step) for step in range(60)])
    self.assertTrue((np.diff(values[:51]) > 0).all())
    np.testing.assert_array_equal(values[50:], 1.0)

  @parameterized.parameters('sigmoid', 'linear')
  def test_no_steps_at_all(self, name):
    ramp = schedules.weight(1.0, name, 0)
    self.assertEqual([ramp(0), ramp(1)], [1.0, 1.0])


class WeightTest(parameterized.TestCase):

  @parameterized.parameters(
      ('none', 0, 3.0), ('none', 7, 3.0), ('linear', 5, 1.5),
      ('sigmoid', 5, 3 * 0.286505), ('sigmoid', 10, 3.0),
  )
  def test_value_times_ramp(self, ramp, step, expected):
    weight = schedules.weight(3.0, ramp, 10)
    np.testing.assert_allclose(weight(step), expected, rtol=1e-5)

  def test_unknown_ramp(self):
    with self.assertRaisesRegex(
        errors.UserError, "unknown ramp 'sigmod': did you mean 'sigmoid'"):
      schedules.weight(1.0, 'sigmod', 10)


class LearningRateTest(absltest.TestCase):

  def test_without_drop(self):
    rate = schedules.learning_rate(
        {'lr': 3e-4, 'drop_steps': 0, 'drop_factor': 0.2})
    for step in 0, 1, 10**6:
      np.testing.assert_allclose(rate(step), 3e-4, rtol=1e-6)

  def test_drops_exactly_once(self):
    """Invariant 14: times 0.2 at the given step, then never again."""
    rate = jax.vmap(schedules.learning_rate(
        {'lr': 3e-4, 'drop_steps': 400, 'drop_factor': 0.2}))
    values = rate(jnp.array([0, 399, 400, 401, 800, 10**6]))
    np.testing.assert_allclose(
        values, [3e-4, 3e-4, 6e-5, 6e-5, 6e-5, 6e-5], rtol=1e-6)


class OptimizerTest(absltest.TestCase):

  def test_adam_by_hand_with_a_drop(self):
    """Betas (0.9, 0.999), epsilon 1e-8 outside the root, rate by step."""
    tx = optimizers.build(
        {'name': 'adam', 'lr': 0.1, 'drop_steps': 2, 'drop_factor': 0.2})
    params = jnp.array([5.0, -5.0])  # would show a decay of the weights
    state = tx.init(params)
    m = v = np.zeros(2)
    grads = [np.array(g) for g in ([1, 1e-8], [-2, 1e-8], [3, 0], [0.5, 0])]
    for t, (grad, rate) in enumerate(zip(grads, (0.1, 0.1, 0.02, 0.02)), 1):
      m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
      root = np.sqrt(v / (1 - 0.999**t))
      expected = -rate * m / (1 - 0.9**t) / (root + 1e-8)
      change, state = tx.update(jnp.asarray(grad, jnp.float32), state, params)
      np.testing.assert_allclose(change, expected, rtol=1e-4)

  def test_unknown_optimizer(self):
    with self.assertRaisesRegex(
        errors.UserError, "unknown optimizer 'adm': did you mean 'adam'"):
      optimizers.build({'name': 'adm'})


if __name__ == '__main__':
  absltest.main()
