"""FreeMatch's fairness against its equation in NumPy."""

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special

from nsl_jax.terms import fairness

K = 4


def fairness_by_hand(logits, weights, mean, histogram):
  probs = special.softmax(logits, -1)
  predicted = np.eye(K)[probs.argmax(-1)]
  share = lambda x: x / x.sum()
  over = lambda x, y: np.divide(x, y, out=np.zeros(K), where=y > 0)
  target = share(over(mean, histogram))
  batch = (weights[:, None] * probs).sum(0) / weights.sum()
  counts = (weights[:, None] * predicted).sum(0) / weights.sum()
  return (target * np.log(share(over(batch, counts)) + 1e-12)).sum()


class FairnessTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(3)
    self.logits = rng.normal(size=(7, K))
    self.logits[:, 3] -= 5.0  # a class that is never predicted
    self.mean, self.histogram = rng.dirichlet(np.ones(K), 2)

  @parameterized.parameters(
    ([1, 0, 1, 1, 0, 1, 1],), ([1, 0.5, 0.2] + [0.7] * 4,)
  )
  def test_equation_and_gradient(self, weights):
    weights = np.array(weights, float)
    by_hand = lambda logits: fairness_by_hand(
      logits, weights, self.mean, self.histogram
    )
    loss = lambda logits: fairness.fairness_loss(
      logits, *map(jnp.float32, (weights, self.mean, self.histogram))
    )
    found, gradient = jax.value_and_grad(loss)(jnp.float32(self.logits))
    np.testing.assert_allclose(found, by_hand(self.logits), rtol=1e-5)
    np.testing.assert_allclose(
      gradient, numeric.slope(by_hand, self.logits), atol=1e-5
    )
    np.testing.assert_array_equal(gradient[weights == 0.0], 0.0)

  def test_two_classes_by_hand(self):
    """Both means are even: the target is (1/2, 1/2), the batch's share too."""
    logits = jnp.log(jnp.array([[0.8, 0.2], [0.2, 0.8]]))
    even = jnp.full(2, 0.5)
    found = fairness.fairness_loss(logits, jnp.ones(2), even, even)
    np.testing.assert_allclose(found, np.log(0.5), rtol=1e-6)

  def test_without_a_confident_image(self):
    loss = lambda logits: fairness.fairness_loss(
      logits, jnp.zeros(7), *map(jnp.float32, (self.mean, self.histogram))
    )
    found, gradient = jax.value_and_grad(loss)(jnp.float32(self.logits))
    self.assertEqual(found, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)

  def test_a_class_not_predicted_for_long(self):
    """Its average is subnormal, which counts as 0, or a little above that."""
    histogram = lambda *last: jnp.array([0.5, 0.5, *last], jnp.float32)
    loss = lambda last: fairness.fairness_loss(
      jnp.float32(self.logits),
      jnp.ones(7),
      jnp.float32(self.mean),
      histogram(*last),
    )
    self.assertEqual(loss([0.0, 1e-39]), loss([0.0, 0.0]))
    self.assertTrue(jnp.isfinite(loss([2e-38, 2e-38])))

  def test_averages_are_constant(self):
    args = (
      jnp.float32(self.logits),
      jnp.ones(7),
      *map(jnp.float32, (self.mean, self.histogram)),
    )
    for which in (1, 2, 3):
      gradient = jax.grad(fairness.fairness_loss, which)(*args)
      np.testing.assert_array_equal(gradient, 0.0)


if __name__ == '__main__':
  absltest.main()
