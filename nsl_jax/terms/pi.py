"""Pi model: predictions agree under two augmentations and dropouts (Laine &
Aila 2017).
"""

from typing import Any

import jax

from nsl_jax import losses
from nsl_jax.compose.combinators import require_second_pass
from nsl_jax.types import Array, Aux, Batch, Key, Term

DEFAULTS: dict[str, Any] = {
  'weight': 20.0,
  'ramp': 'sigmoid',
  'ramp_steps': 50_000,
}


def build() -> Term:
  """The term: the clean pass follows a second one, which is held constant."""

  def term(aux: Aux, batch: Batch, key: Key) -> Array:
    teacher = jax.nn.softmax(require_second_pass(aux, 'pi')(key))
    return losses.squared_error(aux.logits_u, teacher)

  return term
