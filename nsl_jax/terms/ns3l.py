"""NS3L: a loss on the classes that an image is *not* (Chen, Shah & Kyrillidis,
"Negative sampling in semi-supervised learning", 2020, section 4.3,
https://arxiv.org/abs/1911.05166).
"""

from typing import Any

import jax

from nsl_jax import losses, options
from nsl_jax.compose.combinators import require_second_pass
from nsl_jax.terms import negative_samplers
from nsl_jax.types import Array, Batch, Key, Term, TermInputs

# Values of CIFAR-10 in Table 1. The paper mentions no ramp, but the authors'
# module is written for a loop that ramps all unlabeled losses (F-N4).
DEFAULTS: dict[str, Any] = {
  'weight': 1.0,
  'ramp': 'sigmoid',
  'ramp_steps': 50_000,
}


@options.declare(sampler=negative_samplers.NAMES, passes='[1, 2]')
def build(
  *, sampler: str = 'threshold', passes: int = 2, **sampler_options: Any
) -> Term:
  """The term, with any sampler of negative labels.

  Args:
    sampler: name of a sampler in `negative_samplers`; `threshold` is the
      paper's.
    passes: 1 takes negatives and probabilities from the same logits, which is
      Algorithm 1 as printed; 2 takes the negatives from the first pass and the
      probabilities from another stochastic pass of the same images, as the
      authors' module does (F-N2).
    **sampler_options: options of the sampler (`threshold`, `count`, `exclude`).

  Raises:
    errors.UserError: for an unknown sampler or option, or other `passes`.
  """
  sample = negative_samplers.build(sampler, **sampler_options)

  def term(inputs: TermInputs, batch: Batch, key: Key) -> Array:
    draw, view = jax.random.split(key)
    target_probs = jax.lax.stop_gradient(inputs.target_probs)
    negative = sample(target_probs, batch.per_image_tables, draw)
    logits = inputs.logits_u
    if passes == 2:
      logits = require_second_pass(inputs, 'ns3l: set passes=1')(view)
    return losses.negative_sampling_loss(logits, negative)

  return term
