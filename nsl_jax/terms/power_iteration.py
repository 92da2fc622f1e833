"""VAT's adversarial direction, by power iteration (Miyato et al. 2018)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from nsl_jax.types import Array, Key


def normalize(change: Array) -> Array:
  """Each row divided by its norm, f32[B, ...] -> f32[B, ...].

  Divides by the largest entry first, so that the constants that keep a zero row
  finite do not change the norm of other rows.
  """
  axes = tuple(range(1, change.ndim))
  largest = jnp.max(jnp.abs(change), axis=axes, keepdims=True)
  change = change / (1e-12 + largest)
  square = jnp.sum(change**2, axis=axes, keepdims=True)
  return change / jnp.sqrt(1e-6 + square)


def _enlarged(change: Array) -> Array:
  """All rows but tiny ones as they are; `normalize` would leave those short."""
  axes = tuple(range(1, change.ndim))
  largest = jnp.max(jnp.abs(change), axis=axes, keepdims=True)
  is_tiny = (largest > 0) & (largest < 1e-6)
  return change / jnp.where(is_tiny, largest, 1.0)


def adversarial_direction(
  divergence: Callable[[Array, Key], Array],
  start: Array,
  key: Key,
  *,
  xi: float,
  iterations: int,
) -> Array:
  """VAT's adversarial direction by finite differences.

  Args:
    divergence: (perturbation f32[B, ...], key) -> f32[], divergence of the
      predictions; the key seeds the forward pass.
    start: f32[B, ...], random.
    key: split into one key per iteration.
    xi: norm of the probing step. A 32x32x3 image changes by 1.8e-8 per value at
      xi = 1e-6, which float32 rounds away near 1. The code of Oliver et al.
      still gets a direction, since each of its passes draws a new augmentation
      (F-N6).
    iterations: power iterations.

  Returns:
    f32[B, ...], constant; rows of norm 1, or 0 where the slope is.
  """
  direction = normalize(start)
  for probe in jax.random.split(key, iterations):
    slope = jax.grad(divergence)(xi * direction, probe)
    direction = normalize(jax.lax.stop_gradient(slope))
  return direction


def fisher_vector_product(
  jvp: Callable[[Array], Array], logits: Array, direction: Array
) -> Array:
  """J^T F J d: the Hessian of KL(p(x) || p(x + d)) at d = 0 times d.

  Exact: it needs no xi and also works in bfloat16. On a confident image the
  most likely class has a probability that rounds to 1 and a tangent that the
  mean cancels, so tangents are taken relative to it.

  Args:
    jvp: d -> J d, the linear map of `jax.linearize` at the clean images.
    logits: f32[B, K] of the clean images.
    direction: f32[B, ...].

  Returns:
    f32[B, ...].
  """
  probs = jax.nn.softmax(logits)
  tangent = jvp(direction).astype(logits.dtype)
  top = jnp.argmax(logits, axis=-1, keepdims=True)
  tangent -= jnp.take_along_axis(tangent, top, axis=-1)
  mean = jnp.sum(probs * tangent, axis=-1, keepdims=True)
  pull = jax.linear_transpose(jvp, direction)
  product: Array = pull(probs * (tangent - mean))[0]
  return product


def exact_adversarial_direction(
  jvp: Callable[[Array], Array], logits: Array, start: Array, *, iterations: int
) -> Array:
  """`adversarial_direction` without finite differences: power iteration on the
  Fisher matrix of the prediction with respect to the image.

  Returns:
    f32[B, ...], constant; rows of norm 1, or 0 where the product is, which is
    about as small as the probability of all but the most likely class.
  """
  direction = normalize(start)
  for _ in range(iterations):
    product = fisher_vector_product(jvp, logits, direction)
    direction = normalize(_enlarged(product))
  return jax.lax.stop_gradient(direction)
