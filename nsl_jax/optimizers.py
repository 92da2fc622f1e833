"""Optimizers by name, from optax."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from nsl_jax import errors, options, parameters, schedules
from nsl_jax.options import Option
from nsl_jax.types import Schedule


@options.declare()
def _adam(rate: Schedule) -> optax.GradientTransformation:
  """Adam with betas (0.9, 0.999) and epsilon 1e-8."""
  return optax.adam(rate)


@options.declare(
  momentum='[0, 1)', weight_decay='>= 0', weight_decay_on=('all', 'kernels')
)
def _sgd(
  rate: Schedule,
  *,
  momentum: float = 0.9,
  nesterov: bool = True,
  weight_decay: float = 0.0,
  weight_decay_on: str = 'all',
) -> optax.GradientTransformation:
  """SGD: g' = g + `weight_decay` p, v = `momentum` v + g', p -= lr v, or
  p -= lr (g' + `momentum` v) with `nesterov`.

  Args:
    rate: the learning rate.
    momentum: decay of the momentum buffer.
    nesterov: whether to use Nesterov momentum.
    weight_decay: added to the gradient, times the parameter, before momentum.
    weight_decay_on: `all` parameters, or `kernels` only, not biases and batch
      normalization (FixMatch).
  """
  mask = parameters.kernel_mask if weight_decay_on == 'kernels' else None
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask),
    optax.sgd(rate, momentum=momentum, nesterov=nesterov),
  )


MAKERS: dict[str, Callable[..., optax.GradientTransformation]] = {
  'adam': _adam,
  'sgd': _sgd,
}


def options_of(name: str) -> dict[str, Option]:
  """The options of an optimizer, with those of its learning rate.

  Raises:
    errors.UserError: if no optimizer has this name.
  """
  if name not in MAKERS:
    raise errors.UserError(
      f'unknown optimizer {name!r}: {errors.did_you_mean(name, MAKERS)}'
    )
  return options.of(schedules.decayed) | options.of(MAKERS[name])


def build(config: Mapping[str, Any]) -> optax.GradientTransformation:
  """Builds the optimizer `config['name']` from the other fields.

  Raises:
    errors.UserError: if the name or a field is unknown, or a value is out of
      range.
  """
  fields = {k: v for k, v in config.items() if k != 'name'}
  declared = options_of(config['name'])
  options.check_values(declared, fields, 'config.optimizer.')
  make = MAKERS[config['name']]
  arguments = {k: v for k, v in fields.items() if k in options.of(make)}
  return make(schedules.learning_rate(fields), **arguments)
