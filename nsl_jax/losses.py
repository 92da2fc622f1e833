"""Every equation on logits or probabilities: values per row, no reduction.

NS3L is Chen, Shah & Kyrillidis, "Negative sampling in semi-supervised learning"
(2020), https://arxiv.org/abs/1911.05166. DNLL is Xu et al., "Semi-supervised
learning with pseudo-negative labels for image classification" (2023),
https://arxiv.org/abs/2301.03976. L2I is Li, Foo & Bilen, "Learning to Impute: A
General Framework for Semi-supervised Learning" (2020),
https://arxiv.org/abs/1912.10364.
"""

import chex
import jax
import jax.numpy as jnp

from nsl_jax.types import Array

__all__ = [
  'below_threshold',
  'complementary_label_loss',
  'cross_entropy',
  'entropy',
  'interocular_error',
  'kl_divergence',
  'log1m_softmax',
  'mean_square',
  'negative_sampling_loss',
  'pseudo_label',
  'squared_error',
]

_EMPTY = -1e30  # a logit of probability 0 that keeps every gradient finite


def cross_entropy(logits: Array, labels: Array) -> Array:
  """Cross-entropy with classes or with soft labels (NS3L section 4.1).

  NS3L prints it without the minus sign in its MixMatch equations, which would
  maximize the error (F-N1).

  Args:
    logits: f32[N, K].
    labels: i32[N] classes in 0 ... K-1 (not checked: others lose 0), or
      f32[N, K] probabilities.

  Returns:
    f32[N], -sum_k y_k log p_k.

  >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  >>> print(cross_entropy(logits, jnp.array([1])))  # -log 0.2
  [1.609]
  """
  chex.assert_rank(logits, 2)
  if labels.ndim == 1:
    labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
  chex.assert_equal_shape([logits, labels])
  return -jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)


def kl_divergence(logits_p: Array, logits_q: Array) -> Array:
  """KL(p || q) of two rows of logits, both differentiable.

  Args:
    logits_p: f32[N, K], finite.
    logits_q: f32[N, K], finite.

  Returns:
    f32[N], sum_k p_k (log p_k - log q_k), exact down to p_k = 0.

  >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  >>> print(kl_divergence(logits, jnp.zeros((1, 3))))  # log 3 - entropy
  [0.297]
  """
  chex.assert_rank([logits_p, logits_q], 2)
  chex.assert_equal_shape([logits_p, logits_q])
  log_p = jax.nn.log_softmax(logits_p)
  log_q = jax.nn.log_softmax(logits_q)
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def entropy(logits: Array) -> Array:
  """Entropy of the prediction in nats, f32[N] from finite logits f32[N, K].

  >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  >>> print(entropy(logits))
  [0.802]
  """
  chex.assert_rank(logits, 2)
  log_p = jax.nn.log_softmax(logits)
  return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def pseudo_label(logits: Array, probs: Array, *, threshold: float) -> Array:
  """Loss that uses confident predictions as labels (Oliver et al. 2018).

  The target of a confident row is softmax(10 * onehot(argmax)); a row that is
  not confident is its own target, so its loss and gradient are exactly 0.

  Args:
    logits: f32[N, K], with gradient.
    probs: f32[N, K], constant probabilities to compare with the threshold.
    threshold: a row is confident if its largest probability exceeds this.

  Returns:
    f32[N], KL(target || p) or 0.

  >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  >>> probs = jax.nn.softmax(logits)
  >>> print(pseudo_label(logits, probs, threshold=0.6))
  [0.356]
  >>> print(pseudo_label(logits, probs, threshold=0.95))
  [0.]
  """
  chex.assert_equal_shape([logits, probs])
  probs = jax.lax.stop_gradient(probs)
  best = jnp.argmax(probs, axis=-1)
  target = 10.0 * jax.nn.one_hot(best, logits.shape[-1], dtype=logits.dtype)
  confident = probs.max(axis=-1) > threshold
  return jnp.where(confident, kl_divergence(target, logits), 0.0)


def negative_sampling_loss(logits: Array, negative: Array) -> Array:
  """-log(1 - sum of p over the negative labels) (NS3L equation 4).

  A difference of two log-sum-exps: exact at p = 1 without a clamp. The authors'
  module clamps 1 - P at 1e-8, where the gradient vanishes (F-N2). The gradient
  in logit j is p_j for a negative j and -p_j P / (1 - P) for the others, with P
  the sum of p over the negatives.

  Args:
    logits: f32[N, K].
    negative: bool[N, K], the negative labels of a row; never all classes.

  Returns:
    f32[N]; 0 where a row has no negative label.

  >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  >>> negative = jnp.array([[False, True, True]])
  >>> print(negative_sampling_loss(logits, negative))  # -log(1 - 0.3)
  [0.357]
  """
  chex.assert_rank([logits, negative], 2)
  chex.assert_equal_shape([logits, negative])
  allowed = jnp.where(negative, _EMPTY, logits)
  value = jax.nn.logsumexp(logits, axis=-1) - jax.nn.logsumexp(allowed, axis=-1)
  return jnp.where(negative.any(axis=-1), value, 0.0)


def log1m_softmax(logits: Array) -> Array:
  """log(1 - p_k) of every class, f32[N, K] from f32[N, K].

  Only the class of the largest logit can have p_k > 1/2, where 1 - p_k loses
  precision: its value is a difference of two log-sum-exps, finite and exact up
  to p_k = 1. The others use log1p(-p_k). Memory is O(N K).

  >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  >>> print(jnp.exp(log1m_softmax(logits)))
  [[0.3 0.8 0.9]]
  """
  chex.assert_rank(logits, 2)
  classes = jnp.arange(logits.shape[-1])[None]
  top = classes == jnp.argmax(logits, axis=-1, keepdims=True)
  normalizer = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  others = jnp.where(top, _EMPTY, logits)
  log1m_top = jax.nn.logsumexp(others, axis=-1, keepdims=True) - normalizer
  # log1p sees p = 0 in place of the top class, which keeps gradients finite.
  return jnp.where(top, log1m_top, jnp.log1p(-jnp.exp(others - normalizer)))


def complementary_label_loss(logits: Array, negative: Array) -> Array:
  """Mean of -log(1 - p_k) over the negative labels k (DNLL equation 9).

  Equation 9 sums over the labels; the released code takes the mean, and so do
  we: multiply the weight by the number of labels for the sum (F-D8). With
  r_k = p_k / (1 - p_k) for a negative k, else 0, the gradient of the sum in
  logit j is r_j - p_j sum_k r_k. The sum never exceeds `negative_sampling_loss`
  of the same labels.

  Args:
    logits: f32[N, K].
    negative: bool[N, K].

  Returns:
    f32[N]; 0 where a row has no negative label.

  >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  >>> negative = jnp.array([[False, True, True]])
  >>> print(complementary_label_loss(logits, negative))
  [0.164]
  """
  chex.assert_equal_shape([logits, negative])
  count = jnp.maximum(negative.sum(axis=-1), 1)
  return -jnp.where(negative, log1m_softmax(logits), 0.0).sum(axis=-1) / count


def below_threshold(probs: Array, threshold: float) -> Array:
  """Negative labels of NS3L's Algorithm 1: improbable classes.

  Args:
    probs: f32[N, K] probabilities.
    threshold: a class is negative where its probability is strictly below this.

  Returns:
    bool[N, K]. The most probable class, or any class tied with it, is never
    negative, so the loss of uniform probabilities is 0 for any threshold.

  >>> below_threshold(jnp.array([[0.7, 0.2, 0.1]]), 0.15)
  Array([[False, False,  True]], dtype=bool)
  """
  chex.assert_rank(probs, 2)
  return (probs < threshold) & (probs < probs.max(axis=-1, keepdims=True))


def squared_error(logits: Array, target: Array) -> Array:
  """Mean over classes of (p - target)^2, the usual consistency loss.

  Args:
    logits: f32[N, K], with gradient.
    target: f32[N, K], constant probabilities.

  Returns:
    f32[N].

  >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  >>> print(squared_error(logits, jnp.array([[1.0, 0.0, 0.0]])))
  [0.047]
  """
  chex.assert_rank([logits, target], 2)
  chex.assert_equal_shape([logits, target])
  target = jax.lax.stop_gradient(target)
  return jnp.mean((jax.nn.softmax(logits) - target) ** 2, axis=-1)


def mean_square(outputs: Array, target: Array) -> Array:
  """Mean over outputs of (output - target)^2, f32[N] from f32[N, P] both.

  >>> print(mean_square(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])))
  [2.5]
  """
  chex.assert_rank([outputs, target], 2)
  chex.assert_equal_shape([outputs, target])
  return jnp.mean((outputs - target) ** 2, axis=-1)


def interocular_error(points: Array, true: Array) -> Array:
  """Mean distance of points divided by that of the first two true ones (L2I).

  Args:
    points: f32[N, P], x and y of each predicted point.
    true: f32[N, P], the true points in the same unit, the eyes first.

  Returns:
    f32[N], a fraction; not finite where the first two points are the same. It
    is a metric: its gradient is NaN where a point is exactly right.

  >>> true = jnp.array([[0.0, 0.0, 2.0, 0.0]])  # eyes at a distance of 2
  >>> print(interocular_error(true + 1.0, true))
  [0.707]
  """
  chex.assert_rank([points, true], 2)
  chex.assert_equal_shape([points, true])
  predicted, true = (p.reshape(p.shape[0], -1, 2) for p in (points, true))
  distance = jnp.sqrt(((predicted - true) ** 2).sum(axis=-1)).mean(axis=-1)
  return distance / jnp.sqrt(((true[:, 0] - true[:, 1]) ** 2).sum(axis=-1))
