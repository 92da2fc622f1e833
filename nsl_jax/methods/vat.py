"""VAT: supervised plus predictions that survive the worst small change."""

from collections.abc import Mapping
from typing import Any

from nsl_jax import term_configs
from nsl_jax.methods import supervised
from nsl_jax.types import Method, Tools

# CIFAR-10's values in Table 1 of NS3L; the mode by F-N6.
DEFAULTS: dict[str, Any] = {
    'weight': 0.3, 'ramp': 'sigmoid', 'ramp_steps': 50_000, 'eps': 6.0,
    'mode': 'exact', 'terms': {},
}


def build(
    tools: Tools, *, terms: Mapping[str, Mapping[str, Any]],
    joint: bool = True, **options
) -> Method:
  """`options` are the fields of the term `vat`."""
  own = term_configs.with_own('vat', options, terms)
  return supervised.with_terms(tools, own, joint=joint)
