"""Long tails, classes without labels, and very few labels."""

import hashlib

import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.data import examples, open_set, sources, splits
from nsl_jax.training import config as config_lib, config_checks, pipeline

K = 5


def labels_of(*counts, seed=1):
  labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
  return np.random.default_rng(seed).permutation(labels)


def make(labels, num_classes=K, **changed):
  options = dict(
    labeled=20,
    validation=0,
    rule='balanced',
    validation_rule='balanced',
    seed=0,
  )
  return splits.make(labels, num_classes, **(options | changed))


def counts(labels, rows, num_classes=K):
  return np.bincount(labels[rows], minlength=num_classes).tolist()


class UnlabeledTest(absltest.TestCase):
  """Long tails and a choice of classes together."""

  def test_the_largest_class_that_there_is_keeps_all(self):
    labels = np.repeat(np.arange(5), 40)
    split = make(
      labels, labeled=5, unlabeled_classes=(2, 4), imbalance_unlabeled=16.0
    )
    # Shares of classes 2 and 4 are 1/4 and 1/16 of the first: 1 to 1/4.
    self.assertEqual(counts(labels, split.unlabeled), [0, 0, 39, 0, 10])

  def test_labeled_images_of_other_classes_stay_out(self):
    labels = np.repeat(np.arange(5), 40)
    split = make(
      labels,
      labeled=10,
      unlabeled_classes=(2, 4),
      unlabeled_includes_labeled=True,
    )
    self.assertEqual(counts(labels, split.unlabeled), [0, 0, 40, 0, 40])


class LongTailTest(parameterized.TestCase):
  def test_labeled_by_hand(self):
    """gamma = 16 in five classes: 16, 8, 4, 2, 1, of 31."""
    labels = labels_of(*(100,) * K)
    split = make(labels, labeled=31, imbalance=16.0)
    self.assertEqual(counts(labels, split.labeled), [16, 8, 4, 2, 1])
    split = make(labels, labeled=31, imbalance=1 / 16)
    self.assertEqual(counts(labels, split.labeled), [1, 2, 4, 8, 16])

  def test_unlabeled_by_hand(self):
    """The largest class keeps all its 84 images: 84, 42, 21, 10.5, 5.25."""
    labels = labels_of(*(100,) * K)
    split = make(labels, labeled=31, imbalance=16.0, imbalance_unlabeled=16.0)
    self.assertEqual(counts(labels, split.unlabeled), [84, 42, 21, 10, 5])
    self.assertEmpty(np.intersect1d(split.unlabeled, split.labeled))
    both = make(
      labels,
      labeled=31,
      imbalance=16.0,
      imbalance_unlabeled=16.0,
      unlabeled_includes_labeled=True,
    )
    np.testing.assert_array_equal(
      both.unlabeled, np.union1d(split.unlabeled, split.labeled)
    )

  def test_every_class_has_a_label(self):
    labels = labels_of(*(100,) * K)
    split = make(labels, labeled=6, imbalance=1000.0)
    self.assertEqual(counts(labels, split.labeled), [2, 1, 1, 1, 1])

  def test_seeds_differ_and_repeat(self):
    labels = labels_of(*(100,) * K)
    made = [
      make(labels, imbalance=9.0, imbalance_unlabeled=9.0, seed=seed)
      for seed in (0, 0, 1)
    ]
    self.assertEqual(made[0].sha256(), made[1].sha256())
    self.assertNotEqual(made[0].sha256(), made[2].sha256())

  def test_too_few_images_of_a_class(self):
    with self.assertRaisesRegex(errors.UserError, '16 images of class 0'):
      make(labels_of(9, *(100,) * 4), labeled=31, imbalance=16.0)

  def test_unlabeled_images_of_no_known_class(self):
    labels = labels_of(*(100,) * K)
    labels[:7] = -1
    with self.assertRaisesRegex(errors.UserError, 'and 7 have none: set it'):
      make(labels, imbalance_unlabeled=2.0)

  @parameterized.parameters(
    ('data.imbalance', '0', 'must be > 0, 1 for none'),
    ('data.imbalance_unlabeled', '-2', 'must be > 0, 1 for none'),
  )
  def test_wrong_values(self, field, value, message):
    config = config_lib.load('configs/digits_ns3l.py', [(field, value)])
    with self.assertRaisesRegex(errors.UserError, message):
      config_checks.check(config)

  def test_a_rule_and_an_imbalance(self):
    config = config_lib.load(
      'configs/digits_ns3l.py',
      [('data.imbalance', '9'), ('data.rule', 'uniform')],
    )
    with self.assertRaisesRegex(errors.UserError, 'set it to balanced'):
      config_checks.check(config)


def source_of(labels, test):
  arrays = lambda labels: sources.Arrays(
    np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), labels
  )
  return sources.Source('toy', K, arrays(labels), arrays(test), 'a note')


class OpenSetTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.labels = labels_of(*(20,) * K)
    self.source = source_of(self.labels, np.arange(10, dtype=np.int32) % K)

  def test_unknown_classes_are_unlabeled_only(self):
    """Classes 1 and 3 of five; 0, 2, 4 become 0, 1, 2."""
    found = open_set.without_classes(self.source, (3, 1))
    self.assertEqual(found.num_classes, 3)
    self.assertEqual(found.class_names, ('0', '2', '4'))
    self.assertEqual(found.note, 'a note; no label of class 3, 1')
    renamed = np.array([0, -1, 1, -1, 2])
    np.testing.assert_array_equal(found.train.labels, renamed[self.labels])
    np.testing.assert_array_equal(found.train.images, self.source.train.images)
    # Rows of the test images 0, 2, 4, 5, 7, 9.
    self.assertEqual(found.test.images.ravel().tolist(), [0, 2, 4, 5, 7, 9])
    self.assertEqual(found.test.labels.tolist(), [0, 1, 2, 0, 1, 2])
    split = make(found.train.labels, 3, labeled=12, validation=6)
    used = np.concatenate([split.labeled, split.validation])
    self.assertTrue((found.train.labels[used] >= 0).all())
    self.assertEqual(counts(self.labels, split.unlabeled)[1::2], [20, 20])

  @parameterized.parameters(
    # Unlabeled classes, images left of each class in the unlabeled set.
    ((), [16, 20, 16, 20, 16]),
    ((0, 1), [16, 20, 0, 0, 0]),
    ((1, 3), [0, 20, 0, 20, 0]),
    ((0, 2), [16, 0, 16, 0, 0]),
  )
  def test_classes_of_the_unlabeled_images(self, unlabeled, left):
    config = config_lib.load('configs/digits_ns3l.py')
    config = config.copy_and_resolve_references().unlock()
    config.data.update(
      unknown_classes=(1, 3),
      unlabeled_classes=unlabeled,
      labeled=12,
      validation=0,
    )
    found = pipeline.selected(self.source, config)
    split = pipeline.split_of(config, found, 0)
    rows = found.train.images[split.unlabeled].ravel()  # as they were numbered
    self.assertEqual(counts(self.labels, rows), left)
    rows = found.train.images[split.labeled].ravel()
    self.assertEqual(counts(self.labels, rows), [4, 0, 4, 0, 4])

  @parameterized.parameters((), (1, 2))
  def test_validation_images_of_unknown_classes_are_left_out(self, *unlabeled):
    images = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)
    train = examples.Arrays(images, labels)
    source = examples.Source(
      'x', 3, train, train, '', validation=np.array([4, 5, 6], np.int32)
    )
    found = open_set.without_classes(source, (0,), unlabeled)
    kept = found.train.images[found.validation].ravel()
    self.assertEqual(kept.tolist(), [4, 5])
    self.assertEqual(found.train.labels[found.validation].tolist(), [0, 1])

  def test_nothing_to_do(self):
    self.assertIs(open_set.without_classes(self.source, ()), self.source)

  @parameterized.parameters(
    ((5,), (), 'unknown_classes=.5,.: 5 is not a class of toy'),
    ((), (-1,), 'unlabeled_classes=.-1,.: -1 is not a class'),
    ((1, 1), (), 'names a class twice'),
    ((0, 1, 2, 3), (), 'leaves 1 of 5 classes'),
  )
  def test_wrong_classes(self, unknown, unlabeled, message):
    with self.assertRaisesRegex(errors.UserError, message):
      open_set.without_classes(self.source, unknown, unlabeled)

  def test_points_have_no_classes(self):
    points = np.zeros((4, 10), np.float32)
    source = source_of(points, points)._replace(num_classes=0)
    with self.assertRaisesRegex(errors.UserError, 'has points and no classes'):
      open_set.without_classes(source, (1,))


class FewLabelsTest(parameterized.TestCase):
  @parameterized.parameters((1, 'c7da9f'), (4, '7ff461'), (25, 'ad42f7'))
  def test_the_images_of_a_seed_never_change(self, each, digest):
    """1, 4 and 25 labels a class with seeds 0 to 4, of 50,000 images."""
    labels = (np.arange(50_000) * 7 % 10).astype(np.int32)
    made = [
      make(labels, 10, labeled=10 * each, seed=seed).labeled
      for seed in range(5)
    ]
    for rows in made:
      self.assertEqual(counts(labels, rows, 10), [each] * 10)
    joined = np.concatenate(made).astype('<i4').tobytes()
    self.assertEqual(hashlib.sha256(joined).hexdigest()[:6], digest)


if __name__ == '__main__':
  absltest.main()
