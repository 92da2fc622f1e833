"""SoftMatch: FixMatch with weights that fall smoothly below the mean confidence
(Chen et al., "SoftMatch: Addressing the Quantity-Quality Trade-off in
Semi-supervised Learning", 2023, https://arxiv.org/abs/2301.10921).
"""

import jax
import jax.numpy as jnp

from nsl_jax import options
from nsl_jax.compose import weak_strong
from nsl_jax.compose.weak_strong import Predictions, Rule, Targets
from nsl_jax.methods import of_rule

CENTER, VARIANCE = 'softmatch_mean', 'softmatch_variance'  # slots


@options.declare(n_sigma='> 0', dist_align=weak_strong.ALIGNMENTS)
def rule(*, n_sigma: float = 2.0, dist_align: str = 'uniform') -> Rule:
  """A truncated Gaussian of the largest probability after uniform alignment,
  which only the weights see; the defaults are those of CIFAR-10.

  Args:
    n_sigma: the Gaussian has its standard deviation divided by this: 1 in the
      equation, 2 in the released code.
    dist_align: the distribution that predictions are aligned to, see
      `weak_strong.align`.
  """

  def targets(seen: Predictions) -> Targets:
    probs, slots = weak_strong.align(dist_align, seen)
    probability = probs.max(-1)
    rows = probability.shape[0]
    # The unbiased variance, of which a single row has none.
    spread = probability.var() * rows / max(rows - 1, 1)
    center, variance = (
      weak_strong.moving_average(seen.slots[slot], new, seen.decay)
      for slot, new in ((CENTER, probability.mean()), (VARIANCE, spread))
    )
    below = jnp.minimum(probability - center, 0.0)
    weights = jnp.exp(-(below**2) / (2.0 * variance / n_sigma**2))
    slots = {**slots, CENTER: center, VARIANCE: variance}
    return Targets(seen.probs, weights, slots)

  def slots(classes: int, images: int) -> dict[str, jax.Array]:
    return {
      CENTER: jnp.full((), 1.0 / classes, jnp.float32),
      VARIANCE: jnp.ones(()),
      **weak_strong.alignment_slots(dist_align, classes),
    }

  return Rule(targets, slots)


build = of_rule.builder(rule)
