"""Gradient of a held-out loss with respect to imputed labels.

The labels z of unlabeled images enter an inner gradient step,
theta*(z) = theta - eta d/dtheta C_in(theta; z), and a loss C_held(theta*) on
labeled images evaluates them (Li, Foo & Bilen, "Learning to Impute: A General
Framework for Semi-supervised Learning", 2020, section 4,
https://arxiv.org/abs/1912.10364).
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from nsl_jax.types import Array, Params

# (params, z) -> scalar and auxiliary outputs of its forward pass
Inner = Callable[[Params, Array], tuple[Array, Any]]
Held = Callable[[Params], Array]  # params -> scalar
Rate = Array | float


def _minus(params: Params, rate: Rate, grads: Params) -> Params:
  return jax.tree.map(lambda p, g: p - rate * g, params, grads)


def inner_step(
  inner: Inner, params: Params, labels: Array, *, rate: Rate
) -> tuple[Params, Any]:
  """theta* after the inner step, as a function of the labels, and the auxiliary
  outputs of the inner pass.
  """
  grads, inner_aux = jax.grad(inner, has_aux=True)(params, labels)
  return _minus(params, rate, grads), inner_aux


def label_gradient(
  inner: Inner, held: Held, params: Params, labels: Array, *, rate: Rate
) -> tuple[Array, Array, Any]:
  """C_held(theta*) and its gradient in the labels.

  theta is constant: the paper's equation and the released code differentiate
  through the labels only, not through the starting point (F-L7). Reverse over
  reverse mode; forward over reverse gives the same number in the same time and
  takes more memory (results/bench/cpu-fashion_mnist_l2i-gradient.json).

  Args:
    inner: C_in and auxiliary outputs.
    held: C_held.
    params: theta.
    labels: f32[N, K], z.
    rate: eta, the inner learning rate.

  Returns:
    f32[], f32[N, K], and the auxiliary outputs of the inner pass.
  """
  params = jax.lax.stop_gradient(params)

  def held_loss(labels: Array) -> tuple[Array, Any]:
    adapted, inner_aux = inner_step(inner, params, labels, rate=rate)
    return held(adapted), inner_aux

  (value, inner_aux), gradient = jax.value_and_grad(held_loss, has_aux=True)(
    labels
  )
  return value, gradient, inner_aux


def last_layer_gradient(
  features: Array,
  held_features: Array,
  held_probs: Array,
  held_labels: Array,
  *,
  rate: Rate = 1.0,
  bias: bool = False,
) -> Array:
  """The gradient if only the last layer adapts and C_in is cross-entropy.

  eta (F_U F_H^T) (P_H - Y_H) (L2I appendix A.3): labels move away from classes
  that are wrongly predicted for images with similar features. Both losses are
  sums. L2I applies it although its unlabeled loss is a squared error (F-L12).

  Args:
    features: f32[N, D], F_U, input of the last layer for the unlabeled images.
    held_features: f32[M, D], F_H.
    held_probs: f32[M, K], P_H, predictions for the held-out images.
    held_labels: f32[M, K], Y_H, their one-hot classes.
    rate: eta.
    bias: whether the layer has a bias that also adapts.

  Returns:
    f32[N, K].
  """
  chex.assert_equal_shape([held_probs, held_labels])
  similarity = jnp.matmul(features, held_features.T, precision='highest')
  if bias:
    similarity = similarity + 1.0
  residual = held_probs - held_labels
  return rate * jnp.matmul(similarity, residual, precision='highest')


def to_logits(gradient: Array, probs: Array) -> Array:
  """The gradient in a, given that in z = softmax(a); f32[N, K] all.

  The paper updates z, the released code a, which keeps z a distribution (F-L5).
  """
  mean = jnp.sum(gradient * probs, axis=-1, keepdims=True)
  return probs * (gradient - mean)
