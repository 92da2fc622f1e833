"""Mixing of images and labels, and interleaving, against loops."""

import math
from unittest import mock

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from absl.testing import absltest, parameterized
from model_helpers import quick_jit
from scipy import special, stats
from softmax_toy import B, K

from nsl_jax.compose import mixing
from nsl_jax.methods import mixmatch


class MixAllTest(parameterized.TestCase):
  def mix(self, labels, seed, per_batch):
    """Mixing matrix M, f64[N, N], and mixed labels, of rows that are all
    alone in their pixel.
    """
    rows = len(labels)
    with numeric.float64():
      mixed = quick_jit(
        lambda key: mixmatch.mix_all(
          jnp.eye(rows).reshape(rows, 1, rows, 1),
          jnp.asarray(labels),
          key,
          alpha=0.75,
          per_batch=per_batch,
        )
      )(jax.random.key(seed))
    return (
      np.asarray(mixed.images).reshape(rows, rows),
      np.asarray(mixed.labels),
    )

  @parameterized.parameters(False, True)
  def test_against_a_loop(self, per_batch):
    """Invariant 16: rows of sum 1, each nearest to its own source; one
    permutation and the same shares for images and labels.
    """
    labels = np.random.default_rng(0).dirichlet(np.ones(K), 3 * B)
    matrix, mixed = self.mix(labels, 0, per_batch)
    others, shares = [], np.diag(matrix)
    for i, row in enumerate(matrix):
      rest = [j for j in range(3 * B) if j != i and row[j] > 0]
      other = rest[0] if rest else i
      share = row[i] if rest else 1.0
      self.assertBetween(share, 0.5, 1.0)
      np.testing.assert_allclose(
        mixed[i], share * labels[i] + (1 - share) * labels[other]
      )
      own = np.linalg.norm(row - np.eye(3 * B)[i])
      self.assertLessEqual(own, np.linalg.norm(row - np.eye(3 * B)[other]))
      others.append(other)
    self.assertCountEqual(others, range(3 * B))
    self.assertNotEqual(others, list(range(3 * B)))
    np.testing.assert_allclose(mixed.sum(1), 1.0, rtol=1e-12)
    moved = shares[np.array(others) != np.arange(3 * B)]
    self.assertLen(np.unique(moved.round(12)), 1 if per_batch else len(moved))

  def test_classes_keep_their_total(self):
    """Invariant 16: exactly with one share for the batch, else on average."""
    labels = np.random.default_rng(1).dirichlet(np.full(K, 0.3), 12)
    _, mixed = self.mix(labels, 0, True)
    np.testing.assert_allclose(mixed.sum(0), labels.sum(0), rtol=1e-12)
    draw = lambda key: mixmatch.mix_all(
      jnp.zeros((12, 1, 1, 1)),
      jnp.asarray(labels, jnp.float32),
      key,
      alpha=0.75,
      per_batch=False,
    ).labels.sum(0)
    drawn = np.asarray(
      quick_jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 500))
    )
    gap = drawn - labels.sum(0)
    self.assertGreater(np.abs(gap).mean(), 0.1)
    error = gap.std(0) / math.sqrt(len(gap))
    np.testing.assert_array_less(np.abs(gap.mean(0)), 4 * error)

  def test_mixing_with_oneself(self):
    """Invariant 16: the identity permutation changes nothing."""
    labels = np.random.default_rng(2).dirichlet(np.ones(K), 9)
    with mock.patch.object(
      jax.random, 'permutation', lambda key, rows: jnp.arange(rows)
    ):
      matrix, mixed = self.mix(labels, 0, False)
    np.testing.assert_allclose(matrix, np.eye(9), rtol=0, atol=1e-15)
    np.testing.assert_allclose(mixed, labels, rtol=1e-14)


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
