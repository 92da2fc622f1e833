"""DNLL's error perception: negative labels by the errors that a network makes
(Xu et al. 2023, section 3.5, https://arxiv.org/abs/2301.03976).
"""

import chex
import jax
import jax.numpy as jnp

from nsl_jax import errors
from nsl_jax.terms import negative_samplers
from nsl_jax.types import Array, Key

SELECTIONS = ('ep', 'epm')


def error_perception_matrix(logits: Array, labels: Array) -> Array:
  """Confidence of a batch's wrong predictions, by true and predicted class.

  Args:
    logits: f32[N, K] on labeled images.
    labels: i32[N].

  Returns:
    f32[K, K], constant: at [k, i] the sum of p_i over the images of class k
    that are predicted as i; 0 on the diagonal. The paper leaves open whether to
    sum over a batch or the data set; we sum over a batch (F-D6).
  """
  chex.assert_rank([logits, labels], [2, 1])
  size = logits.shape[-1]
  probs = jax.nn.softmax(jax.lax.stop_gradient(logits))
  true = jax.nn.one_hot(labels, size, dtype=probs.dtype)
  predicted = jax.nn.one_hot(probs.argmax(-1), size, dtype=probs.dtype)
  # A product instead of a scatter, as the compiler can shard it over devices.
  table = jnp.matmul(true.T, predicted * probs, precision='highest')
  return jnp.where(jnp.eye(size, dtype=bool), 0.0, table)


def negative_logits(
  table: Array | None, predicted: Array, classes: int
) -> Array:
  """Log weights for drawing negative labels.

  Args:
    table: f32[K, K], matrix of the network that learns, as only its errors
      matter (F-D6); None for equal weights (EP).
    predicted: i32[N], pseudo labels of the network that teaches.
    classes: K.

  Returns:
    f32[N, K], the table's row of the predicted class, without the softmax of
    equation 23, which only shifts a row; -inf at the predicted class.
  """
  chex.assert_rank(predicted, 1)
  itself = jax.nn.one_hot(predicted, classes, dtype=bool)
  if table is None:
    weights = jnp.zeros(itself.shape)
  else:
    chosen = itself.astype(table.dtype)
    weights = jnp.matmul(chosen, table, precision='highest')
  return jnp.where(itself, -jnp.inf, weights)


def sample_negatives(
  key: Key, table: Array | None, predicted: Array, classes: int, count: int
) -> Array:
  """Pseudo-negative labels, bool[N, K]: `count` of the K - 1 classes that are
  not predicted; see `negative_logits` and `negative_samplers.weighted_subset`.

  Raises:
    errors.UserError: unless 1 <= count < K.
  """
  if not 1 <= count < classes:
    raise errors.UserError(
      f'config.method.count={count} negative labels of {classes} classes: set '
      f'it to {"1" if classes == 2 else f"1 to {classes - 1}"}'
    )
  return negative_samplers.weighted_subset(
    key, negative_logits(table, predicted, classes), count
  )
