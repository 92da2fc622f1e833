"""FixMatch: confident predictions for a weak view are labels of a strong view
(Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency
and Confidence", 2020, https://arxiv.org/abs/2001.07685).
"""

from nsl_jax import options
from nsl_jax.compose import weak_strong
from nsl_jax.compose.weak_strong import Predictions, Rule, Targets
from nsl_jax.methods import of_rule


@options.declare(threshold='[0, 1]', dist_align=weak_strong.ALIGNMENTS)
def rule(*, threshold: float = 0.95, dist_align: str = 'none') -> Rule:
  """A fixed threshold (equation 4); the defaults are those of CIFAR-10.

  Args:
    threshold: an image has a label if its largest probability is at least this;
      tau, `p_cutoff` in USB.
    dist_align: distribution alignment of the predictions before both: to the
      `uniform` distribution, or to the class shares of the `labels`, an
      extension that the paper names; see `weak_strong.align`.
  """

  def targets(seen: Predictions) -> Targets:
    probs, slots = weak_strong.align(dist_align, seen)
    confident = probs.max(-1) >= threshold
    return Targets(probs, confident.astype(probs.dtype), slots)

  return Rule(
    targets,
    lambda classes, images: weak_strong.alignment_slots(dist_align, classes),
  )


build = of_rule.builder(rule)
