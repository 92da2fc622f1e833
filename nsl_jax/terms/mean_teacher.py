"""Mean Teacher: consistency with a network of averaged weights (Tarvainen &
Valpola, "Mean teachers are better role models", 2017).
"""

from typing import Any

import jax

from nsl_jax import losses
from nsl_jax.compose.combinators import (
  require_second_pass,
  second_head,
  teacher_params,
)
from nsl_jax.types import Array, Batch, Key, Term, TermInputs

DEFAULTS: dict[str, Any] = {
  'weight': 8.0,
  'ramp': 'sigmoid',
  'ramp_steps': 50_000,
}


def build() -> Term:
  """The term, for a method with a teacher in its slot.

  The teacher runs in train mode, with the statistics of its batch. In a network
  with two heads, the student's second head follows the teacher's first.
  """

  def term(inputs: TermInputs, batch: Batch, key: Key) -> Array:
    params = teacher_params(inputs, 'mean_teacher')
    forward = require_second_pass(inputs, 'mean_teacher')
    teacher = jax.nn.softmax(forward(key, params))
    return losses.squared_error(second_head(inputs), teacher)

  return term
