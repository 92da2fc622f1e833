"""FlexMatch: FixMatch with a lower threshold for classes that are hard to learn
(Zhang et al., "FlexMatch: Boosting Semi-Supervised Learning with Curriculum
Pseudo Labeling", 2021, https://arxiv.org/abs/2110.08263).
"""

import jax
import jax.numpy as jnp

from nsl_jax import errors, options
from nsl_jax.compose.weak_strong import Predictions, Rule, Targets
from nsl_jax.methods import of_rule
from nsl_jax.types import Array

PREDICTED = 'flexmatch_predicted'  # slot: last confident class of every image


def thresholds(
  predicted: Array,
  classes: int,
  num_unlabeled: Array | int,
  *,
  threshold: float,
  thresh_warmup: bool = True,
) -> Array:
  """The threshold of every class, with the paper's convex mapping.

  Args:
    predicted: i32[N], the last class of every image that was predicted with a
      probability of at least `threshold`; -1 for none.
    classes: K.
    num_unlabeled: number of unlabeled images in the data.
    threshold: tau, the highest threshold.
    thresh_warmup: see `rule`.

  Returns:
    f32[K], tau beta / (2 - beta), where beta is the number of images of a class
    divided by the largest such number.

  >>> print(thresholds(jnp.array([0, 0, 1, -1]), 2, 4, threshold=0.9))
  [0.9 0.3]
  """
  count = jax.nn.one_hot(predicted, classes).sum(0)  # -1 is a row of zeros
  most = count.max()
  if thresh_warmup:
    most = jnp.maximum(most, num_unlabeled - count.sum())
  beta = count / jnp.maximum(most, 1.0)
  return threshold * beta / (2.0 - beta)


def _without_repeats(index: Array, confident: Array) -> Array:
  """bool[N]: `confident`, of an image drawn twice only at its last place: the
  order in which a table is written must not matter.
  """
  place = jnp.arange(index.shape[0])
  later = place[None] > place[:, None]
  same = (index[None] == index[:, None]) & confident[None]
  return confident & ~(same & later).any(-1)


@options.declare(threshold='[0, 1]')
def rule(*, threshold: float = 0.95, thresh_warmup: bool = True) -> Rule:
  """A threshold per class, from a table of the last confident class of every
  unlabeled image; the defaults are those of CIFAR-10.

  Args:
    threshold: the highest threshold, of the class with the most confident
      images, and the probability at which an image counts as confident; tau,
      `p_cutoff` in USB.
    thresh_warmup: while images without a confident class outnumber every class,
      divide by their number: thresholds rise from 0.
  """

  def targets(seen: Predictions) -> Targets:
    if seen.num_unlabeled is None:
      raise errors.UserError(
        'flexmatch needs the number of unlabeled images: set Data.num_unlabeled'
      )
    table = seen.slots[PREDICTED]
    limits = thresholds(
      table,
      seen.probs.shape[-1],
      seen.num_unlabeled,
      threshold=threshold,
      thresh_warmup=thresh_warmup,
    )
    probability, predicted = seen.probs.max(-1), seen.probs.argmax(-1)
    weights = (probability >= limits[predicted]).astype(seen.probs.dtype)
    write = _without_repeats(seen.rows, probability >= threshold)
    rows = jnp.where(write, seen.rows, table.shape[0])  # outside: not written
    table = table.at[rows].set(predicted.astype(table.dtype), mode='drop')
    return Targets(seen.probs, weights, {PREDICTED: table})

  def slots(classes: int, images: int) -> dict[str, jax.Array]:
    if not images:
      raise errors.UserError(
        'flexmatch needs the number of images: set Components.num_images'
      )
    return {PREDICTED: jnp.full(images, -1, jnp.int32)}

  return Rule(targets, slots)


build = of_rule.builder(rule)
