"""Pseudo-Label: supervised plus confident predictions taken as labels."""

from collections.abc import Mapping
from typing import Any

from nsl_jax import term_configs
from nsl_jax.methods import supervised
from nsl_jax.types import Method, Tools

# Family O.
DEFAULTS: dict[str, Any] = {
    'weight': 1.0, 'ramp': 'sigmoid', 'ramp_steps': 50_000,
    'threshold': 0.95, 'terms': {},
}


def build(
    tools: Tools, *, terms: Mapping[str, Mapping[str, Any]],
    joint: bool = True, **options
) -> Method:
  """`options` are the fields of the term `pseudo_label` (family O)."""
  own = term_configs.with_own('pseudo_label', options, terms)
  return supervised.with_terms(tools, own, joint=joint)
