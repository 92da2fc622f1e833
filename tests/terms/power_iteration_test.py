"""Adversarial directions against linear oracles, mixing against loops."""

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import losses
from nsl_jax.terms import power_iteration


class DirectionTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(numeric.float64())
    keys = jax.random.split(jax.random.key(0), 3)
    draw = lambda key, *shape: jax.random.normal(key, shape, jnp.float64)
    self.weights = draw(keys[0], 6, 4)
    self.images, self.start = draw(keys[1], 5, 6), draw(keys[2], 5, 6)
    self.network = lambda images: images @ self.weights
    self.logits, self.jvp = jax.linearize(self.network, self.images)

  def drift(self, change, key):
    moved = self.network(self.images + change)
    return losses.kl_divergence(self.logits, moved).mean()

  def oracle(self, direction):
    """W (diag p - p p^T) W^T d, row by row."""
    rows = []
    for p, d in zip(np.asarray(jax.nn.softmax(self.logits)), direction):
      fisher = np.diag(p) - np.outer(p, p)
      rows.append(self.weights @ fisher @ self.weights.T @ d)
    return np.stack(rows)

  def test_fisher_product_is_exact(self):
    """The oracle of a linear softmax network."""
    found = power_iteration.fisher_vector_product(
      self.jvp, self.logits, self.start
    )
    np.testing.assert_allclose(found, self.oracle(self.start), rtol=1e-12)

  @parameterized.parameters(1, 3)
  def test_both_modes_find_the_oracle(self, iterations):
    """Invariant 10: cosine above 0.999 at xi = 1e-2 in float64."""
    direction = np.asarray(self.start)
    for _ in range(iterations):
      direction = self.oracle(direction)
      direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    probed = power_iteration.adversarial_direction(
      self.drift, self.start, jax.random.key(0), xi=1e-2, iterations=iterations
    )
    exact = power_iteration.exact_adversarial_direction(
      self.jvp, self.logits, self.start, iterations=iterations
    )
    self.assertGreater((probed * direction).sum(1).min(), 0.999)
    np.testing.assert_allclose(exact, direction, atol=1e-6)

  def test_every_probe_has_its_own_key(self):
    """F-N6: each pass of the finite difference augments anew."""
    keys = []

    def drift(change, key):
      keys.append(tuple(jax.random.key_data(key).tolist()))
      return self.drift(change, key)

    power_iteration.adversarial_direction(
      drift, self.start, jax.random.key(0), xi=1e-2, iterations=3
    )
    self.assertLen(set(keys), 3)

  @parameterized.parameters(1e-6, 1e6)
  def test_the_length_of_the_start_does_not_matter(self, scale):
    def directions(start):
      return (
        power_iteration.exact_adversarial_direction(
          self.jvp, self.logits, start, iterations=1
        ),
        power_iteration.adversarial_direction(
          self.drift, start, jax.random.key(0), xi=1e-2, iterations=1
        ),
      )

    for found, expected in zip(
      directions(scale * self.start), directions(self.start)
    ):
      np.testing.assert_allclose(found, expected, atol=1e-5)

  def test_lengths(self):
    """Invariant 10: the norm is 1 to 1e-6 for every row."""
    for scale in (1e-6, 1.0, 1e6):
      norms = jnp.linalg.norm(
        power_iteration.normalize(scale * self.start), axis=1
      )
      np.testing.assert_allclose(norms, 1.0, rtol=1e-6)
    np.testing.assert_array_equal(
      power_iteration.normalize(0.0 * self.start), 0.0
    )

  @parameterized.product(exact=(True, False), eps=(0.01, 0.5))
  def test_worst_is_worse_than_random(self, exact, eps):
    """Invariant 10: KL(clean || moved) is at least that of a random change of
    the same length, on average over the random ones in every image.
    """
    if exact:
      worst = power_iteration.exact_adversarial_direction(
        self.jvp, self.logits, self.start, iterations=1
      )
    else:
      worst = power_iteration.adversarial_direction(
        self.drift, self.start, jax.random.key(1), xi=1e-2, iterations=1
      )

    def moved(direction):
      after = self.network(self.images + eps * direction)
      return losses.kl_divergence(self.logits, after)

    others = jax.vmap(power_iteration.normalize)(
      jax.random.normal(
        jax.random.key(0), (500, *self.start.shape), jnp.float64
      )
    )
    random = jax.vmap(moved)(others).mean(0)
    self.assertTrue((moved(worst) > 1.5 * random).all())

  def test_no_gradient_through_the_direction(self):
    def worst(weights):
      logits, jvp = jax.linearize(lambda x: x @ weights, self.images)
      return power_iteration.exact_adversarial_direction(
        jvp, logits, self.start, iterations=1
      ).sum()

    np.testing.assert_array_equal(jax.grad(worst)(self.weights), 0.0)

  @parameterized.parameters(
    (jnp.float32, 1e-6, 0.95),
    (jnp.bfloat16, None, 0.99),
    (jnp.float32, None, 0.9999),
  )
  def test_precision(self, dtype, xi, cosine):
    """F-N6: an xi of 1e-6 is lost in float32, the exact direction is not."""
    hidden = 0.3 * jax.random.normal(jax.random.key(5), (6, 32), jnp.float64)
    out = 0.3 * jax.random.normal(jax.random.key(6), (32, 4), jnp.float64)
    network = lambda dtype: (
      lambda x: (
        jnp.tanh(x.astype(dtype) @ hidden.astype(dtype)) @ out.astype(dtype)
      ).astype(jnp.promote_types(dtype, jnp.float32))
    )
    logits, jvp = jax.linearize(network(jnp.float64), self.images)
    true = power_iteration.exact_adversarial_direction(
      jvp, logits, self.start, iterations=1
    )
    images = self.images.astype(jnp.float32)
    start = self.start.astype(jnp.float32)
    logits, jvp = jax.linearize(network(dtype), images)
    if xi is None:
      found = power_iteration.exact_adversarial_direction(
        jvp, logits, start, iterations=1
      )
      self.assertGreater((found * true).sum(1).mean(), cosine)
    else:
      drift = lambda change, key: losses.kl_divergence(
        logits, network(dtype)(images + change)
      ).mean()
      found = power_iteration.adversarial_direction(
        drift, start, jax.random.key(7), xi=xi, iterations=1
      )
      self.assertLess((found * true).sum(1).mean(), cosine)

  @parameterized.parameters(15.0, 18.0, 25.0)
  def test_confident_images(self, gap):
    """The probability of the first class rounds to 1."""
    weights = jax.random.normal(jax.random.key(8), (6, 4), jnp.float64)
    found = []
    for dtype in (jnp.float64, jnp.float32):
      bias = jnp.array([[gap, 0.0, 0.0, 0.0]], dtype)
      logits, jvp = jax.linearize(
        lambda x: 0.1 * x @ weights.astype(dtype) + bias,
        self.images.astype(dtype),
      )
      found.append(
        power_iteration.exact_adversarial_direction(
          jvp, logits, self.start.astype(dtype), iterations=1
        )
      )
    np.testing.assert_allclose((found[0] * found[1]).sum(1), 1.0, atol=1e-4)

  @parameterized.parameters(30.0, 40.0, 60.0)
  def test_length_on_very_confident_images(self, gap):
    """The product is of the size of the probability of the other classes."""
    weights = jax.random.normal(jax.random.key(8), (6, 4))
    bias = jnp.array([[gap, 0.0, 1.0, 0.0]])
    logits, jvp = jax.linearize(lambda x: 0.1 * x @ weights + bias, self.images)
    found = power_iteration.exact_adversarial_direction(
      jvp, logits, self.start, iterations=1
    )
    np.testing.assert_allclose((found**2).sum(1), 1.0, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
