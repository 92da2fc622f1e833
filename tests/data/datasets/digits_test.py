"""The digits of scikit-learn: a fixed split, levels as bytes."""

from unittest import mock

import numpy as np
from absl.testing import absltest
from sklearn import datasets

from nsl_jax.data import sources
from nsl_jax.data.datasets import digits


class DigitsTest(absltest.TestCase):
  def test_fixed_balanced_split(self):
    source = sources.load('digits')
    self.assertEqual(source.train.images.shape, (1437, 8, 8, 1))
    self.assertEqual(source.test.images.shape, (360, 8, 8, 1))
    self.assertEqual(source.train.images.dtype, np.uint8)
    self.assertEqual(source.train.images.max(), 255)
    self.assertEqual(np.bincount(source.test.labels).tolist(), [36] * 10)
    second_pass = sources.load('digits')
    np.testing.assert_array_equal(source.test.images, second_pass.test.images)

  def test_the_file_is_that_of_scikit_learn(self):
    bunch = datasets.load_digits()
    table = np.column_stack([bunch.data, bunch.target])
    np.testing.assert_array_equal(digits._table(), table)
    with mock.patch.object(digits.pathlib.Path, 'is_file', lambda _: False):
      np.testing.assert_array_equal(digits._table(), table)

  def test_levels_are_rounded(self):
    images = sources.load('digits').train.images
    levels = {round(value * 255 / 16) for value in range(17)}
    self.assertEqual(set(np.unique(images).tolist()), levels)


if __name__ == '__main__':
  absltest.main()
