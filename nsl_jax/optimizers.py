"""The optimiser that a config asks for, from optax."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from nsl_jax import errors, schedules
from nsl_jax.types import Schedule


def _sgd(
  rate: Schedule, *, momentum: float, nesterov: bool, weight_decay: float
) -> optax.GradientTransformation:
  if not 0.0 <= momentum < 1.0:
    raise errors.UserError(
      f'config.optimizer.momentum={momentum}: must be in [0, 1)'
    )
  if not weight_decay >= 0.0:
    raise errors.UserError(
      f'config.optimizer.weight_decay={weight_decay}: must be >= 0'
    )
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.sgd(rate, momentum=momentum, nesterov=nesterov),
  )


# Name -> how it is made from a rate and its own fields, and those fields.
_MAKERS: dict[
  str, tuple[Callable[..., optax.GradientTransformation], tuple[str, ...]]
] = {
  'adam': (optax.adam, ()),
  'sgd': (_sgd, ('momentum', 'nesterov', 'weight_decay')),
}


def build(config: Mapping[str, Any]) -> optax.GradientTransformation:
  """The optimiser of a config.

  `adam` has betas (0.9, 0.999) and epsilon 1e-8. `sgd` is g' = g +
  `weight_decay` p on every parameter, v = `momentum` v + g', p -= lr v, or
  p -= lr (g' + `momentum` v) with `nesterov`.

  Args:
    config: `name`, the optimiser's own fields and those of
      `schedules.learning_rate`.

  Raises:
    errors.UserError: for another name, a field that is unknown or missing, or
      a number out of range.
  """
  name = config['name']
  if name not in _MAKERS:
    raise errors.UserError(
      f'unknown optimizer {name!r}: {errors.did_you_mean(name, _MAKERS)}'
    )
  make, own = _MAKERS[name]
  known = ('name', *schedules.RATE_FIELDS, *own)
  for field in config:
    if field not in known:
      raise errors.UserError(
        f'config.optimizer.{field} is no field of {name}: '
        f'{errors.did_you_mean(field, known)}'
      )
  missing = [field for field in own if field not in config]
  if missing:
    raise errors.UserError(
      f'config.optimizer lacks {", ".join(missing)}, which {name} needs: '
      f'set it by common.{name} in the config file'
    )
  return make(
    schedules.learning_rate(config), **{field: config[field] for field in own}
  )
