"""Negative labels by error perception, and DNLL's theorems about them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.terms import error_perception, negative_samplers

DRAWS = 40_000


def key(seed=0):
  return jax.random.key(seed)


def predicted_right(classes, accuracy, seed):
  """Predictions for DRAWS images of class 0, uniform where wrong."""
  rng = np.random.default_rng(seed)
  wrong = rng.integers(1, classes, DRAWS)
  return np.where(rng.random(DRAWS) < accuracy, 0, wrong)


class MistakesTest(parameterized.TestCase):
  def test_against_a_loop(self):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 4)).astype(np.float32)
    labels = rng.integers(0, 3, 30)  # class 3 has no image
    expected = np.zeros((4, 4))
    for row, label in zip(logits, labels):
      p = np.exp(row) / np.exp(row).sum()
      guess = int(p.argmax())
      if guess != label:
        expected[label, guess] += p[guess]
    found = error_perception.error_perception_matrix(
      jnp.asarray(logits), jnp.asarray(labels)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    self.assertGreater(expected.sum(), 0)

  def test_constant(self):
    value = lambda z: error_perception.error_perception_matrix(
      z, jnp.array([0, 1])
    ).sum()
    logits = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    self.assertGreater(value(logits), 0)
    np.testing.assert_array_equal(jax.grad(value)(logits), 0)

  @parameterized.parameters(((4,), (4,)), ((2, 4), (2, 4)), ((2, 4), ()))
  def test_wrong_shapes_are_refused(self, logits, labels):
    with self.assertRaises(AssertionError):
      error_perception.error_perception_matrix(
        jnp.zeros(logits), jnp.zeros(labels, int)
      )

  def test_predictions_of_two_axes_are_refused(self):
    with self.assertRaises(AssertionError):
      error_perception.negative_logits(None, jnp.zeros((2, 2), int), 4)


class DrawTest(parameterized.TestCase):
  @parameterized.product(count=(1, 3, 9), table=(False, True))
  def test_exactly_count_and_never_the_prediction(self, count, table):
    rng = np.random.default_rng(0)
    predicted = jnp.asarray(rng.integers(0, 10, 2000))
    weights = 5.0 * jax.random.uniform(key(1), (10, 10)) if table else None
    found = error_perception.sample_negatives(
      key(), weights, predicted, 10, count
    )
    np.testing.assert_array_equal(found.sum(-1), count)
    self.assertFalse(found[jnp.arange(2000), predicted].any())

  @parameterized.parameters(1, 2, 4)
  def test_equal_probability(self, count):
    """Invariant 21: each other class is drawn with probability m / (K - 1)."""
    predicted = jnp.full(DRAWS, 3)
    by_ep = error_perception.sample_negatives(
      key(), None, predicted, 10, count
    ).mean(0)
    expected = np.full(10, count / 9)
    expected[3] = 0
    np.testing.assert_allclose(by_ep, expected, atol=1e-2)
    # EPM before any mistake is EP: the same classes from the same key.
    by_epm = error_perception.sample_negatives(
      key(), jnp.zeros((10, 10)), predicted, 10, count
    )
    np.testing.assert_array_equal(by_epm.mean(0), by_ep)

  def test_one_by_one_in_proportion_to_the_softmax(self):
    """Draws without replacement: the second follows from what is left."""
    table = jnp.log(jnp.array([[9.0, 1.0, 2.0, 5.0]] * 4))
    found = error_perception.sample_negatives(
      key(), table, jnp.zeros(DRAWS, int), 4, 2
    )
    weights = {1: 1 / 8, 2: 2 / 8, 3: 5 / 8}
    expected = np.zeros(4)
    for first, p in weights.items():
      for second, q in weights.items():
        if first != second:
          both = p * q / (1 - p)
          expected[first] += both
          expected[second] += both
    np.testing.assert_allclose(found.mean(0), expected, atol=1e-2)

  def test_a_huge_entry_is_always_drawn_unless_predicted(self):
    table = jnp.zeros((5, 5)).at[:, 2].set(100.0)
    found = error_perception.sample_negatives(
      key(), table, jnp.arange(5).repeat(50), 5, 1
    )
    found = found.reshape(5, 50, 5)
    for predicted in range(5):
      always = found[predicted, :, 2].all()
      self.assertEqual(bool(always), predicted != 2)

  @parameterized.parameters(0, 10, 11, -1)
  def test_wrong_count(self, count):
    with self.assertRaisesRegex(errors.UserError, 'count=.* set it to 1 to 9'):
      error_perception.sample_negatives(
        key(), None, jnp.zeros(3, int), 10, count
      )


class WeightedSubsetTest(absltest.TestCase):
  def test_log_weights_need_not_be_normalized(self):
    weights = jnp.log(jnp.array([[1.0, 2.0, 3.0]])).repeat(100, 0)
    one, other = (
      negative_samplers.weighted_subset(key(), weights + shift, 2)
      for shift in (0.0, 4.0)
    )
    np.testing.assert_array_equal(one, other)


class TheoremTest(parameterized.TestCase):
  @parameterized.parameters(
    (10, 0.5, 1, 0.0556),
    (10, 0.5, 3, 0.1667),
    (10, 0.7, 4, 0.1333),
    (100, 0.5, 3, 0.01515),
  )
  def test_wrong_negatives(self, classes, accuracy, count, expected):
    """Theorem 3.1: the true class is among the negatives of an image with
    probability (1 - q) m / (K - 1), against 1 - q for a pseudo label."""
    predicted = predicted_right(classes, accuracy, count)
    found = error_perception.sample_negatives(
      key(count), None, jnp.asarray(predicted), classes, count
    )
    self.assertAlmostEqual(
      (1 - accuracy) * count / (classes - 1), expected, delta=5e-5
    )
    self.assertAlmostEqual(float(found[:, 0].mean()), expected, delta=6e-3)

  @parameterized.parameters((1, 0.10494), (2, 0.02469), (3, 0.00992))
  def test_the_same_negatives_from_both(self, count, expected):
    """Theorem 3.2 in its exact form (F-D3 ... F-D5): two networks that agree
    with probability q draw the same set with probability
    q / C(K-1, m) + (1 - q) C(K-2, m) / C(K-1, m)^2."""
    classes, agreement = 10, 0.5
    sets, others = math.comb(classes - 1, count), math.comb(classes - 2, count)
    exact = agreement / sets + (1 - agreement) * others / sets**2
    self.assertAlmostEqual(exact, expected, delta=5e-6)
    second = predicted_right(classes, agreement, count)
    first = jnp.zeros(DRAWS, int)
    one, two = (
      error_perception.sample_negatives(
        key(seed), None, jnp.asarray(p), classes, count
      )
      for seed, p in enumerate((first, second))
    )
    same = np.asarray((one == two).all(-1).mean())
    self.assertAlmostEqual(float(same), exact, delta=2e-3)
    printed = agreement / sets + (1 - agreement) / others  # equations 29, 30
    self.assertGreater(printed - exact, 4e-3)


if __name__ == '__main__':
  absltest.main()
