"""Pi model: consistency under random augmentation and dropout (Laine & Aila,
"Temporal Ensembling for Semi-Supervised Learning", 2017).
"""

from typing import Any

import jax

from nsl_jax import losses
from nsl_jax.compose.combinators import require_second_pass
from nsl_jax.types import Array, Batch, Key, Term, TermInputs

DEFAULTS: dict[str, Any] = {
  'weight': 20.0,
  'ramp': 'sigmoid',
  'ramp_steps': 50_000,
}


def build() -> Term:
  """The term: squared error of the first pass to a constant second pass."""

  def term(inputs: TermInputs, batch: Batch, key: Key) -> Array:
    teacher = jax.nn.softmax(require_second_pass(inputs, 'pi')(key))
    return losses.squared_error(inputs.logits_u, teacher)

  return term
