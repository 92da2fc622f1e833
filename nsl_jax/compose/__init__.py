"""Building blocks of methods: combinators of losses and updates, two networks,
mixing, the bilevel step, and tasks. No file here imports a method or a config.
"""

from nsl_jax.compose.bilevel import label_gradient
from nsl_jax.compose.combinators import (
  SingleNetworkMethod,
  add_terms,
  decoupled_weight_decay,
  ema_update,
  gradient_step,
  require_second_pass,
  sequence,
  to_method,
)

__all__ = [
  'SingleNetworkMethod',
  'add_terms',
  'decoupled_weight_decay',
  'ema_update',
  'gradient_step',
  'label_gradient',
  'require_second_pass',
  'sequence',
  'to_method',
]
