"""Samplers of negative labels: which classes, how many, how often."""

import collections
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from nsl_jax import errors
from nsl_jax.terms import negative_samplers

ROWS, K = 8000, 10
TRUE = np.arange(ROWS, dtype=np.int32) % K
DISTANCE = np.random.default_rng(0).uniform(size=(ROWS, K)).astype(np.float32)
SIDE = {
  negative_samplers.DISTANCE: DISTANCE,
  negative_samplers.TRUE_CLASS: TRUE,
}
RANK = DISTANCE.argsort(-1).argsort(-1)  # 0 is the nearest class
# Name: sampler, options, negatives per row, classes per row that may be drawn.
EVERY = np.ones((ROWS, K), bool)
DRAWN = {
  'uniform1': ('uniform', {'count': 1}, 1, EVERY),
  'uniform3': ('uniform', {'count': 3}, 3, EVERY),
  'nearest': ('exclude_nearest', {'exclude': 1, 'count': 1}, 1, RANK >= 1),
  'nearest4': ('exclude_nearest', {'exclude': 4, 'count': 1}, 1, RANK >= 4),
  'nearest4_all': ('exclude_nearest', {'exclude': 4, 'count': 6}, 6, RANK >= 4),
  'oracle1': ('oracle', {'count': 1}, 1, TRUE[:, None] != np.arange(K)),
  'oracle3': ('oracle', {'count': 3}, 3, TRUE[:, None] != np.arange(K)),
}


@functools.cache
def compiled(name, options):
  return jax.jit(negative_samplers.build(name, **dict(options)))


def draw(name, *, seed=0, per_image_tables=None, target_probs=None, **options):
  """A sampler's mask for ROWS rows, in numpy."""
  target_probs = (
    jnp.full((ROWS, K), 1 / K) if target_probs is None else target_probs
  )
  per_image_tables = SIDE if per_image_tables is None else per_image_tables
  sample = compiled(name, tuple(sorted(options.items())))
  return np.asarray(
    sample(target_probs, per_image_tables, jax.random.key(seed))
  )


class DrawnTest(parameterized.TestCase):
  @parameterized.parameters(*DRAWN)
  def test_count_and_allowed_classes(self, case):
    """Invariant 8: excluded classes never come, and the count is exact."""
    name, options, count, allowed = DRAWN[case]
    found = draw(name, **options)
    self.assertEqual((found.shape, found.dtype), ((ROWS, K), bool))
    np.testing.assert_array_equal(found.sum(-1), count)
    self.assertFalse((found & ~allowed).any())

  @parameterized.parameters(
    ('uniform', 1, 0.1),
    ('uniform', 3, 0.3),
    ('oracle', 1, 0.0),
    ('oracle', 3, 0.0),
  )
  def test_true_class_among_the_negatives(self, name, count, expected):
    """Invariant 8, within 4 standard errors."""
    found = draw(name, seed=1, count=count)[np.arange(ROWS), TRUE].mean()
    error = math.sqrt(expected * (1 - expected) / ROWS)
    self.assertLessEqual(abs(found - expected), 4 * error)

  @parameterized.parameters(*(case for case in DRAWN if case != 'nearest4_all'))
  def test_uniform_over_the_allowed(self, case):
    """Every set of allowed classes is as likely, by a chi-squared test."""
    name, options, count, allowed = DRAWN[case]
    found = draw(name, seed=2, **options)
    rank = np.where(allowed, np.cumsum(allowed, -1) - 1, -1)
    sets = collections.Counter(tuple(row[hit]) for row, hit in zip(rank, found))
    every = list(itertools.combinations(range(allowed[0].sum()), count))
    observed = [sets[s] for s in every]
    self.assertEqual(sum(observed), ROWS)
    self.assertGreater(stats.chisquare(observed).pvalue, 1e-3)

  @parameterized.parameters(*DRAWN)
  def test_only_the_key_makes_the_draw(self, case):
    """F-N17: one key always gives one draw, another key another."""
    name, options, _, _ = DRAWN[case]
    first = draw(name, **options)
    np.testing.assert_array_equal(draw(name, **options), first)
    other = (draw(name, seed=9, **options) != first).any(-1).mean()
    self.assertEqual(other > 0.5, case != 'nearest4_all')

  def test_only_the_oracle_reads_the_true_class(self):
    per_image_tables = {**SIDE, negative_samplers.TRUE_CLASS: (TRUE + 1) % K}
    for name, options, _, _ in DRAWN.values():
      moved = draw(name, per_image_tables=per_image_tables, **options) != draw(
        name, **options
      )
      self.assertEqual(moved.any(), name == 'oracle')

  @parameterized.parameters(
    ('uniform', {'count': 3}),
    ('oracle', {'count': 3}),
    ('exclude_nearest', {'exclude': 2, 'count': 2}),
    ('exclude_nearest', {'exclude': 0, 'count': 3}),
  )
  def test_no_room_for_that_many(self, name, options):
    """Three classes: all of them, or an excluded one, would be drawn."""
    per_image_tables = {
      negative_samplers.DISTANCE: DISTANCE[:1, :3],
      negative_samplers.TRUE_CLASS: TRUE[:1],
    }
    with self.assertRaisesRegex(
      errors.UserError, rf'count={options["count"]} .*set 1 to [12]$'
    ):
      draw(
        name,
        per_image_tables=per_image_tables,
        target_probs=jnp.full((1, 3), 1 / 3),
        **options,
      )

  @parameterized.parameters(
    ('uniform', {'count': 2}),
    ('oracle', {'count': 2}),
    ('exclude_nearest', {'exclude': 0, 'count': 2}),
    ('exclude_nearest', {'exclude': 1, 'count': 2}),
  )
  def test_room_for_just_that_many(self, name, options):
    """Two of three classes."""
    per_image_tables = {
      negative_samplers.DISTANCE: DISTANCE[:1, :3],
      negative_samplers.TRUE_CLASS: TRUE[:1],
    }
    found = draw(
      name,
      per_image_tables=per_image_tables,
      target_probs=jnp.full((1, 3), 1 / 3),
      **options,
    )
    self.assertEqual((found.shape, found.dtype), ((1, 3), bool))
    self.assertEqual(found.sum(), 2)

  @parameterized.parameters('random_subset', 'weighted_subset')
  def test_one_row_without_its_axis_is_refused(self, name):
    subset = getattr(negative_samplers, name)
    dtype = bool if name == 'random_subset' else jnp.float32
    with self.assertRaises(AssertionError):
      subset(jax.random.key(0), jnp.ones(3, dtype), 1)


class FixedTest(parameterized.TestCase):
  def test_furthest_is_deterministic(self):
    """Invariant 8: the class of largest distance, whatever the key."""
    expected = np.eye(K, dtype=bool)[DISTANCE.argmax(-1)]
    for seed in 0, 1:
      np.testing.assert_array_equal(draw('furthest', seed=seed), expected)

  def test_nearest_classes_by_hand(self):
    distance = jnp.array([[3.0, 1.0, 2.0, jnp.inf], [0.0, 0.5, 0.1, 0.2]])
    np.testing.assert_array_equal(
      negative_samplers.nearest_classes(distance, 2),
      [[False, True, True, False], [True, False, True, False]],
    )

  @parameterized.parameters(
    ([0.7, 0.2, 0.1], 0.5, [0, 1, 1]),
    ([0.7, 0.2, 0.1], 0.15, [0, 0, 1]),
    ([0.7, 0.2, 0.1], 0.05, [0, 0, 0]),
    ([0.5, 0.25, 0.25], 0.25, [0, 0, 0]),  # strictly below
    ([0.7, 0.2, 0.1], 0.9, [0, 1, 1]),  # above all: the best one stays
    ([0.4, 0.4, 0.2], 0.9, [0, 0, 1]),  # and so does one that ties with it
    ([0.25, 0.25, 0.25, 0.25], 1.0, [0, 0, 0, 0]),
  )
  def test_threshold_by_hand(self, target_probs, threshold, expected):
    """The class believed most is never a negative."""
    found = draw(
      'threshold', threshold=threshold, target_probs=jnp.array([target_probs])
    )
    np.testing.assert_array_equal(found, [expected])

  def test_doubling_the_threshold_loses_no_negative(self):
    """Invariant 3."""
    target_probs = np.random.default_rng(0).dirichlet(np.ones(K), 200)
    found = [
      draw('threshold', threshold=2.0 ** (n - 7), target_probs=target_probs)
      for n in range(8)
    ]
    for less, more in itertools.pairwise(found):
      self.assertTrue((less <= more).all())
    np.testing.assert_array_equal(found[-1].sum(-1), K - 1)

  def test_threshold_reads_the_belief_alone(self):
    """It needs no table, and the key changes nothing."""
    target_probs = np.random.default_rng(1).dirichlet(np.ones(K), 50)
    first, other = (
      draw(
        'threshold',
        threshold=0.05,
        target_probs=target_probs,
        per_image_tables={},
        seed=seed,
      )
      for seed in (0, 1)
    )
    np.testing.assert_array_equal(first, other)
    self.assertTrue(first.any())


class BuildTest(parameterized.TestCase):
  @parameterized.parameters(
    ('thresold', {}, "unknown sampler 'thresold': did you mean 'threshold'"),
    ('uniform', {'cuont': 1}, "sampler 'uniform': .*'cuont'"),
    ('uniform', {'count': 0}, 'count=0: must be >= 1'),
    ('oracle', {'count': -1}, 'count=-1: must be >= 1'),
    ('exclude_nearest', {'count': 0}, 'count=0: must be >= 1'),
    ('exclude_nearest', {'exclude': -1}, 'exclude=-1: must be >= 0'),
    ('uniform', {'count': 1.0}, 'count=1.0: must be a whole number'),
    ('threshold', {'threshold': 0.0}, r'threshold=0.0: must be in \(0, 1\]'),
    ('threshold', {'threshold': 1.5}, r'threshold=1.5: must be in \(0, 1\]'),
    ('furthest', {'count': 1}, "sampler 'furthest': .*'count'"),
    ('oracle', {'count': 1, 'threshold': 1}, "sampler 'oracle': .*threshold"),
  )
  def test_errors_are_one_clear_line(self, name, options, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      negative_samplers.build(name, **options)
    self.assertNotIn('\n', str(caught.exception))

  def test_the_threshold_follows_the_number_of_classes(self):
    """0.004 of a hundred: no class of an untrained network is negative."""
    probs = jnp.full((1, 100), 0.01).at[0, 0].set(0.0039)
    sample = negative_samplers.build('threshold')
    found = np.asarray(sample(probs, {}, jax.random.key(0)))
    self.assertEqual(np.flatnonzero(found[0]).tolist(), [0])

  @parameterized.parameters(
    ('threshold', {'threshold': 0.04}),
    ('uniform', {'count': 1}),
    ('exclude_nearest', {'exclude': 4, 'count': 1}),
    ('oracle', {'count': 1}),
  )
  def test_missing_options(self, name, defaults):
    rng = np.random.default_rng(6)
    target_probs = jnp.asarray(rng.dirichlet(np.ones(K), ROWS), jnp.float32)
    np.testing.assert_array_equal(
      draw(name, target_probs=target_probs),
      draw(name, target_probs=target_probs, **defaults),
    )

  @parameterized.parameters(
    ('threshold', ()),
    ('uniform', ()),
    ('exclude_nearest', (negative_samplers.DISTANCE,)),
    ('furthest', (negative_samplers.DISTANCE,)),
    ('oracle', (negative_samplers.TRUE_CLASS,)),
  )
  def test_side_tables(self, name, expected):
    self.assertEqual(negative_samplers.per_image_tables(name), expected)

  def test_side_tables_of_an_unknown_sampler(self):
    with self.assertRaisesRegex(errors.UserError, 'unknown sampler'):
      negative_samplers.per_image_tables('nearest')


class ClassDistancesTest(parameterized.TestCase):
  @parameterized.parameters(1, 4, 7, 100)
  def test_against_a_loop(self, rows):
    """Any block size; classes 0, 3 and 5 have no labeled image."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (11, 4, 3, 2), np.uint8)
    labels = np.array([4, 1, 2, 1, 4, 4, 2, 1], np.int32)
    reference = rng.integers(0, 256, (8, 4, 3, 2), np.uint8)
    expected = np.full((11, 6), np.inf)
    for i, image in enumerate(images):
      for other, label in zip(reference, labels):
        gap = image.astype(float) - other.astype(float)
        expected[i, label] = min(expected[i, label], ((gap / 255.0) ** 2).sum())
    found = negative_samplers.class_distances(
      images, reference, labels, 6, rows=rows
    )
    self.assertEqual(found.dtype, np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

  def test_features_far_from_zero(self):
    rng = np.random.default_rng(6)
    images = rng.normal(1e4, 1.0, (40, 1, 1, 6)).astype(np.float32)
    labels = np.arange(20, dtype=np.int32) % 4
    found = negative_samplers.class_distances(images, images[:20], labels, 4)
    gaps = images[:, None].astype(float) - images[None, :20].astype(float)
    squares = ((gaps / 255.0) ** 2).sum((2, 3, 4))
    wanted = [squares[:, labels == k].min(1) for k in range(4)]
    np.testing.assert_allclose(found, np.stack(wanted, 1), rtol=1e-4, atol=1e-8)

  def test_excluding_every_class(self):
    sample = negative_samplers.exclude_nearest_sampler(exclude=3)
    tables = {negative_samplers.DISTANCE: jnp.ones((1, 3))}
    with self.assertRaisesRegex(errors.UserError, 'exclude=3 leaves none of 3'):
      sample(jnp.ones((1, 3)), tables, jax.random.key(0))

  def test_distance_to_itself(self):
    images = np.random.default_rng(4).integers(0, 256, (5, 8, 8, 1), np.uint8)
    labels = np.array([2, 0, 1, 4, 3], np.int32)
    found = negative_samplers.class_distances(images, images, labels, 5)
    np.testing.assert_allclose(found[np.arange(5), labels], 0.0, atol=1e-5)
    np.testing.assert_array_equal(found.argmin(-1), labels)
    self.assertTrue((found >= 0).all())

  def test_a_class_without_images_is_the_furthest(self):
    images = np.random.default_rng(5).integers(0, 256, (3, 4, 4, 1), np.uint8)
    table = negative_samplers.class_distances(
      images, images[:2], np.array([0, 2], np.int32), 3
    )
    found = negative_samplers.furthest_sampler()(
      jnp.zeros((3, 3)), {negative_samplers.DISTANCE: table}, jax.random.key(0)
    )
    np.testing.assert_array_equal(found, [[False, True, False]] * 3)


if __name__ == '__main__':
  absltest.main()
