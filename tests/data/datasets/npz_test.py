"""A user's own arrays as a data set."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.data import normalize, sources
from nsl_jax.data.datasets import npz

IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
FEATURES = np.arange(12.0).reshape(6, 2)
LABELS = np.array([3, 5, -1, 3, -1, 5])


class ArraysTest(parameterized.TestCase):
  def test_gray_images(self):
    source = npz.of_arrays((IMAGES, LABELS))
    self.assertEqual(source.train.images.shape, (6, 4, 4, 1))
    np.testing.assert_array_equal(source.train.labels, [0, 1, -1, 0, -1, 1])
    self.assertEqual(source.classes, ('3', '5'))
    self.assertEmpty(source.test.labels)
    self.assertIsNone(source.validation)

  def test_features(self):
    source = npz.of_arrays((FEATURES, LABELS))
    self.assertEqual(source.train.images.shape, (6, 1, 1, 2))
    self.assertEqual(source.train.images.dtype, np.float32)

  @parameterized.parameters('', '-1')
  def test_words(self, unknown):
    y = np.array(['b', 'a', unknown, 'b', unknown, 'a'])
    source = npz.of_arrays((FEATURES, y))
    np.testing.assert_array_equal(source.train.labels, [1, 0, -1, 1, -1, 0])
    self.assertEqual(source.classes, ('a', 'b'))

  def test_objects_that_are_words(self):
    y = np.array(['b', 'a', '', 'b', '-1', 'a'], object)
    source = npz.of_arrays((FEATURES, y))
    np.testing.assert_array_equal(source.train.labels, [1, 0, -1, 1, -1, 0])

  def test_names_of_numbers(self):
    y = np.array([0, 2, 1, -1, 0, 2])
    source = npz.of_arrays((FEATURES, y), names=('cat', 'dog', 'fox'))
    np.testing.assert_array_equal(source.train.labels, y)
    self.assertEqual(source.classes, ('cat', 'dog', 'fox'))

  @parameterized.parameters(
    ([0, 2, 0, 2, -1, -1], ('cat', 'dog', 'fox')),
    ([0, 1, 2, 0, 1, 2], ('cat', 'dog')),
    (['fox', 'cat', 'fox', 'cat', '', ''], ('fox', 'cat')),
  )
  def test_names_that_would_be_of_other_classes(self, y, names):
    with self.assertRaisesRegex(
      errors.UserError, 'names of classes, but y has'
    ):
      npz.of_arrays((FEATURES, np.array(y)), names=names)

  def test_given_parts(self):
    source = npz.of_arrays(
      (FEATURES, LABELS),
      validation=(FEATURES[:2] + 50, [5, 3]),
      test=(FEATURES[:1] + 90, [5]),
    )
    np.testing.assert_array_equal(source.validation, [6, 7])
    np.testing.assert_array_equal(source.train.labels[6:], [1, 0])
    self.assertEqual(source.train.images[6, 0, 0, 0], 50)
    np.testing.assert_array_equal(source.test.labels, [1])

  @parameterized.parameters(
    ((IMAGES.astype(float), LABELS), 'float64[6, 4, 4]'),
    ((np.zeros((6, 4, 4, 2), np.uint8), LABELS), '2 channels'),
    ((FEATURES[:5], LABELS), 'shape [6] for 5 examples'),
    (([IMAGES[0], IMAGES[1, :2]], LABELS), 'examples of different shapes'),
    ((FEATURES, LABELS.astype(float)), 'kind float64'),
    ((FEATURES, np.full(6, -1)), '0 classes'),
    ((FEATURES, np.full(6, 2)), '1 classes'),
    (
      (np.where(FEATURES == 4, np.nan, FEATURES), LABELS),
      'NaN or an infinity in 1 rows, the first in row 2',
    ),
    ((np.array([['a']] * 6), LABELS), 'images as uint8'),
  )
  def test_wrong_arrays(self, pair, words):
    with self.assertRaises(errors.UserError) as caught:
      npz.of_arrays(pair)
    self.assertIn(words, str(caught.exception))

  @parameterized.parameters(
    ((FEATURES[:, :1], LABELS), 'is (1, 1, 1) per example'),
    ((FEATURES, LABELS), '2 test examples have no label'),
    ((FEATURES, np.full(6, 4)), 'test y has class 4'),
    ((FEATURES, np.array(list('010101'))), 'test y is <U1, and training y int'),
  )
  def test_wrong_test_arrays(self, pair, words):
    with self.assertRaises(errors.UserError) as caught:
      npz.of_arrays((FEATURES, LABELS), test=pair)
    self.assertIn(words, str(caught.exception))


class FileTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.path = pathlib.Path(folder, 'data.npz')

  def test_load(self):
    np.savez(self.path, x=FEATURES, y=LABELS, x_test=FEATURES, y_test=[3] * 6)
    source = sources.load('npz', str(self.path))
    self.assertLen(source.test.labels, 6)
    self.assertIn('2 unlabeled', source.report[0])
    self.assertIn('3 2, 5 2', source.report[0])

  @parameterized.parameters(
    (dict(x=FEATURES), 'has the arrays x'),
    (dict(x=FEATURES, y=LABELS, z=LABELS), 'has the arrays x, y, z'),
    (dict(x=FEATURES, y=LABELS, x_test=FEATURES), 'only one of x_test and'),
    (dict(x=FEATURES, y=np.array([None] * 6)), 'without objects'),
  )
  def test_wrong_files(self, arrays, words):
    np.savez(self.path, **arrays)
    with self.assertRaises(errors.UserError) as caught:
      sources.load('npz', str(self.path))
    self.assertIn(words, str(caught.exception))

  def test_damaged_files(self):
    for content in (None, b'', b'junk'):
      if content is not None:
        self.path.write_bytes(content)
      with self.assertRaisesRegex(errors.UserError, 'cannot be read'):
        sources.load('npz', str(self.path))


class NormalizeTest(absltest.TestCase):
  def test_features_are_standardized(self):
    x = npz.as_images(np.stack([FEATURES[:, 0], np.full(6, 7.0)], 1))
    fitted = normalize.fit('standard', x)
    found = np.asarray(normalize.apply('standard', fitted, x))
    np.testing.assert_allclose(found[:, 0, 0, 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(found[:, 0, 0, 0].std(), 1, atol=1e-6)
    np.testing.assert_array_equal(found[..., 1], 0)  # a constant one

  def test_small_units_are_standardized(self):
    x = np.random.default_rng(0).normal(size=(50, 3)) * [1e-9, 1.0, 0.0]
    x = (x + [0.0, 0.0, 7.0]).astype(np.float32)[:, None, None]
    for kind in ('standard', 'common'):
      fitted = normalize.fit(kind, 1e-8 * x)
      found = np.asarray(normalize.apply(kind, fitted, 1e-8 * x))
      self.assertBetween(found.std((0, 1, 2)).max(), 0.99, 2.0)
    found = np.asarray(
      normalize.apply('standard', normalize.fit('standard', x), x)
    )
    np.testing.assert_allclose(found.std((0, 1, 2)), [1.0, 1.0, 0.0], atol=1e-3)

  def test_unit_leaves_features(self):
    x = npz.as_images(FEATURES)
    found = normalize.apply('unit', normalize.fit('unit', x), x)
    np.testing.assert_array_equal(found, x)

  def test_other_kinds_are_for_images(self):
    with self.assertRaisesRegex(errors.UserError, 'is not for features; '):
      normalize.fit('gcn_zca', npz.as_images(FEATURES))
    with self.assertRaisesRegex(errors.UserError, 'is not for images'):
      normalize.fit('common', npz.as_images(IMAGES))

  def test_one_scale_for_all(self):
    x = npz.as_images(np.array([[0.0, 0.0], [2.0, 14.0]]))  # stds 1 and 7
    found = normalize.apply('common', normalize.fit('common', x), x)
    # mean 1 and 7; the root of the mean of 1 and 49 is 5.
    np.testing.assert_allclose(
      np.asarray(found)[:, 0, 0], [[-0.2, -1.4], [0.2, 1.4]], atol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
