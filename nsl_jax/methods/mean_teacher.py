"""Mean Teacher: supervised plus agreement with an average of past weights."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from nsl_jax import compose, errors, term_configs, terms as terms_lib
from nsl_jax.methods import supervised
from nsl_jax.types import Array, Method, Schedule, Tools

# Family O.
DEFAULTS: dict[str, Any] = {
    'weight': 8.0, 'ramp': 'sigmoid', 'ramp_steps': 50_000, 'decay': 0.95,
    'terms': {},
}


def warm_up(decay: float) -> Schedule:
  """min(1 - 1 / (step + 1), decay): the first update copies (L2I's rule)."""
  def at(step: Array | int) -> Array:
    return jnp.minimum(1.0 - 1.0 / (step + 1.0), decay)

  return at


def build(
    tools: Tools, *, terms: Mapping[str, Mapping[str, Any]], decay: float,
    warm_up_decay: bool = False, joint: bool = True, tie: float = 0.0,
    **options
) -> Method:
  """Builds Mean Teacher.

  Args:
    tools: what it is built from.
    terms: further terms.
    decay: of the teacher's weights.
    warm_up_decay: let the decay grow from 0, see `warm_up`.
    joint: see `compose.passes`.
    tie: weight of the squared difference of the network's two heads.
    **options: the fields of the term `mean_teacher`.

  Raises:
    errors.UserError: if the decay is not in [0, 1).
  """
  if not 0.0 <= decay < 1.0:
    raise errors.UserError(f'mean_teacher decay={decay}: must be in [0, 1)')
  own = term_configs.with_own('mean_teacher', options, terms)
  rule = warm_up(decay) if warm_up_decay else decay
  move = compose.follow(terms_lib.TEACHER, rule)
  return supervised.with_terms(
      tools, own, move, joint=joint, slots=(terms_lib.TEACHER,), tie=tie
  )
