"""The file of a split: what it keeps, and what its hashes tell apart."""

import hashlib
import pathlib
import tempfile

import numpy as np
import temporary
from absl.testing import absltest, parameterized
from split_inputs import labels_of, make

from nsl_jax import errors
from nsl_jax.data import split_file, splits


class ContentTest(parameterized.TestCase):
  """The same rows of a set in another order are other images."""

  def setUp(self):
    super().setUp()
    self.labels = labels_of(*(10,) * 10)
    rng = np.random.default_rng(0)
    self.images = rng.integers(0, 256, (100, 4, 4, 1), np.uint8)
    self.split = make(self.labels)

  def test_tells_another_order(self):
    first = split_file.content_sha256(self.split, self.images, self.labels)
    self.assertEqual(
      first,
      split_file.content_sha256(
        self.split, self.images.copy(), self.labels.copy()
      ),
    )
    order = np.concatenate(
      [  # within the classes, so that rows stay the same
        np.roll(np.flatnonzero(self.labels == k), 1) for k in range(10)
      ]
    )
    where = np.concatenate(
      [np.flatnonzero(self.labels == k) for k in range(10)]
    )
    moved = self.images.copy()
    moved[where] = self.images[order]
    self.assertEqual(make(self.labels).sha256(), self.split.sha256())
    self.assertNotEqual(
      first, split_file.content_sha256(self.split, moved, self.labels)
    )

  def test_tells_another_label(self):
    labels = self.labels.copy()
    labels[self.split.labeled[0]] += 1
    self.assertNotEqual(
      split_file.content_sha256(self.split, self.images, self.labels),
      split_file.content_sha256(self.split, self.images, labels),
    )

  def test_hash_by_hand(self):
    """Name, count, shape of an image, images and labels of each use."""
    rows = lambda *numbers: np.array(numbers, np.int32)
    split = splits.Split(rows(0, 2), rows(1), rows(), rows(3))
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3, 1)
    text = b'labeled:2:(2, 3, 1);' + bytes([*range(6), *range(12, 18)])
    text += bytes([7, 0, 0, 0, 9, 0, 0, 0])
    text += b'validation:0:(2, 3, 1);'
    text += b'holdout:1:(2, 3, 1);' + bytes(range(18, 24)) + bytes(4)
    self.assertEqual(
      split_file.content_sha256(split, images, np.array([7, 8, 9, 0], '<i4')),
      hashlib.sha256(text).hexdigest(),
    )

  def test_unlabeled_images_do_not_count(self):
    images = self.images.copy()
    images[self.split.unlabeled] = 0
    self.assertEqual(
      split_file.content_sha256(self.split, self.images, self.labels),
      split_file.content_sha256(self.split, images, self.labels),
    )

  def test_is_kept_in_the_file(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    hashes = split_file.Hashes(content='abc', pixels='d')
    split_file.save(self.split, folder / 'split.npz', hashes)
    self.assertEqual(split_file.load_hashes(folder / 'split.npz'), hashes)


class FileTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    self.path = self.folder / 'split.npz'

  @parameterized.parameters(0, 10)
  def test_round_trip(self, validation):
    split = make(labels_of(*(10,) * 10), validation=validation)
    split_file.save(split, self.path)
    read = split_file.load(str(self.path))
    self.assertEqual(read.sha256(), split.sha256())
    for before, after in zip(split, read):
      np.testing.assert_array_equal(before, after)
      self.assertEqual(after.dtype, np.int32)
    self.assertEqual(list(self.folder.iterdir()), [self.path])

  def test_save_replaces(self):
    labels = labels_of(*(10,) * 10)
    split_file.save(make(labels), self.path)
    split_file.save(make(labels, seed=1), self.path)
    self.assertEqual(
      split_file.load(self.path).sha256(), make(labels, seed=1).sha256()
    )

  @parameterized.parameters('empty', 'half', 'text', 'bytes', 'array', 'field')
  def test_damaged(self, damage):
    split_file.save(make(labels_of(*(10,) * 10)), self.path)
    good = self.path.read_bytes()
    if damage == 'array':
      with self.path.open('wb') as file:
        np.save(file, np.arange(3))
    elif damage == 'field':
      np.savez(self.path, labeled=np.arange(3))
    else:
      self.path.write_bytes(
        {
          'empty': b'',
          'half': good[: len(good) // 2],
          'text': b'hello\n',
          'bytes': good[:150] + b'\xff' * 9 + good[159:],
        }[damage]
      )
    with self.assertRaisesRegex(errors.UserError, 'split.npz is damaged') as e:
      split_file.load(self.path)
    self.assertNotIn('\n', str(e.exception))

  def test_absent(self):
    with self.assertRaisesRegex(errors.UserError, 'split.npz'):
      split_file.load(self.path)


if __name__ == '__main__':
  absltest.main()
