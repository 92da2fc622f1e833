"""DNLL's negative labels on one network: its combination with Mean Teacher (Xu
et al., "Semi-supervised learning with pseudo-negative labels for image
classification", 2023, section 4.4, https://arxiv.org/abs/2301.03976).
"""

from typing import Any

import jax

from nsl_jax import losses, options
from nsl_jax.compose.combinators import (
  require_second_pass,
  second_head,
  teacher_params,
)
from nsl_jax.terms import error_perception
from nsl_jax.types import Array, Batch, Key, Stats, Term, TermInputs

DEFAULTS: dict[str, Any] = {
  'weight': 2.0,
  'ramp': 'dnll',
  'ramp_steps': 32_000,
  'hold_steps': 320,
}


@options.declare(count='>= 1', source=('student', 'teacher'))
def build(*, count: int = 2, source: str = 'student') -> Term:
  """The term: a class is predicted on another view of an image, and `count`
  other classes are negative labels for the second head of the network, or for
  its only head.

  Args:
    count: m, negative labels per image; 2 in the released code.
    source: network that predicts on the other view: the `student` as in the
      released code, or the `teacher` (F-D11). The student's pass updates the
      statistics if the method has `TermInputs.second_pass_with_stats`.
  """

  def term(
    inputs: TermInputs, batch: Batch, key: Key
  ) -> Array | tuple[Array, Stats]:
    view, draw = jax.random.split(key)
    moves = source == 'student' and inputs.second_pass_with_stats is not None
    stats = inputs.stats
    if moves:
      assert inputs.second_pass_with_stats is not None  # for mypy
      elsewhere, stats = inputs.second_pass_with_stats(stats, view)
    else:
      others = teacher_params(inputs, 'dnll') if source == 'teacher' else None
      elsewhere = require_second_pass(inputs, 'dnll')(view, others)
    logits = second_head(inputs)
    negative = error_perception.sample_negatives(
      draw, None, elsewhere.argmax(-1), logits.shape[-1], count
    )
    rows = losses.complementary_label_loss(logits, negative)
    return (rows, stats) if moves else rows

  return term
