"""Schedules: ramps by hand, weights held for an epoch, the rate's decline."""

import math
import runpy
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import errors, methods, options, schedules
from nsl_jax.training import config as config_lib

common = types.SimpleNamespace(
  **runpy.run_path(str(config_lib.root() / 'configs' / 'common.py'))
)


class RampTest(parameterized.TestCase):
  @parameterized.parameters(
    (0, 0.006738),
    (100, 0.060055),
    (200, 0.286505),
    (400, 1.0),
    (401, 1.0),
    (10**9, 1.0),
  )
  def test_sigmoid(self, step, expected):
    """Invariant 14: exp(-5 (1 - t)^2), 1 at the end and for ever after."""
    ramp = schedules.sigmoid_ramp(400)
    np.testing.assert_allclose(ramp(step), expected, rtol=1e-4)
    traced = jax.jit(ramp)(jnp.asarray(step, jnp.int32))
    np.testing.assert_allclose(traced, ramp(step), rtol=1e-6)

  def test_sigmoid_exactly(self):
    """Invariant 14: 0.006738, 0.286505 and 1 are e^-5, e^-1.25 and e^0."""
    ramp = schedules.sigmoid_ramp(50_000)
    for step, power, value in (
      (0, 5.0, 0.006738),
      (12_500, 2.8125, 0.060055),
      (25_000, 1.25, 0.286505),
      (50_000, 0.0, 1.0),
    ):
      self.assertEqual(round(math.exp(-power), 6), value)
      np.testing.assert_allclose(ramp(step), math.exp(-power), rtol=1e-6)
    self.assertEqual(ramp(50_000), 1.0)

  @parameterized.parameters('sigmoid', 'linear')
  def test_against_a_loop(self, name):
    """Every step of a ramp and some after it."""
    want = []
    for step in range(60):
      done = step / 50 if step < 50 else 1.0
      want.append(done if name == 'linear' else math.exp(-5 * (1 - done) ** 2))
    ramp = jax.vmap(schedules.ramped(weight=1.0, ramp=name, ramp_steps=50))
    np.testing.assert_allclose(ramp(jnp.arange(60)), want, rtol=2e-6)

  def test_mixmatch_is_whole_after_its_images(self):
    """Invariant 14: 64 images a step reach 1024 * 1024 at step 16,384."""
    own = options.of(methods.find('mixmatch'))
    ramp = schedules.ramped(
      **{name: own[name].default for name in ('weight', 'ramp', 'ramp_steps')}
    )
    last = 1024 * 1024 // 64
    for step, expected in (
      (0, 0.0),
      (last // 2, 37.5),
      (last - 1, 75 * (last - 1) / last),
      (last, 75.0),
      (last + 1, 75.0),
    ):
      np.testing.assert_allclose(ramp(step), expected, rtol=1e-6)

  @parameterized.parameters(
    (0, 0.0), (4096, 0.25), (16383, 16383 / 16384), (16384, 1.0), (20000, 1.0)
  )
  def test_linear(self, step, expected):
    """Invariant 14: the weight of MixMatch is whole at step 16,384."""
    ramp = schedules.linear_ramp(16384)
    np.testing.assert_allclose(ramp(step), expected, rtol=1e-6)
    traced = jax.jit(ramp)(jnp.asarray(step, jnp.int32))
    np.testing.assert_allclose(traced, expected, rtol=1e-6)

  @parameterized.parameters('sigmoid', 'linear')
  def test_never_falls(self, name):
    ramp = schedules.ramped(weight=1.0, ramp=name, ramp_steps=50)
    values = np.array([ramp(step) for step in range(60)])
    self.assertTrue((np.diff(values[:51]) > 0).all())
    np.testing.assert_array_equal(values[50:], 1.0)

  @parameterized.parameters('sigmoid', 'linear')
  def test_no_steps_at_all(self, name):
    ramp = schedules.ramped(weight=1.0, ramp=name, ramp_steps=0)
    self.assertEqual([ramp(0), ramp(1)], [1.0, 1.0])


class WeightTest(parameterized.TestCase):
  @parameterized.parameters(
    ('none', 0, 3.0),
    ('none', 7, 3.0),
    ('linear', 5, 1.5),
    ('sigmoid', 5, 3 * 0.286505),
    ('sigmoid', 10, 3.0),
  )
  def test_value_times_ramp(self, ramp, step, expected):
    weight = schedules.ramped(weight=3.0, ramp=ramp, ramp_steps=10)
    np.testing.assert_allclose(weight(step), expected, rtol=1e-5)

  def test_unknown_ramp(self):
    with self.assertRaisesRegex(
      errors.UserError, "schedules ramp='sigmod': did you mean 'sigmoid'"
    ):
      schedules.ramped(weight=1.0, ramp='sigmod', ramp_steps=10)

  @parameterized.parameters(
    (dict(weight=-1.0), 'weight=-1.0: must be >= 0'),
    (dict(weight='1'), "weight='1': must be a number"),
    (dict(ramp_steps=2.5), 'ramp_steps=2.5: must be a whole number'),
  )
  def test_wrong_value(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, f'schedules {message}'):
      schedules.ramped(**fields)

  def test_without_options(self):
    weight = schedules.ramped()
    self.assertEqual([weight(0), weight(10**6)], [1.0, 1.0])


def released(epoch):
  """DNLL's weight in the code of its combinations, by epoch (F-D7)."""
  return 75 * np.exp(-5 * (1 - epoch / 100) ** 2) if epoch <= 15 else 2.0


class DnllTest(parameterized.TestCase):
  """Invariant 23, last clause."""

  @parameterized.parameters(320, 464, 900, 267, 1, 3)
  def test_by_epoch(self, epoch):
    weight = schedules.ramped(
      weight=2.0, ramp='dnll', ramp_steps=100 * epoch, hold_steps=epoch
    )
    weight = jax.jit(jax.vmap(weight))
    first = jnp.arange(120) * epoch
    expected = [released(e) for e in range(120)]
    for within in {0, epoch // 2, epoch - 1}:
      np.testing.assert_allclose(weight(first + within), expected, rtol=1e-5)
    np.testing.assert_allclose(
      weight(first[jnp.array([0, 15, 16, 17, 119])]),
      [0.505, 2.024, 2.0, 2.0, 2.0],
      atol=5e-4,
    )

  @parameterized.parameters(320, 464, 900, 267)
  def test_by_step(self, epoch):
    weight = schedules.ramped(weight=2.0, ramp='dnll', ramp_steps=100 * epoch)
    for step in (0, epoch // 3, 15 * epoch, 16 * epoch - 1):
      expected = 75 * np.exp(-5 * (1 - step / epoch / 100) ** 2)
      np.testing.assert_allclose(weight(step), expected, rtol=1e-5)
    for step in (16 * epoch, 16 * epoch + 1, 10**8):
      self.assertEqual(weight(step), 2.0)

  @parameterized.parameters(320, 464, 900, 267)
  def test_shortened_runs_jump_at_the_same_epoch(self, epoch):
    """`hold_steps` and `ramp_steps` are rounded apart from each other."""
    drifts = set()
    for hold in (*range(20, 60, 3), *range(60, epoch, 19)):
      for part in (hold - 0.499, hold - 0.25, hold + 0.25, hold + 0.499):
        config = ml_collections.ConfigDict(
          dict(hold_steps=epoch, ramp_steps=100 * epoch)
        )
        common.scale(config, part / epoch)
        self.assertEqual(config.hold_steps, hold)
        weight = schedules.ramped(weight=2.0, ramp='dnll', **config)
        before, after = (
          np.asarray(weight(np.int32(step)))
          for step in (16 * hold - 1, 16 * hold)
        )
        self.assertEqual(after, 2.0, config)
        np.testing.assert_allclose(before, released(15), rtol=0.05)
        self.assertNotEqual(before, 2.0, config)
        drifts.add(config.ramp_steps % hold)
    self.assertGreater(len(drifts), 20)  # that they do drift apart


class SevenSixteenthsTest(parameterized.TestCase):
  def test_by_hand(self):
    """lr cos(7 pi t / 16): cos(pi / 4) at t = 4/7, 0.195 at the end."""
    rate = schedules.decayed(lr=0.03, cosine_steps=700, cosine='7/16')
    found = [float(rate(step)) for step in (0, 400, 700, 900)]
    np.testing.assert_allclose(
      found, np.array([1, 0.5**0.5, 0.19509, 0.19509]) * 0.03, rtol=1e-4
    )

  @parameterized.parameters({}, dict(cosine_steps=9, cosine_lag_steps=1))
  def test_needs_its_length(self, **fields):
    with self.assertRaisesRegex(errors.UserError, 'needs cosine_steps'):
      schedules.decayed(cosine='7/16', **fields)


class HoldTest(parameterized.TestCase):
  @parameterized.product(
    ramp=('none', 'linear', 'sigmoid', 'dnll'), hold=(1, 7, 20)
  )
  def test_first_step_of_the_stretch(self, ramp, hold):
    held = jax.vmap(
      schedules.ramped(
        weight=3.0, ramp=ramp, ramp_steps=25 * hold, hold_steps=hold
      )
    )
    free = jax.vmap(
      schedules.ramped(weight=3.0, ramp=ramp, ramp_steps=25 * hold)
    )
    steps = np.arange(30 * hold)
    np.testing.assert_allclose(
      held(steps), free(steps // hold * hold), rtol=1e-6
    )

  def test_by_hand(self):
    """Dual Student: five epochs of sigmoid, by the epoch's number."""
    weight = schedules.ramped(
      weight=10.0, ramp='sigmoid', ramp_steps=5 * 267, hold_steps=267
    )
    for epoch in range(7):
      expected = 10 * np.exp(-5 * (1 - min(epoch / 5, 1)) ** 2)
      for step in (267 * epoch, 267 * epoch + 266):
        np.testing.assert_allclose(weight(step), expected, rtol=1e-5)

  @parameterized.parameters((1336, 267), (1334, 267), (13, 3), (17, 3))
  def test_ramp_is_whole_in_its_last_stretch(self, ramp, hold):
    weight = schedules.ramped(
      weight=1.0, ramp='sigmoid', ramp_steps=ramp, hold_steps=hold
    )
    last = round(ramp / hold) * hold
    self.assertEqual(weight(last), 1.0)
    self.assertLess(weight(last - 1), 1.0)

  def test_longer_than_the_ramp(self):
    weight = schedules.ramped(
      weight=1.0, ramp='sigmoid', ramp_steps=3, hold_steps=10
    )
    np.testing.assert_allclose(
      [weight(0), weight(9), weight(10)], [0.006738, 0.006738, 1], rtol=1e-4
    )

  @parameterized.parameters((-1, 0, 'ramp_steps=-1'), (5, -2, 'hold_steps=-2'))
  def test_negative(self, ramp, hold, message):
    with self.assertRaisesRegex(
      errors.UserError, f'schedules {message}: must be >= 0'
    ):
      schedules.ramped(
        weight=1.0, ramp='linear', ramp_steps=ramp, hold_steps=hold
      )


class LearningRateTest(absltest.TestCase):
  def test_a_drop_is_at_a_step(self):
    for wrong in 3.0, True, (3, 5.0), '3':
      with self.assertRaisesRegex(errors.UserError, 'a step or a tuple of'):
        schedules.decayed(drop_steps=wrong)

  def test_without_drop(self):
    rate = schedules.learning_rate(
      {'lr': 3e-4, 'drop_steps': 0, 'drop_factor': 0.2}
    )
    for step in 0, 1, 10**6:
      np.testing.assert_allclose(rate(step), 3e-4, rtol=1e-6)

  def test_missing_fields_are_defaults(self):
    """A rate of 1e-3 that stays, and a drop to a fifth."""
    rate = schedules.learning_rate({})
    np.testing.assert_allclose([rate(0), rate(10**6)], 1e-3, rtol=1e-6)
    rate = schedules.learning_rate({'drop_steps': 3})
    np.testing.assert_allclose([rate(2), rate(3)], [1e-3, 2e-4], rtol=1e-6)

  def test_other_fields_are_not_read(self):
    rate = schedules.learning_rate({'name': 'sgd', 'momentum': 0.5, 'lr': 0.1})
    np.testing.assert_allclose(rate(7), 0.1, rtol=1e-6)

  def test_drops_exactly_once(self):
    """Invariant 14: times 0.2 at the given step, then never again."""
    rate = jax.vmap(
      schedules.learning_rate(
        {'lr': 3e-4, 'drop_steps': 130_000, 'drop_factor': 0.2}
      )
    )
    values = np.asarray(rate(jnp.arange(200_000)))
    np.testing.assert_array_equal(np.flatnonzero(np.diff(values)), [129_999])
    np.testing.assert_allclose(values[[0, -1]], [3e-4, 6e-5], rtol=1e-6)
    np.testing.assert_allclose(rate(jnp.array([10**9])), [6e-5], rtol=1e-6)

  def test_a_cosine_that_lags(self):
    """Dual Student: the highest at epoch 1, (1 + cos((e - 1) pi / E)) / 2."""
    rate = schedules.learning_rate(
      {'lr': 0.1, 'cosine_steps': 100 * 320, 'cosine_lag_steps': 320}
    )
    for epoch in (0, 0.5, 1, 1.5, 2, 51, 99.5, 100):
      expected = 0.05 * (1 + np.cos((epoch - 1) * np.pi / 100))
      np.testing.assert_allclose(
        rate(jnp.int32(320 * epoch)), expected, rtol=1e-4, atol=1e-8
      )
    np.testing.assert_allclose(
      [rate(0), rate(320), rate(32_000)], [0.0999753, 0.1, 2.4672e-5], rtol=2e-3
    )
    self.assertEqual(rate(32_320), 0.0)
    self.assertEqual(rate(10**6), 0.0)
    plain = {'lr': 0.1, 'cosine_steps': 7}
    for step in range(9):
      self.assertEqual(
        schedules.learning_rate(plain)(step),
        schedules.learning_rate({**plain, 'cosine_lag_steps': 0})(step),
      )

  def test_drops_at_each_of_several_steps(self):
    rate = schedules.learning_rate(
      {'lr': 1e-3, 'drop_steps': (14_800, 18_500), 'drop_factor': 0.1}
    )
    for step, expected in (
      (0, 1e-3),
      (14_799, 1e-3),
      (14_800, 1e-4),
      (18_499, 1e-4),
      (18_500, 1e-5),
      (10**9, 1e-5),
    ):
      np.testing.assert_allclose(rate(jnp.int32(step)), expected, rtol=1e-5)

  def test_drops_that_meet_both_count(self):
    rate = schedules.learning_rate(
      {'lr': 1.0, 'drop_steps': (3, 3, 0, 5), 'drop_factor': 0.5}
    )
    np.testing.assert_allclose(
      [rate(step) for step in range(7)], [1, 1, 1, 0.25, 0.25, 0.125, 0.125]
    )

  def test_one_drop_of_a_tuple_is_the_same_program(self):
    config = {'lr': 3e-4, 'drop_steps': 7, 'drop_factor': 0.2}
    one = schedules.learning_rate(config)
    of_tuple = schedules.learning_rate({**config, 'drop_steps': (7,)})
    for step in range(12):
      self.assertEqual(one(jnp.int32(step)), of_tuple(jnp.int32(step)))
    self.assertEqual(
      str(jax.make_jaxpr(one)(3)), str(jax.make_jaxpr(of_tuple)(3))
    )


if __name__ == '__main__':
  absltest.main()
