"""Pi model: supervised plus agreement of two stochastic passes."""

from collections.abc import Mapping
from typing import Any

from nsl_jax import term_configs
from nsl_jax.methods import supervised
from nsl_jax.types import Method, Tools

# Family O.
DEFAULTS: dict[str, Any] = {
    'weight': 20.0, 'ramp': 'sigmoid', 'ramp_steps': 50_000, 'terms': {},
}


def build(
    tools: Tools, *, terms: Mapping[str, Mapping[str, Any]],
    joint: bool = True, **options
) -> Method:
  """`options` are the fields of the term `pi`."""
  own = term_configs.with_own('pi', options, terms)
  return supervised.with_terms(tools, own, joint=joint)
