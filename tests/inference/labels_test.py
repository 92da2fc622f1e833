"""Labels of every kind of column, and rows that have none."""

import numpy as np
from absl.testing import absltest

from nsl_jax.inference import labels


class LabelsTest(absltest.TestCase):
  def test_missing_labels(self):
    """None and NaN, in columns of every kind."""
    for y in (
      np.array([0.0, 1.0, np.nan]),
      np.array(['a', None, 'b'], object),
      np.array(['a', float('nan'), 'b'], object),
      np.array([1, None], object),
    ):
      for unlabeled in (None, np.nan, np.float32('nan')):
        found = labels._is_unlabeled(y, unlabeled)
        wanted = [value is None or value != value for value in y.tolist()]
        self.assertEqual(found.tolist(), wanted)
    y = np.array([0.0, np.nan])
    self.assertEqual(labels._is_unlabeled(y, -1).tolist(), [False] * 2)

  def test_marks_of_every_kind_of_column(self):
    marked = lambda y: labels._is_unlabeled(y, -1).tolist()
    for y in (
      np.array(['a', '-1', 'b']),
      np.array(['a', '-1', 'b'], object),
      np.array(['a', -1, 'b'], object),
    ):
      self.assertEqual(marked(y), [False, True, False])
    self.assertEqual(marked(np.array([3, -1, 2], object)), [False, True, False])
    with self.assertRaisesRegex(ValueError, "unlabeled='-1' is a word, and y"):
      labels._is_unlabeled(np.array([0, -1]), '-1')

  def test_words_beside_nan_in_a_list(self):
    y, labeled = labels.read(['a', 'b', float('nan'), 'a'], np.nan)
    self.assertEqual(labeled.tolist(), [True, True, False, True])
    classes, _ = labels.classes(y, labeled)
    self.assertEqual(classes.tolist(), ['a', 'b'])

  def test_whole_numbers_stay_whole(self):
    numbers = np.array([np.int64(3), None, np.int64(5)], object)
    y, labeled = labels.read(numbers, None)
    classes, _ = labels.classes(y, labeled)
    self.assertEqual((classes.dtype, classes.tolist()), (np.int64, [3, 5]))
    classes, _ = labels.classes(np.array([1, 2, -1], np.int8), np.arange(3) < 2)
    self.assertEqual(classes.dtype, np.int8)
    halves = np.array([0.5, None, 1.5], object)
    with self.assertRaisesRegex(ValueError, 'continuous'):
      labels.classes(halves, np.array([True, False, True]))


if __name__ == '__main__':
  absltest.main()
