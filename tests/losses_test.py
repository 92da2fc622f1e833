"""Losses: values by hand, gradients, limits, and what is held constant."""

import itertools
import math

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads
from scipy import special

from nsl_jax import losses


def negative_sampling(logits, probs, *, threshold):
  """NS3L's Algorithm 1: the negatives are the improbable classes."""
  negative = losses.below_threshold(jax.lax.stop_gradient(probs), threshold)
  return losses.negative_sampling_loss(logits, negative)


def logits_of(*rows):
  """Logits whose softmax are these rows."""
  return jnp.log(jnp.array(rows, jnp.float32))


def mask(num_classes, negatives):
  """bool[1, K] with those classes true."""
  return jnp.array([[k in negatives for k in range(num_classes)]])


def gradient(loss, logits, *constants):
  """Of the sum over rows."""
  return jax.jit(jax.grad(lambda z: loss(z, *constants).sum()))(logits)


def random_case(seed, rows=16, num_classes=6):
  """f64 logits and masks with 1 to K - 1 negatives, both [rows, K]."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(rows, num_classes))
  counts = rng.integers(1, num_classes, rows)
  ranks = rng.permuted(np.tile(np.arange(num_classes), (rows, 1)), axis=1)
  return logits, ranks < counts[:, None]


def clamped(logits, negative):
  """The authors' form of the loss: -log(1 - P), 1 - P cut to [1e-8, 1]."""
  total = jnp.where(negative, jax.nn.softmax(logits), 0.0).sum(-1)
  return -jnp.log(jnp.clip(1.0 - total, 1e-8, 1.0))


def dnll_sum(logits, negative):
  """DNLL's equation 9 before it is averaged: -sum log(1 - p), in numpy."""
  terms = np.log1p(-special.softmax(np.asarray(logits), axis=-1))
  return -np.where(negative, terms, 0.0).sum(-1)


# Two rows of four classes; the second one is confident of class 2.
PROBS = np.array([[0.4, 0.3, 0.2, 0.1], [0.01, 0.01, 0.97, 0.01]])
LOSSES = {
  'classes': lambda z: losses.cross_entropy(z, np.array([3, 0])),
  'soft': lambda z: losses.cross_entropy(z, PROBS.astype(z.dtype)),
  'kl_both': lambda z: losses.kl_divergence(z, z[::-1] * 0.5),
  'entropy': losses.entropy,
  'pseudo_label': lambda z: losses.pseudo_label(
    z, jnp.asarray(PROBS, z.dtype), threshold=0.95
  ),
  'none_of': lambda z: losses.negative_sampling_loss(z, PROBS < 0.25),
  'negative_sampling': lambda z: negative_sampling(
    z, jnp.asarray(PROBS, z.dtype), threshold=0.25
  ),
  'each_not': lambda z: losses.complementary_label_loss(z, PROBS < 0.35),
}


class EveryLossTest(parameterized.TestCase):
  @parameterized.parameters(*LOSSES)
  def test_gradient(self, name):
    logits = np.random.default_rng(0).normal(size=(2, 4))
    with numeric.float64():
      check_grads(jax.jit(LOSSES[name]), (logits,), order=1, rtol=1e-7)

  @parameterized.parameters(*LOSSES)
  def test_extreme_logits_stay_finite(self, name):
    """Invariant 6, second half: all float32 rows of +-100."""
    signs = np.array(list(itertools.product([1, -1], repeat=8)), np.float32)
    logits = 100.0 * signs.reshape(-1, 2, 4)
    every = jax.jit(jax.vmap(LOSSES[name]))
    value = every(logits)
    self.assertEqual((value.shape, value.dtype), ((256, 2), jnp.float32))
    self.assertTrue(np.isfinite(value).all())
    self.assertTrue((value >= -1e-6).all())
    self.assertTrue(np.isfinite(gradient(every, logits)).all())

  @parameterized.parameters(
    lambda z: losses.cross_entropy(z, z[:, :2]),
    lambda z: losses.kl_divergence(z, z[:1]),
    lambda z: losses.pseudo_label(z, z[:1], threshold=0.5),
    lambda z: losses.pseudo_label(z, z[:, :2], threshold=0.5),
    lambda z: losses.negative_sampling_loss(z, jnp.ones((2, 4), bool)),
    lambda z: losses.complementary_label_loss(z, jnp.ones((2, 4), bool)),
    lambda z: negative_sampling(z, z[:1], threshold=0.5),
    lambda z: losses.squared_error(z, z[:1]),
    lambda z: losses.mean_square(z, z[:1]),
    lambda z: losses.interocular_error(jnp.zeros((2, 4)), jnp.zeros((1, 4))),
    # One row without its axis.
    lambda z: losses.cross_entropy(z[0], z[0]),
    lambda z: losses.kl_divergence(z[0], z[0]),
    lambda z: losses.entropy(z[0]),
    lambda z: losses.pseudo_label(z[0], z[0], threshold=0.5),
    lambda z: losses.negative_sampling_loss(z[0], z[0] > 0),
    lambda z: losses.log1m_softmax(z[0]),
    lambda z: losses.below_threshold(z[0], 0.5),
    lambda z: losses.squared_error(z[0], z[0]),
    lambda z: losses.mean_square(z[0], z[0]),
    lambda z: losses.interocular_error(jnp.zeros(4), jnp.zeros(4)),
  )
  def test_wrong_shapes_are_refused(self, call):
    with self.assertRaises(AssertionError):
      call(jnp.zeros((2, 3)))


class CrossEntropyTest(parameterized.TestCase):
  @parameterized.parameters(
    (np.array([0]), 0.356675),
    (np.array([2]), 2.302585),
    (np.array([[0.5, 0.25, 0.25]], np.float32), 1.156343),
  )
  def test_value_by_hand(self, labels, expected):
    """Positive, that is with the minus sign (F-N1)."""
    value = losses.cross_entropy(logits_of([0.7, 0.2, 0.1]), labels)
    np.testing.assert_allclose(value, [expected], rtol=1e-6)

  def test_gradient_is_prediction_minus_label(self):
    logits, labels = random_case(2, 3, 5)[0], np.array([4, 0, 2])
    with numeric.float64():
      grad = gradient(losses.cross_entropy, logits, labels)
    expected = special.softmax(logits, axis=-1) - np.eye(5)[labels]
    np.testing.assert_allclose(grad, expected, rtol=0, atol=1e-15)


class DivergenceTest(absltest.TestCase):
  def test_values_by_hand(self):
    logits = logits_of([0.5, 0.5], [0.25, 0.75])
    both = losses.kl_divergence(logits, logits[::-1])
    np.testing.assert_allclose(both, [0.1438410, 0.1308120], rtol=1e-5)
    np.testing.assert_allclose(
      losses.entropy(logits_of([0.5, 0.25, 0.25])), [1.0397208], rtol=1e-6
    )


class PseudoLabelTest(parameterized.TestCase):
  @parameterized.parameters((10, 0.999592), (100, 0.995526))
  def test_confident_target(self, num_classes, winner):
    """Invariant 12: the gradient is p - target, so it shows the target."""
    target_probs = np.full((1, num_classes), 1e-4)
    target_probs[0, 3] = 0.99
    logits = np.linspace(-1.0, 1.0, num_classes)[None]
    loss = lambda z: losses.pseudo_label(z, target_probs, threshold=0.95)
    with numeric.float64():
      grad = np.asarray(gradient(loss, logits))
    target = special.softmax(logits, axis=-1) - grad
    exact = math.exp(10) / (math.exp(10) + num_classes - 1)
    self.assertEqual((target.argmax(), round(exact, 6)), (3, winner))
    np.testing.assert_allclose(target[0, 3], exact, rtol=1e-14)

  def test_value_by_hand(self):
    """KL(target || uniform) = log 10 - H(target), H(target) = 0.0044928."""
    target_probs = jnp.full((1, 10), 0.004).at[0, 7].set(0.964)
    value = losses.pseudo_label(
      jnp.zeros((1, 10)), target_probs, threshold=0.95
    )
    np.testing.assert_allclose(value, [math.log(10) - 0.0044928], rtol=1e-6)

  @parameterized.parameters(0.5, 0.51)
  def test_unconfident_row_gives_exactly_nothing(self, threshold):
    """Invariant 12; a probability equal to the threshold is unsure."""
    target_probs = jnp.array([[0.5, 0.25, 0.25], [0.125, 0.375, 0.5]])
    logits = jnp.array([[1.0, -2.0, 0.5], [100.0, -100.0, 0.0]])
    loss = lambda z: losses.pseudo_label(z, target_probs, threshold=threshold)
    np.testing.assert_array_equal(loss(logits), 0.0)
    np.testing.assert_array_equal(gradient(loss, logits), 0.0)

  def test_certain_predictions(self):
    """Invariant 12: p = one-hot, right and wrong; targets have no gradient."""
    target_probs = jnp.array([[1.0, 0.0, 0.0]] * 2)
    logits = jnp.array([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]])
    loss = lambda z, b: losses.pseudo_label(z, b, threshold=0.95)
    rest = 2 / (math.exp(10) + 2)
    entropy = -(1 - rest) * math.log(1 - rest) - rest * math.log(rest / 2)
    expected = np.array([200 * rest, 200 - 100 * rest]) - entropy
    np.testing.assert_allclose(loss(logits, target_probs), expected, rtol=1e-5)
    self.assertTrue(np.isfinite(gradient(loss, logits, target_probs)).all())
    to_belief = gradient(lambda b: loss(logits, b), target_probs)
    np.testing.assert_array_equal(to_belief, 0.0)


class SquaredErrorTest(absltest.TestCase):
  """Of probabilities and of points: a mean over a row's entries."""

  def test_value_and_gradient_by_hand(self):
    """(0.09 + 0.04 + 0.01) / 3, and 2 / K p_j (d_j - sum_k p_k d_k)."""
    probs, target = np.array([[0.7, 0.2, 0.1]]), np.array([[1.0, 0.0, 0.0]])
    gap = probs - target
    expected = 2 / 3 * probs * (gap - (probs * gap).sum())
    logits = logits_of(*probs)
    loss = lambda z: losses.squared_error(z, jnp.asarray(target, z.dtype))
    np.testing.assert_allclose(loss(logits), [0.14 / 3], rtol=1e-6)
    np.testing.assert_allclose(gradient(loss, logits), expected, atol=1e-7)

  def test_target_is_constant(self):
    logits, target = jnp.array([[1.0, -2.0]]), jnp.array([[0.5, 0.5]])
    found = gradient(lambda t: losses.squared_error(logits, t), target)
    np.testing.assert_array_equal(found, 0.0)

  def test_both_sides_of_points_have_a_gradient(self):
    outputs, target = jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])
    np.testing.assert_allclose(losses.mean_square(outputs, target), [2.5])
    np.testing.assert_allclose(
      gradient(losses.mean_square, outputs, target), [[1.0, -2.0]]
    )
    np.testing.assert_allclose(
      gradient(lambda t: losses.mean_square(outputs, t), target), [[-1.0, 2.0]]
    )


class NoneOfTest(parameterized.TestCase):
  @parameterized.parameters(
    (10, 1, 0.105361), (10, 3, 0.356675), (10, 9, 2.302585), (100, 1, 0.010050)
  )
  def test_forced_mask_at_uniform(self, num_classes, count, expected):
    """Invariant 2: -log(1 - m / K)."""
    negative = mask(num_classes, range(count))
    value = losses.negative_sampling_loss(jnp.zeros((1, num_classes)), negative)
    np.testing.assert_allclose(value, [expected], atol=1e-6)

  @parameterized.parameters(
    (losses.negative_sampling_loss, False), (clamped, True)
  )
  def test_gradient_formula(self, form, rounds):
    """Invariant 3 in float64: exact, signs, sum 0, for either form.

    The authors' form rounds 1 - P, which costs it a factor 1 / (1 - P).
    """
    logits, negative = random_case(0, rows=100)
    probs = special.softmax(logits, axis=-1)
    kept = np.where(negative, 0.0, probs).sum(-1, keepdims=True)
    total = np.where(negative, probs, 0.0).sum(-1, keepdims=True)
    expected = np.where(negative, probs, -probs * total / kept)
    unit = np.broadcast_to(kept if rounds else 1.0, probs.shape)
    with numeric.float64():
      grad = np.asarray(gradient(form, logits, negative))
      value = np.asarray(form(logits, negative))
    self.assertLess(np.abs((grad - expected) * unit).max(), 1e-15)
    self.assertLess(np.abs(grad.sum(-1) * unit[:, 0]).max(), 1e-15)
    gap = (value + np.log(kept[:, 0])) * unit[:, 0]
    self.assertLess(np.abs(gap).max(), 2e-15)
    self.assertTrue((grad[negative] >= 0).all())
    self.assertTrue((grad[~negative] <= 0).all())

  def test_grows_with_the_mask(self):
    """Invariant 3: each negative that is added raises the loss, from 0."""
    rank = np.random.default_rng(7).permutation(6)
    logits = jnp.array([[0.3, -1.2, 2.0, 0.1, 0.0, 1.0]] * 6)
    value = losses.negative_sampling_loss(
      logits, rank[None] < np.arange(6)[:, None]
    )
    self.assertEqual(value[0], 0.0)
    self.assertTrue((np.diff(value) > 1e-3).all())

  @parameterized.parameters(6, 2)
  def test_all_but_one_is_cross_entropy(self, num_classes):
    """Invariant 4, value and gradient; for K = 2 that is F-N14."""
    logits = random_case(8, num_classes=num_classes)[0]
    labels = np.arange(16) % num_classes
    ours = lambda z: losses.negative_sampling_loss(
      z, ~np.eye(num_classes, dtype=bool)[labels]
    )
    theirs = lambda z: losses.cross_entropy(z, labels)
    with numeric.float64():
      np.testing.assert_allclose(
        ours(logits), theirs(logits), rtol=0, atol=2e-15
      )
      np.testing.assert_allclose(
        gradient(ours, logits), gradient(theirs, logits), rtol=0, atol=2e-15
      )

  def test_at_least_dnll(self):
    """Invariant 5 with its numbers; equal for one negative (invariant 4)."""
    logits, negative = logits_of([0.4, 0.3, 0.2, 0.1]), mask(4, [2, 3])
    for loss, expected in (
      (losses.negative_sampling_loss, 0.356675),
      (dnll_sum, 0.328504),
    ):
      np.testing.assert_allclose(loss(logits, negative), [expected], atol=1e-6)
    logits, negative = random_case(10, rows=200)
    with numeric.float64():
      value = np.asarray(losses.negative_sampling_loss(logits, negative))
    excess = value - dnll_sum(logits, negative)
    several = negative.sum(-1) > 1
    self.assertTrue((excess[several] > 1e-6).all())
    np.testing.assert_allclose(excess[~several], 0.0, atol=4e-15)

  @parameterized.parameters(
    losses.negative_sampling_loss, losses.complementary_label_loss
  )
  def test_certain_of_a_negative(self, loss):
    """p -> 1: no clamp, so the loss and its gradient go on."""
    logits, negative = jnp.array([[200.0, 0.0, 0.0]]), mask(3, [0])
    np.testing.assert_allclose(
      loss(logits, negative), [200.0 - math.log(2)], rtol=1e-6
    )
    np.testing.assert_allclose(
      gradient(loss, logits, negative), [[1.0, -0.5, -0.5]]
    )
    np.testing.assert_array_equal(gradient(clamped, logits, negative), 0.0)


class EachNotTest(absltest.TestCase):
  """DNLL equation 9, a mean over the negatives (F-D8)."""

  def test_value_by_hand(self):
    logits = logits_of([0.4, 0.3, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1])
    negative = jnp.array([[0, 0, 1, 1], [1, 0, 0, 1]], bool)
    # -(log 0.8 + log 0.9) / 2 and -(log 0.3 + log 0.9) / 2.
    np.testing.assert_allclose(
      losses.complementary_label_loss(logits, negative),
      [0.1642520, 0.6546667],
      rtol=1e-6,
    )

  def test_no_negative(self):
    value = losses.complementary_label_loss(
      jnp.ones((1, 3)), jnp.zeros((1, 3), bool)
    )
    np.testing.assert_array_equal(value, [0.0])

  def test_value_and_gradient_against_float64(self):
    """r_j - p_j sum_k r_k with r = p / (1 - p), averaged."""
    logits, negative = random_case(3, rows=200)
    logits = 4.0 * logits
    count = negative.sum(-1)
    probs = special.softmax(logits, axis=-1)
    r = np.where(negative, probs / (1.0 - probs), 0.0)
    slope = (r - probs * r.sum(-1, keepdims=True)) / count[:, None]
    low = jnp.asarray(logits, jnp.float32)
    np.testing.assert_allclose(
      losses.complementary_label_loss(low, negative),
      dnll_sum(logits, negative) / count,
      rtol=2e-6,
      atol=1e-7,
    )
    np.testing.assert_allclose(
      gradient(losses.complementary_label_loss, low, negative),
      slope,
      rtol=1e-5,
      atol=1e-6,
    )

  def test_memory_is_of_the_size_of_the_logits(self):
    """10,000 classes: nothing that is [N, K, K] (51 GB at 128 rows)."""
    shape = jax.ShapeDtypeStruct((128, 10_000), jnp.float32)
    mark = jax.ShapeDtypeStruct(shape.shape, bool)
    loss = lambda z, negative: losses.complementary_label_loss(
      z, negative
    ).sum()
    program = jax.jit(jax.value_and_grad(loss)).lower(shape, mark).compile()
    used = program.memory_analysis().temp_size_in_bytes
    self.assertLess(used, 20 * 4 * 128 * 10_000)


class NegativeSamplingTest(parameterized.TestCase):
  @parameterized.parameters((0.5, 0.7), (0.15, 0.9), (0.05, 1.0), (0.9, 0.7))
  def test_value_by_hand(self, threshold, kept):
    logits, target_probs = (
      logits_of([0.7, 0.2, 0.1]),
      jnp.array([[0.7, 0.2, 0.1]]),
    )
    value = negative_sampling(logits, target_probs, threshold=threshold)
    np.testing.assert_allclose(value, [-math.log(kept)], atol=1e-6)

  def test_each_row_keeps_its_own_best_class(self):
    """0.4 is the best of its row, though less than 0.7."""
    probs = jnp.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    np.testing.assert_array_equal(
      losses.below_threshold(probs, 0.9), [[0, 1, 1], [0, 1, 1]]
    )

  @parameterized.parameters((10, 0.04), (100, 0.004), (100, 0.05))
  def test_uniform_belief_says_nothing(self, num_classes, threshold):
    """Invariant 1; the last case has T > 1 / K, where every class ties."""
    loss = lambda z: negative_sampling(
      z, jax.nn.softmax(z), threshold=threshold
    )
    logits = jnp.zeros((3, num_classes))
    np.testing.assert_array_equal(loss(logits), 0.0)
    np.testing.assert_array_equal(gradient(loss, logits), 0.0)

  def test_nearly_uniform_over_many_classes(self):
    """K = 100, T = 0.05: all but the best one are negatives, yet finite."""
    logits = jnp.zeros((1, 100)).at[0, 42].set(1e-4)
    loss = lambda z: negative_sampling(z, jax.nn.softmax(z), threshold=0.05)
    np.testing.assert_allclose(loss(logits), math.log(100.0), rtol=1e-3)
    expected = 0.01 - np.eye(100)[42:43]
    np.testing.assert_allclose(gradient(loss, logits), expected, rtol=1e-3)

  def test_no_gradient_to_the_belief(self):
    """Invariant 6: tied to the logits or not, the target is constant."""
    logits = jnp.array([[1.0, -2.0, 0.5, 0.4]])
    target_probs = jax.nn.softmax(logits)
    loss = lambda z, b: negative_sampling(z, b, threshold=0.3)
    constant = gradient(loss, logits, target_probs)
    self.assertGreater(np.abs(constant).max(), 0.1)
    tied = gradient(lambda z: loss(z, jax.nn.softmax(z)), logits)
    np.testing.assert_allclose(tied, constant, rtol=1e-6)
    moved = target_probs + jnp.array([[0.01, 0, 0, -0.01]])
    np.testing.assert_array_equal(gradient(loss, logits, moved), constant)

  def test_labels_as_belief(self):
    """Invariant 7: one-hot, a mixture of two, and all classes believed."""
    logits = jnp.array([[0.3, -1.2, 2.0, 0.1]] * 3)
    labels = jnp.array(
      [[0, 1, 0, 0], [0.3, 0, 0.7, 0], [0.25, 0.25, 0.25, 0.25]]
    )
    value = negative_sampling(logits, labels, threshold=0.05)
    probs = special.softmax(np.asarray(logits[0]))
    expected = [-np.log(probs[1]), -np.log(probs[0] + probs[2]), 0.0]
    np.testing.assert_allclose(value, expected, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
