"""Step -> weight or learning rate, from optax's schedules where it has them."""

from collections.abc import Mapping
from typing import Any

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


_RAMPS = {
    'none': lambda steps: optax.constant_schedule(1.0),
    'linear': linear_ramp,
    'sigmoid': sigmoid_ramp,
}


def weight(value: float, ramp: str, ramp_steps: int) -> Schedule:
  """`value` times a ramp of the name `none`, `linear` or `sigmoid`.

  A ramp over 0 steps is none.

  Raises:
    errors.UserError: for another name, or a negative number.
  """
  if ramp not in _RAMPS:
    raise errors.UserError(
        f'unknown ramp {ramp!r}: {errors.did_you_mean(ramp, _RAMPS)}'
    )
  if ramp_steps < 0:
    raise errors.UserError(f'ramp_steps={ramp_steps}: must be >= 0')
  if not value >= 0.0:
    raise errors.UserError(f'weight={value}: must be >= 0')
  shape = _RAMPS[ramp if ramp_steps else 'none'](ramp_steps)
  return lambda step: value * shape(step)


def learning_rate(config: Mapping[str, Any]) -> Schedule:
  """`lr`, multiplied by `drop_factor` once at `drop_steps` (0: never)."""
  if not config['lr'] >= 0.0:
    raise errors.UserError(f'optimizer lr={config["lr"]}: must be >= 0')
  if not config['drop_steps']:
    return optax.constant_schedule(config['lr'])
  return optax.piecewise_constant_schedule(
      config['lr'], {config['drop_steps']: config['drop_factor']}
  )
