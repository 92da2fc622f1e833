"""Images that are in two splits are found, whatever they are used for."""

import time

import numpy as np
from absl.testing import absltest

from nsl_jax.data import duplicates, examples


def different(count, side=4):
  """Images that all differ, u8[N, side, side, 1]."""
  images = np.zeros((count, side, side, 1), np.uint8)
  images[:, 0, 0, 0] = np.arange(count) % 256
  images[:, 0, 1, 0] = np.arange(count) // 256
  return images


class AcrossTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    images = different(60)
    self.train, self.test = images[:40], images[40:]
    self.rows = {
      'labeled': np.array([3, 9, 1]),
      'validation': np.array([20, 21]),
      'unlabeled': np.arange(30, 40),
    }

  def across(self):
    return duplicates.across(self.train, self.rows, self.test)

  def test_none(self):
    self.assertEqual(self.across(), [])

  def test_which_are_compared(self):
    self.assertTrue(duplicates.are_few((2**20, 64, 64, 1)))
    self.assertFalse(duplicates.are_few((2**20 + 1, 64, 64, 1)))
    self.assertTrue(duplicates.are_compared(self.train))

  def test_each_pair_with_images_to_evaluate_on(self):
    self.train[3] = self.train[9] = self.test[7]
    self.test[12] = self.test[7]
    self.train[21] = self.train[31] = self.test[2]
    self.assertEqual(
      self.across(),
      [
        '1 of the 2 validation images are also unlabeled images (first pair: '
        'training row 21, training row 31)',
        '2 of the 3 labeled images are also test images (first pair: training '
        'row 3, test row 7)',
        '1 of the 2 validation images are also test images (first pair: '
        'training row 21, test row 2)',
        '1 of the 10 unlabeled images are also test images (first pair: '
        'training row 31, test row 2)',
      ],
    )

  def test_files_are_named(self):
    self.train[3] = self.test[7]
    files = examples.Files(
      tuple(f'a{row}.png' for row in range(40)),
      tuple(f'b{row}.png' for row in range(20)),
    )
    (line,) = duplicates.across(self.train, self.rows, self.test, files)
    self.assertIn('(first pair: a3.png, b7.png)', line)

  def test_copies_that_are_only_learnt_from(self):
    self.train[3] = self.train[30]  # labeled and unlabeled
    self.train[25] = self.test[0]  # a row of no split
    self.rows['unlabeled'] = np.array([3, 9, 30])
    self.assertEqual(self.across(), [])

  def test_one_level_of_one_pixel_is_another_image(self):
    self.train[3] = self.test[7]
    self.train[3, 3, 3, 0] ^= 1
    self.assertEqual(self.across(), [])

  def test_strided_images(self):
    self.train[3] = self.test[7]
    self.train = np.asfortranarray(self.train)
    self.assertLen(self.across(), 1)

  def test_is_fast(self):
    images = different(61_000, side=28)
    images = np.concatenate([images, images[:9_000]])
    rows = {'labeled': np.arange(100), 'unlabeled': np.arange(100, 60_000)}
    started = time.process_time()
    lines = duplicates.across(images[:60_000], rows, images[60_000:])
    self.assertLess(time.process_time() - started, 1.0)
    self.assertEqual([line.split()[0] for line in lines], ['100', '8,900'])


if __name__ == '__main__':
  absltest.main()
