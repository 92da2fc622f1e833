"""Adversarial directions against linear oracles, mixing against loops."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special, stats

from nsl_jax import losses
from nsl_jax.compose import mixing
from nsl_jax.terms import power_iteration


class DirectionTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
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


class MixTest(parameterized.TestCase):
  def test_sharpen(self):
    """Invariant 15."""
    probs = jnp.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(
      mixing.sharpen(probs, 0.5)[0], [0.657895, 0.236842, 0.105263], atol=1e-6
    )
    np.testing.assert_allclose(mixing.sharpen(probs, 1.0), probs, rtol=1e-6)
    np.testing.assert_allclose(
      mixing.sharpen(probs, 1e-2), [[1, 0, 0], [0, 0, 1]], atol=1e-6
    )
    half = np.asarray(probs) ** 2
    np.testing.assert_allclose(
      mixing.sharpen(probs, 0.5), half / half.sum(1, keepdims=True), rtol=1e-5
    )

  @parameterized.parameters(0.1, 0.5, 1.0, 2.0)
  def test_sharpen_against_a_loop(self, temperature):
    """Invariant 15: rows of sum 1 whose order is that of the rows given."""
    probs = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    found = mixing.sharpen(jnp.asarray(probs, jnp.float32), temperature)
    for row, sharp in zip(probs, np.asarray(found)):
      powers = [p ** (1 / temperature) for p in row]
      want = [power / sum(powers) for power in powers]
      np.testing.assert_allclose(sharp, want, rtol=2e-5, atol=1e-9)
      self.assertAlmostEqual(float(sharp.sum()), 1.0, places=6)
      self.assertEqual(sharp.argsort().tolist(), row.argsort().tolist())

  def test_sharpen_of_a_probability_of_0(self):
    """The logarithm of 0 must reach neither the value nor the gradient."""
    probs = jnp.array([[1.0, 0.0, 0.0]])
    np.testing.assert_allclose(mixing.sharpen(probs, 0.5), probs)
    weights = jnp.array([[1.0, 2.0, 3.0]])
    slope = jax.grad(lambda p: (weights * mixing.sharpen(p, 0.5)).sum())(probs)
    self.assertTrue(np.isfinite(slope).all())

  @parameterized.parameters(0.25, 0.75, 1.0)
  def test_ratio_is_the_larger_part_of_a_beta(self, alpha):
    """P(max(b, 1 - b) <= x) = F(x) - F(1 - x) for b ~ Beta(alpha, alpha)."""
    drawn = mixing.mix_ratio(jax.random.key(0), alpha, 2000, per_batch=False)
    beta = stats.beta(alpha, alpha)
    test = stats.kstest(
      np.asarray(drawn), lambda x: beta.cdf(x) - beta.cdf(1 - x)
    )
    self.assertGreater(test.pvalue, 0.01)

  @parameterized.parameters(
    (0.1, 1e-4),
    (0.4, 1e-6),
    (0.75, 1e-6),
    (1.0, 1e-6),
    (2.0, 1e-6),
    (16.0, 1e-4),
  )
  def test_ratio_at_a_probability(self, alpha, tolerance):
    """P(min(b, 1 - b) <= m) = 2 I_m(alpha, alpha)."""
    probability = np.linspace(1e-4, 1, 3001, endpoint=False)
    ratio = mixing.ratio_at(jnp.asarray(probability, jnp.float32), alpha)
    want = 1 - special.betaincinv(alpha, alpha, probability / 2)
    np.testing.assert_allclose(ratio, want, rtol=0, atol=tolerance)
    self.assertEqual(mixing.ratio_at(jnp.zeros(1), alpha), 1.0)

  def test_ratio(self):
    """Invariant 16: in [1/2, 1], one a row, or one for all."""
    each = mixing.mix_ratio(jax.random.key(0), 0.75, 500, per_batch=False)
    self.assertBetween(float(each.min()), 0.5, 0.51)
    self.assertBetween(float(each.max()), 0.99, 1.0)
    one = mixing.mix_ratio(jax.random.key(0), 0.75, 500, per_batch=True)
    self.assertLen(set(one.tolist()), 1)

  def test_mix_against_a_loop(self):
    rng = np.random.default_rng(0)
    rows, others = rng.normal(size=(2, 4, 2, 3)).astype(np.float32)
    ratio = np.array([0.5, 0.6, 0.9, 1.0], np.float32)
    want = [r * a + (1 - r) * b for r, a, b in zip(ratio, rows, others)]
    mixed = mixing.mix(jnp.asarray(rows), jnp.asarray(others), ratio)
    np.testing.assert_allclose(mixed, want, rtol=1e-6)

  @parameterized.parameters((64, 3), (7, 3), (8, 4), (10, 2))
  def test_interleave_against_a_loop(self, rows, count):
    """Invariant 17: an involution that permutes rows."""
    chunks = [np.arange(rows) + 100 * i for i in range(count)]
    cuts = [0]
    for i in range(count):  # whole parts first, the remainder to the last
      cuts.append(cuts[-1] + rows // count + (i >= count - rows % count))
    want = [chunk.copy() for chunk in chunks]
    for i in range(1, count):
      piece = slice(cuts[i], cuts[i + 1])
      want[0][piece], want[i][piece] = chunks[i][piece], chunks[0][piece]
    found = mixing.interleave([jnp.asarray(chunk) for chunk in chunks])
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(mixing.interleave(found), chunks)

  def test_interleave_of_images(self):
    """Rows are the first axis alone; one chunk stays as it is."""
    images = np.arange(48.0).reshape(2, 3, 8)
    found = mixing.interleave([jnp.asarray(chunk) for chunk in images])
    want = images.copy()
    want[0, 1:], want[1, 1:] = images[1, 1:], images[0, 1:]
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(
      mixing.interleave([jnp.asarray(images[0])]), images[:1]
    )

  @parameterized.parameters(
    lambda: mixing.sharpen(jnp.ones(3), 0.5),
    lambda: mixing.mix(jnp.ones((2, 3)), jnp.ones((1, 3)), jnp.ones(2)),
    lambda: mixing.interleave([jnp.ones(4), jnp.ones(6)]),
  )
  def test_wrong_shapes_are_refused(self, call):
    with self.assertRaises(AssertionError):
      call()

  def test_interleave_of_mixmatch(self):
    """Invariant 17: what each of the three chunks of 64 holds."""
    chunks = [jnp.full(64, i) for i in range(3)]
    found = mixing.interleave(chunks)
    held = [np.bincount(chunk, minlength=3).tolist() for chunk in found]
    self.assertEqual(held, [[21, 21, 22], [21, 43, 0], [22, 0, 42]])
    rows = np.arange(192)
    places = np.concatenate(mixing.interleave(jnp.split(rows, 3)))
    moved = [place for place in rows if places[place] != place]
    swaps = [*range(21, 42), *range(42, 64), *range(85, 106), *range(170, 192)]
    self.assertEqual(moved, swaps)


if __name__ == '__main__':
  absltest.main()
