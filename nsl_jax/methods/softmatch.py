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

_SMALL = 1e-12
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
    spread = probability.var(ddof=min(1, rows - 1))  # a single row has none
    center, variance = (
      weak_strong.moving_average(seen.slots[slot], new, seen.decay)
      for slot, new in ((CENTER, probability.mean()), (VARIANCE, spread))
    )
    below = jnp.minimum(probability - center, 0.0)
    # A single row may have a variance of 0.
    weights = jnp.exp(
      -((n_sigma * below) ** 2) / jnp.maximum(2.0 * variance, _SMALL)
    )
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
