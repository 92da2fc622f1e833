"""FreeMatch: FixMatch with thresholds that follow the confidence of the network
(Wang et al., "FreeMatch: Self-adaptive Thresholding for Semi-supervised
Learning", 2023, https://arxiv.org/abs/2205.07246).
"""

import jax
import jax.numpy as jnp

from nsl_jax import options
from nsl_jax.compose import weak_strong
from nsl_jax.compose.weak_strong import Predictions, Rule, Targets
from nsl_jax.methods import of_rule

GLOBAL = 'freematch_threshold'  # slot of the global threshold
_QUANTILE, _CLIP = 0.8, 0.95


@options.declare(fairness='>= 0')
def rule(
  *,
  use_quantile: bool = False,
  clip_thresh: bool = False,
  fairness: float = 0.001,
) -> Rule:
  """Self-adaptive thresholds and fairness; the defaults are those of USB for
  WRN-28-2 on CIFAR.

  Args:
    use_quantile: the global threshold is the moving average of the 0.8 quantile
      of the largest probabilities instead of their mean.
    clip_thresh: bound the global threshold by 0.95 (the paper's setting of
      SVHN).
    fairness: weight of the term `fairness`; w_f, `ent_loss_ratio` in USB.
  """

  def targets(seen: Predictions) -> Targets:
    probability, predicted = seen.probs.max(-1), seen.probs.argmax(-1)
    level = (
      jnp.quantile(probability, _QUANTILE)
      if use_quantile
      else probability.mean()
    )
    limit = weak_strong.moving_average(seen.slots[GLOBAL], level, seen.decay)
    if clip_thresh:
      limit = jnp.minimum(limit, _CLIP)
    limits = limit * seen.mean / seen.mean.max()
    weights = (probability >= limits[predicted]).astype(seen.probs.dtype)
    return Targets(seen.probs, weights, {GLOBAL: limit})

  def slots(classes: int, images: int) -> dict[str, jax.Array]:
    return {GLOBAL: jnp.full((), 1.0 / classes, jnp.float32)}

  return Rule(targets, slots, {'fairness': {'weight': fairness}})


build = of_rule.builder(rule)
