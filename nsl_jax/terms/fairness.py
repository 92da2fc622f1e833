"""Self-adaptive fairness of FreeMatch, for any method that averages its
predictions (Wang et al., "FreeMatch: Self-adaptive Thresholding for
Semi-supervised Learning", 2023, https://arxiv.org/abs/2205.07246).
"""

from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import errors
from nsl_jax.types import Array, Batch, Key, Term, TermInputs

DEFAULTS: dict[str, Any] = {'weight': 0.001, 'ramp': 'none', 'ramp_steps': 0}
_SMALL = 1e-12
_NORMAL = 2.0**-126  # least f32 that is not subnormal


def _share(values: Array) -> Array:
  return values / jnp.maximum(values.sum(), _SMALL)


def _divided(values: Array, by: Array) -> Array:
  """The quotient, 0 where the divisor is 0 or subnormal.

  The average of a class that stops being predicted gets subnormal after about
  90,000 steps. A CPU takes that for 0; elsewhere the quotient may be infinite.
  """
  normal = by >= _NORMAL
  return jnp.where(normal, values / jnp.where(normal, by, 1.0), 0.0)


def fairness_loss(
  logits: Array, weights: Array, mean: Array, histogram: Array
) -> Array:
  """Minus the cross-entropy between the moving average of the predictions and
  the mean prediction of the batch, each divided by the share of its predicted
  classes and normalized.

  Args:
    logits: f32[N, K] of the strong views, with gradient.
    weights: f32[N], weights of their labels, 0 or 1 in FreeMatch.
    mean: f32[K], constant moving average of the predictions for weak views.
    histogram: f32[K], the same of the shares of the predicted classes.

  Returns:
    f32[]; 0 if all weights are 0.
  """
  probs = jax.nn.softmax(logits)
  predicted = jax.nn.one_hot(
    probs.argmax(-1), probs.shape[-1], dtype=probs.dtype
  )
  weights = jax.lax.stop_gradient(weights)
  target = jax.lax.stop_gradient(_share(_divided(mean, histogram)))
  total = jnp.maximum(weights.sum(), _SMALL)
  batch_mean = weights @ probs / total
  batch_histogram = weights @ predicted / total
  batch = _share(_divided(batch_mean, batch_histogram))
  value = (target * jnp.log(batch + _SMALL)).sum()
  return jnp.where(weights.sum() > 0.0, value, 0.0)


def build() -> Term:
  """The term; it has no options."""

  def term(inputs: TermInputs, batch: Batch, key: Key) -> Array:
    mean, histogram = inputs.prediction_mean, inputs.prediction_histogram
    if inputs.weights is None or mean is None or histogram is None:
      raise errors.UserError(
        'the term fairness needs a method that averages its predictions and '
        'weighs its labels: fixmatch, flexmatch, freematch or softmatch'
      )
    return fairness_loss(inputs.logits_u, inputs.weights, mean, histogram)

  return term
