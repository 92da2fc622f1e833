"""Entropy minimization on the logits of the clean pass (Grandvalet & Bengio
2005; the weight beside VAT is that of Miyato et al., F-N7).
"""

from typing import Any

from nsl_jax import losses
from nsl_jax.types import Term

DEFAULTS: dict[str, Any] = {'weight': 0.06, 'ramp': 'none', 'ramp_steps': 0}


def build() -> Term:
  """The term, which has no options."""
  return lambda aux, batch, key: losses.entropy(aux.logits_u)
