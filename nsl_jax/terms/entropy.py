"""Entropy minimization on the logits of the first pass (Grandvalet & Bengio
2005).

The weight 0.06 is MixMatch's default. The released run files of Oliver et al.
use 0.1 and the logits of the adversarial pass instead (F-N7).
"""

from typing import Any

from nsl_jax import losses
from nsl_jax.types import Term

DEFAULTS: dict[str, Any] = {'weight': 0.06, 'ramp': 'none', 'ramp_steps': 0}


def build() -> Term:
  """The term; it has no options."""
  return lambda inputs, batch, key: losses.entropy(inputs.logits_u)
