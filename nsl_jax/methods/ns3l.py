"""NS3L: supervised plus negative sampling on the unlabelled images."""

from collections.abc import Mapping
from typing import Any

from nsl_jax import term_configs
from nsl_jax.methods import supervised
from nsl_jax.types import Method, Tools

# CIFAR-10's values in Table 1; `passes` by F-N2, the ramp by F-N4.
DEFAULTS: dict[str, Any] = {
    'weight': 1.0, 'ramp': 'sigmoid', 'ramp_steps': 50_000,
    'sampler': 'threshold', 'threshold': 0.04, 'passes': 2, 'terms': {},
}


def build(
    tools: Tools, *, terms: Mapping[str, Mapping[str, Any]],
    joint: bool = True, **options
) -> Method:
  """`options` are the fields of the term `ns3l` (NS3L section 4.3)."""
  own = term_configs.with_own('ns3l', options, terms)
  return supervised.with_terms(tools, own, joint=joint)
