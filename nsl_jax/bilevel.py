"""How labels should change for a step that learns them to help elsewhere.

The labels z of unlabelled images enter an inner step of gradient descent,
theta*(z) = theta - eta d/dtheta C_in(theta; z), and are judged by the loss
C_held(theta*) on images whose classes are known (Li, Foo & Bilen, section 4).
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from nsl_jax.types import Array, Params

# (params, z) -> scalar and what else the pass behind it gives
Inner = Callable[[Params, Array], tuple[Array, Any]]
Held = Callable[[Params], Array]  # params -> scalar
Rate = Array | float


def _minus(params: Params, rate: Rate, grads: Params) -> Params:
  return jax.tree.map(lambda p, g: p - rate * g, params, grads)


def adapt(
    inner: Inner, params: Params, labels: Array, *, rate: Rate, steps: int = 1
) -> tuple[Params, Any]:
  """theta* after `steps` inner steps, a function of the labels, and what else
  the first pass gave.
  """
  first = None
  for at in range(steps):
    grads, rest = jax.grad(inner, has_aux=True)(params, labels)
    params = _minus(params, rate, grads)
    first = first if at else rest
  return params, first


def label_gradient(
    inner: Inner, held: Held, params: Params, labels: Array, *, rate: Rate,
    steps: int = 1, tangent: bool = False,
) -> tuple[Array, Array, Any]:
  """C_held(theta*) and its gradient in the labels; theta is constant (F-L7).

  Reverse mode over reverse mode, several steps unrolled. For one step the
  gradient is also -eta d/dz of the derivative of C_in(theta; z) along
  g = dC_held/dtheta*, forward mode over reverse mode, which takes as long and
  keeps more (results/bench/cpu-fashion_mnist_l2i-gradient.json).

  Args:
    inner: C_in, and what else its pass gives.
    held: C_held.
    params: theta.
    labels: f32[N, K], z.
    rate: eta, the inner learning rate.
    steps: number of inner steps.
    tangent: go forward over reverse; `steps` must be 1.

  Returns:
    f32[], f32[N, K], and what else the first inner pass gave.
  """
  params = jax.lax.stop_gradient(params)
  if not tangent:
    def judged(labels: Array) -> tuple[Array, Any]:
      adapted, rest = adapt(inner, params, labels, rate=rate, steps=steps)
      return held(adapted), rest

    (value, rest), gradient = jax.value_and_grad(judged, has_aux=True)(labels)
    return value, gradient, rest
  assert steps == 1, f'tangent: {steps} steps'
  adapted, rest = adapt(inner, params, labels, rate=rate)
  value, direction = jax.value_and_grad(held)(adapted)

  def along(labels: Array) -> Array:
    of_params = lambda params: inner(params, labels)[0]
    return jax.jvp(of_params, (params,), (direction,))[1]

  return value, -rate * jax.grad(along)(labels), rest


def last_layer_gradient(
    features: Array, held_features: Array, held_probs: Array,
    held_labels: Array, *, rate: Rate = 1.0, bias: bool = False,
) -> Array:
  """The gradient where only the last layer adapts and C_in is cross-entropy.

  eta (F_U F_H^T) (P_H - Y_H): an image's label should move away from the
  classes that images with similar features are wrongly given (appendix A.3,
  F-L12). Both losses are sums.

  Args:
    features: f32[N, D], F_U, input of the last layer for the images z is of.
    held_features: f32[M, D], F_H.
    held_probs: f32[M, K], P_H, predictions for the held-out images.
    held_labels: f32[M, K], Y_H, their one-hot classes.
    rate: eta.
    bias: whether the layer has a bias that adapts too.

  Returns:
    f32[N, K].
  """
  chex.assert_equal_shape([held_probs, held_labels])
  alike = jnp.matmul(features, held_features.T, precision='highest')
  if bias:
    alike = alike + 1.0
  wrong = held_probs - held_labels
  return rate * jnp.matmul(alike, wrong, precision='highest')


def last_layer_step(
    held_logits: Array, held_features: Array, features: Array, probs: Array,
    labels: Array, *, rate: Rate,
) -> Array:
  """Logits of held-out images after an inner step of the last layer alone, on
  the sum of cross-entropies: its gradient in the logits is P_U - Z.

  Args:
    held_logits: f32[M, K], before the step.
    held_features: f32[M, D], F_H.
    features: f32[N, D], F_U.
    probs: f32[N, K], P_U, predictions for the images that are learnt.
    labels: f32[N, K], Z.
    rate: eta.

  Returns:
    f32[M, K].
  """
  chex.assert_equal_shape([probs, labels])
  alike = jnp.matmul(held_features, features.T, precision='highest')
  return held_logits - rate * jnp.matmul(
      alike, probs - labels, precision='highest'
  )


def to_logits(gradient: Array, probs: Array) -> Array:
  """A gradient in z = softmax(a) as one in a; f32[N, K] all (F-L5)."""
  mean = jnp.sum(gradient * probs, axis=-1, keepdims=True)
  return probs * (gradient - mean)


def pull_back(
    impute: Callable[[Params], Array], params: Params, gradient: Array
) -> Any:
  """A gradient in the labels as one in the parameters that impute them: the
  transposed Jacobian of psi times it (V2).
  """
  _, back = jax.vjp(impute, params)
  return back(gradient)[0]
