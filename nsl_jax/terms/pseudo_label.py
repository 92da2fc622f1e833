"""Pseudo-Label: confident predictions as labels (Lee 2013), in the form of
Oliver et al., "Realistic Evaluation of Deep Semi-Supervised Learning
Algorithms", 2018.
"""

from typing import Any

from nsl_jax import losses, options
from nsl_jax.types import Array, Batch, Key, Term, TermInputs

DEFAULTS: dict[str, Any] = {
  'weight': 1.0,
  'ramp': 'sigmoid',
  'ramp_steps': 50_000,
}


@options.declare(threshold='[0, 1]')
def build(*, threshold: float = 0.95) -> Term:
  """The term, on the logits of the first pass.

  Args:
    threshold: a row whose largest probability is not above it has no
      pseudo-label.
  """

  def term(inputs: TermInputs, batch: Batch, key: Key) -> Array:
    return losses.pseudo_label(
      inputs.logits_u, inputs.target_probs, threshold=threshold
    )

  return term
