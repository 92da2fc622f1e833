"""When things happen in a run, what is kept of it and shown meanwhile."""

import math

import jax.numpy as jnp
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.training import loop


def _plan(**changes) -> loop.Plan:
  fields = dict(
    steps=100,
    log_every=10,
    eval_every=25,
    checkpoint_every=40,
    steps_per_call=8,
    keep=1,
  )
  return loop.Plan(**{**fields, **changes})


class PlanTest(parameterized.TestCase):
  @parameterized.parameters(
    (0, 8), (8, 1), (10, 8), (18, 1), (20, 1), (24, 1), (30, 8), (96, 1)
  )
  def test_ahead_stops_at_what_is_due(self, step, count):
    plan = _plan(eval_every=24)  # only 2 divides all intervals
    self.assertEqual(plan.steps_until_next_event(step), count)

  def test_at_most_two_programs(self):
    for plan, counts in (
      (_plan(), {5}),
      (_plan(eval_every=24), {8, 1}),
      (_plan(log_every=1), {1}),
      (_plan(steps=93), {5, 1}),
      (_plan(steps_per_call=25, eval_every=40, log_every=50), {10}),
    ):
      step, seen = 0, set()
      while step < plan.steps:
        seen.add(plan.steps_until_next_event(step))
        step += plan.steps_until_next_event(step)
      self.assertEqual(seen, counts)

  def test_every_mark_and_the_end_are_reached_exactly(self):
    plan, step, seen = _plan(steps=93), 0, set()
    while step < plan.steps:
      step += plan.steps_until_next_event(step)
      seen.add(step)
    self.assertLessEqual({10, 25, 40, 50, 75, 80, 90, 93}, seen)
    self.assertTrue(plan.is_due(plan.eval_every, 93))
    self.assertFalse(plan.is_due(plan.eval_every, 90))


class MeterTest(absltest.TestCase):
  def test_means_over_partly_filled_calls(self):
    meter = loop.Meter([{'loss': 4.0}])
    meter.add(1, 2, {'loss': jnp.array([1.0, 2.0, jnp.nan])})
    self.assertAlmostEqual(meter.flush_means()['loss'], 7 / 3, places=6)
    self.assertEqual(meter.flush_means(), {})

  def test_split_by_a_restart_gives_the_same_line(self):
    values = [{'loss': v} for v in (0.1, 0.7, 0.31)]
    first = loop.Meter([])
    first.add(0, 2, {'loss': jnp.array([0.1, 0.7])})
    first.fetch()
    second_pass = loop.Meter(list(first.values))
    second_pass.add(2, 1, {'loss': jnp.array([0.31])})
    whole = loop.Meter([])
    whole.add(0, 3, {'loss': jnp.array([v['loss'] for v in values])})
    self.assertEqual(second_pass.flush_means(), whole.flush_means())

  def test_names_the_first_bad_step(self):
    for bad in (math.nan, math.inf):
      meter = loop.Meter([])
      meter.add(40, 3, {'loss': jnp.array([1.0, bad, bad])})
      with self.assertRaisesRegex(errors.TrainingError, 'at step 42'):
        meter.fetch()


if __name__ == '__main__':
  absltest.main()
