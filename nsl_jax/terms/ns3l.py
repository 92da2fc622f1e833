"""NS3L: a loss on the classes that an image is *not* (Chen, Shah & Kyrillidis,
"Negative sampling in semi-supervised learning", 2020, section 4.3,
https://arxiv.org/abs/1911.05166).
"""

from typing import Any

import jax

from nsl_jax import errors, losses, options
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
# On MixMatch: from the mixed labels, without a further pass or a ramp (F-N5).
DEFAULTS_ON: dict[str, dict[str, Any]] = {
  'mixmatch': {'weight': 5.0, 'ramp': 'none', 'ramp_steps': 0, 'passes': 1}
}


@options.declare(
  sampler=negative_samplers.NAMES, passes='[1, 2]', where=('all', 'unconfident')
)
def build(
  *,
  sampler: str = 'threshold',
  passes: int = 2,
  where: str = 'all',
  **sampler_options: Any,
) -> Term:
  """The term, with any sampler of negative labels.

  Args:
    sampler: name of a sampler in `negative_samplers`; `threshold` is the
      paper's.
    passes: 1 takes negatives and probabilities from the same logits, which is
      Algorithm 1 as printed; 2 takes the negatives from the first pass and the
      probabilities from another stochastic pass of the same images, as the
      authors' module does (F-N2).
    where: the images with a loss: `all`, or those that are `unconfident`, which
      get no label from a method with a confidence threshold; the loss of an
      image is then multiplied by 1 minus the weight of its label.
    **sampler_options: options of the sampler (`threshold`, `count`, `exclude`).

  Raises:
    errors.UserError: for an unknown sampler or option, or other `passes`; when
      called, for `unconfident` on a method without weights of its labels.
  """
  sample = negative_samplers.build(sampler, **sampler_options)

  def term(inputs: TermInputs, batch: Batch, key: Key) -> Array:
    if where == 'unconfident' and inputs.weights is None:
      raise errors.UserError(
        'ns3l where=unconfident needs a method with a confidence threshold: '
        'fixmatch, flexmatch, freematch or softmatch; otherwise set where=all'
      )
    draw, view = jax.random.split(key)
    target_probs = jax.lax.stop_gradient(inputs.target_probs)
    negative = sample(target_probs, batch.per_image_tables, draw)
    logits = inputs.logits_u
    if passes == 2:
      remedy = ': set terms.ns3l.passes=1'
      logits = require_second_pass(inputs, 'ns3l', remedy)(view)
    rows = losses.negative_sampling_loss(logits, negative)
    if where == 'all':
      return rows
    assert inputs.weights is not None  # for mypy
    return (1.0 - inputs.weights) * rows

  return term
