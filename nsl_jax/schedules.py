"""Schedules, step -> weight or learning rate, by optax where it has them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nsl_jax import errors, options
from nsl_jax.types import Array, Schedule


def sigmoid_ramp(steps: int) -> Schedule:
  """exp(-5 (1 - t)^2), where t rises from 0 to 1 over `steps` and stays there:
  0.0067 at the start, 0.2865 halfway. Ramp of every unlabeled loss in family O.
  """

  def ramp(step: Array | int) -> Array:
    missing = 1.0 - jnp.clip(jnp.asarray(step) / steps, 0.0, 1.0)
    return jnp.exp(-5.0 * missing**2)

  return ramp


def linear_ramp(steps: int) -> Schedule:
  """From 0 to 1 over `steps`, then 1 (MixMatch)."""
  schedule: Schedule = optax.linear_schedule(0.0, 1.0, steps)
  return schedule


def dnll_ramp(steps: int) -> Schedule:
  """37.5 exp(-5 (1 - t)^2) while t = step / `steps` is below 0.16 (to the
  nearest step), then 1.

  The paper gives no weight. The released combinations use
  75 exp(-5 (1 - e / 100)^2) up to epoch e = 15, then 2: twice this (F-D7).
  """
  rise = sigmoid_ramp(steps)
  last = round(0.16 * steps)  # an integer: rounding cannot move the jump

  def ramp(step: Array | int) -> Array:
    return jnp.where(jnp.asarray(step) < last, 37.5 * rise(step), 1.0)

  return ramp


_RAMPS = {
  'none': lambda steps: optax.constant_schedule(1.0),
  'linear': linear_ramp,
  'sigmoid': sigmoid_ramp,
  'dnll': dnll_ramp,
}


# The allowed values of the arguments of `ramped`, for parts that pass them on.
RAMPED: dict[str, options.Limit] = {
  'weight': '>= 0',
  'ramp': tuple(_RAMPS),
  'ramp_steps': '>= 0',
  'hold_steps': '>= 0',
}


@options.declare(**RAMPED)
def ramped(
  *,
  weight: float = 1.0,
  ramp: str = 'none',
  ramp_steps: int = 0,
  hold_steps: int = 0,
) -> Schedule:
  """`weight` times a ramp.

  Args:
    weight: factor of the ramp.
    ramp: name of the ramp.
    ramp_steps: length of the ramp; 0 for no ramp.
    hold_steps: length of an epoch if the weight changes once per epoch; 0 if it
      changes every step. The ramp takes `ramp_steps / hold_steps` epochs,
      rounded, since a shortened run rounds both numbers.

  >>> weight = ramped(weight=2.0, ramp='linear', ramp_steps=4)
  >>> [float(weight(step)) for step in (0, 1, 4, 9)]
  [0.0, 0.5, 2.0, 2.0]
  """
  unit = hold_steps or 1
  shape = _RAMPS[ramp if ramp_steps else 'none'](
    max(1, round(ramp_steps / unit))
  )
  return lambda step: weight * shape(step // unit)


_COSINES = ('half', '7/16')  # the part of half a period that is used


@options.declare(
  lr='>= 0',
  drop_factor='>= 0',
  cosine_steps='>= 0',
  cosine_lag_steps='>= 0',
  cosine=_COSINES,
)
def decayed(
  *,
  lr: float = 1e-3,
  drop_steps: int | tuple[int, ...] = 0,
  drop_factor: float = 0.2,
  cosine_steps: int = 0,
  cosine_lag_steps: int = 0,
  cosine: str = 'half',
) -> Schedule:
  """The learning rate of an optimizer.

  Args:
    lr: initial value.
    drop_steps: a step or a tuple of steps at which the rate is multiplied by
      `drop_factor`; 0 for none.
    drop_factor: factor at each of `drop_steps`.
    cosine_steps: length of the decay, t = 1 at its end; 0 for no cosine.
    cosine_lag_steps: delay of the cosine: the rate peaks at this step and ends
      above 0.
    cosine: `half` is lr / 2 (1 + cos(pi t)), which ends at 0; `7/16` is
      lr cos(7 pi t / 16) of FixMatch, which ends at 0.195 lr.

  Raises:
    errors.UserError: if a number is negative, or two contradict each other.

  >>> rate = decayed(lr=0.1, drop_steps=3, drop_factor=0.5)
  >>> [round(float(rate(step)), 3) for step in (0, 2, 3)]
  [0.1, 0.1, 0.05]
  """
  several = isinstance(drop_steps, (list, tuple))
  drops: Sequence[int] = drop_steps if several else (drop_steps,)  # type: ignore
  if not all(type(step) is int and step >= 0 for step in drops):
    raise errors.UserError(
      f'config.optimizer.drop_steps={drop_steps}: must be a step or a tuple of '
      'steps, >= 0'
    )
  if any(drops) and cosine_steps:
    raise errors.UserError(
      f'config.optimizer.drop_steps={drop_steps} and '
      f'cosine_steps={cosine_steps}: set one of them to 0'
    )
  if cosine_lag_steps and not cosine_steps:
    raise errors.UserError(
      f'config.optimizer.cosine_lag_steps={cosine_lag_steps} shifts a cosine, '
      'and cosine_steps is 0: set both or neither'
    )
  if cosine == '7/16' and (cosine_lag_steps or not cosine_steps):
    raise errors.UserError(
      f'config.optimizer.cosine={cosine} needs cosine_steps, and no '
      'cosine_lag_steps: set them, or cosine=half'
    )
  if cosine_steps and cosine_lag_steps:
    return _late_cosine(lr, cosine_steps, cosine_lag_steps)
  schedule: Schedule
  if cosine == '7/16':
    return _seven_sixteenths(lr, cosine_steps)
  if cosine_steps:
    schedule = optax.cosine_decay_schedule(lr, cosine_steps)
    return schedule
  factors: dict[int, float] = {}
  for step in filter(None, drops):  # two may coincide in a shortened run
    factors[step] = factors.get(step, 1.0) * drop_factor
  schedule = optax.piecewise_constant_schedule(lr, factors)
  return schedule


def learning_rate(config: Mapping[str, Any]) -> Schedule:
  """`decayed`, from its options among the fields of `config.optimizer`."""
  declared = options.of(decayed)
  schedule: Schedule = decayed(
    **{k: v for k, v in config.items() if k in declared}
  )
  return schedule


def _late_cosine(lr: float, steps: int, lag: int) -> Schedule:
  """lr / 2 (1 + cos(pi (step - lag) / steps)). In the released code of Dual
  Student and of DNLL's combinations the lag is one epoch: they subtract 1 from
  an epoch that is counted from 0.
  """

  def rate(step: Array | int) -> Array:
    after = jnp.minimum(jnp.asarray(step) - lag, steps)
    return lr * 0.5 * (1.0 + jnp.cos(jnp.pi * after / steps))

  return rate


def _seven_sixteenths(lr: float, steps: int) -> Schedule:
  """lr cos(7 pi t / 16) (Sohn et al., "FixMatch", 2020, section 2.3)."""

  def rate(step: Array | int) -> Array:
    share = jnp.minimum(jnp.asarray(step) / steps, 1.0)
    return lr * jnp.cos(7.0 * jnp.pi / 16.0 * share)

  return rate


def at_step(opt: optax.OptState, step: Array | int) -> optax.OptState:
  """The optimizer state with its schedules set to a step of the loop.

  Schedules count updates, of which L2I makes two per step. Adam's bias
  correction keeps counting updates.
  """
  is_schedule: Callable[[Any], bool] = lambda part: isinstance(
    part, optax.ScaleByScheduleState
  )
  set_count: Callable[[Any], Any] = lambda part: (
    part._replace(count=step) if is_schedule(part) else part
  )
  return jax.tree.map(set_count, opt, is_leaf=is_schedule)
