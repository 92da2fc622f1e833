"""Step -> weight or learning rate, from optax's schedules where it has them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nsl_jax import errors
from nsl_jax.types import Array, Schedule


def sigmoid_ramp(steps: int) -> Schedule:
  """exp(-5 (1 - t)^2), t going from 0 to 1 over `steps`: 0.0067 at the start,
  0.2865 half-way, 1 from then on (family O's ramp for every unlabelled loss).
  """

  def ramp(step: Array | int) -> Array:
    missing = 1.0 - jnp.clip(jnp.asarray(step) / steps, 0.0, 1.0)
    return jnp.exp(-5.0 * missing**2)

  return ramp


def linear_ramp(steps: int) -> Schedule:
  """From 0 to 1 over `steps`, then 1 (MixMatch)."""
  return optax.linear_schedule(0.0, 1.0, steps)


def dnll_ramp(steps: int) -> Schedule:
  """37.5 exp(-5 (1 - t)^2) while t, going from 0 to 1 over `steps`, is below
  0.16 (to the nearest step), then 1: DNLL's released schedule for a weight of
  2, which is 75 exp(-5 (1 - e / 100)^2) up to epoch 15 and 2 after it (F-D7).
  """
  rise = sigmoid_ramp(steps)
  last = round(0.16 * steps)  # whole, so that no rounding moves the jump

  def ramp(step: Array | int) -> Array:
    return jnp.where(jnp.asarray(step) < last, 37.5 * rise(step), 1.0)

  return ramp


_RAMPS = {
  'none': lambda steps: optax.constant_schedule(1.0),
  'linear': linear_ramp,
  'sigmoid': sigmoid_ramp,
  'dnll': dnll_ramp,
}


def weight(
  value: float, ramp: str, ramp_steps: int, hold_steps: int = 0
) -> Schedule:
  """`value` times a ramp of the name `none`, `linear`, `sigmoid` or `dnll`.

  Args:
    value: what the ramp multiplies.
    ramp: its name.
    ramp_steps: its length; 0 for no ramp.
    hold_steps: steps of a stretch on which the weight stays what it is at its
      first step, where a paper ramps by the number of the epoch; 0 for none.
      Time is then counted in whole stretches, of which the ramp takes the
      nearest number to `ramp_steps / hold_steps`: a shortened run rounds both,
      and must not end the ramp a stretch too early or late.

  Raises:
    errors.UserError: for another name, or a negative number.
  """
  if ramp not in _RAMPS:
    raise errors.UserError(
      f'unknown ramp {ramp!r}: {errors.did_you_mean(ramp, _RAMPS)}'
    )
  for name, steps in (('ramp_steps', ramp_steps), ('hold_steps', hold_steps)):
    if steps < 0:
      raise errors.UserError(f'{name}={steps}: must be >= 0')
  if not value >= 0.0:
    raise errors.UserError(f'weight={value}: must be >= 0')
  unit = hold_steps or 1
  shape = _RAMPS[ramp if ramp_steps else 'none'](
    max(1, round(ramp_steps / unit))
  )
  return lambda step: value * shape(step // unit)


RATE_FIELDS = (
  'lr',
  'drop_steps',
  'drop_factor',
  'cosine_steps',
  'cosine_lag_steps',
)


def learning_rate(config: Mapping[str, Any]) -> Schedule:
  """The rate of an optimiser at its every step.

  Args:
    config: `lr`, where it starts, and at most one of: `cosine_steps`, over
      which it falls to 0 as lr / 2 (1 + cos(pi t)); `drop_steps`, a step or a
      tuple of steps at each of which it is multiplied by `drop_factor`. Either
      may be 0 for never. `cosine_lag_steps`, if given, shifts the cosine to the
      right: the rate is the highest at that step, and above 0 at the end.

  Raises:
    errors.UserError: for a field that is missing or negative, or for two that
      contradict each other.
  """
  drop, cosine = (config.get(f, 0) for f in ('drop_steps', 'cosine_steps'))
  for name in ('lr', 'drop_factor') if drop else ('lr',):
    if name not in config:
      raise errors.UserError(f'config.optimizer lacks {name}')
  for name in RATE_FIELDS:
    if name in config and not all(one >= 0.0 for one in _each(config[name])):
      raise errors.UserError(
        f'config.optimizer.{name}={config[name]}: must be >= 0'
      )
  if drop and cosine:
    raise errors.UserError(
      f'config.optimizer.drop_steps={drop} and cosine_steps={cosine}: set '
      'one of them to 0'
    )
  lag = config.get('cosine_lag_steps', 0)
  if lag and not cosine:
    raise errors.UserError(
      f'config.optimizer.cosine_lag_steps={lag} shifts a cosine, and '
      'cosine_steps is 0: set both or neither'
    )
  if cosine and lag:
    return _late_cosine(config['lr'], cosine, lag)
  if cosine:
    return optax.cosine_decay_schedule(config['lr'], cosine)
  factors: dict[int, float] = {}
  for step in filter(None, _each(drop)):  # two may meet in a shortened run
    factors[step] = factors.get(step, 1.0) * config['drop_factor']
  return optax.piecewise_constant_schedule(config['lr'], factors)


def _late_cosine(lr: float, steps: int, lag: int) -> Schedule:
  """lr / 2 (1 + cos(pi (step - lag) / steps)). Dual Student's code, and DNLL's
  combinations with it, lag by an epoch: they take 1 off one that starts at 0.
  """

  def rate(step: Array | int) -> Array:
    after = jnp.minimum(jnp.asarray(step) - lag, steps)
    return lr * 0.5 * (1.0 + jnp.cos(jnp.pi * after / steps))

  return rate


def _each(value: Any) -> tuple[Any, ...]:
  return value if isinstance(value, tuple) else (value,)


def at_step(opt: optax.OptState, step: Array | int) -> optax.OptState:
  """An optimiser's state whose schedules are at that step of the loop.

  They count updates, which are more than steps where a method makes several
  (L2I). What else is counted, Adam's bias correction, goes on.
  """
  is_schedule = lambda part: isinstance(part, optax.ScaleByScheduleState)
  set_count = lambda part: (
    part._replace(count=step) if is_schedule(part) else part
  )
  return jax.tree.map(set_count, opt, is_leaf=is_schedule)
