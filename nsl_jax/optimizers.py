"""The optimiser that a config asks for, from optax."""

from collections.abc import Mapping
from typing import Any

import optax

from nsl_jax import errors, schedules


def build(config: Mapping[str, Any]) -> optax.GradientTransformation:
  """Adam with betas (0.9, 0.999) and epsilon 1e-8, at the config's rate.

  Args:
    config: `name` (`adam`) and the fields of `schedules.learning_rate`.

  Raises:
    errors.UserError: for another name.
  """
  makers = {'adam': optax.adam}
  name = config['name']
  if name not in makers:
    raise errors.UserError(
        f'unknown optimizer {name!r}: {errors.did_you_mean(name, makers)}'
    )
  return makers[name](schedules.learning_rate(config))
