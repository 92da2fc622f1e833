"""Tests of the arrays kept on disk."""

import os
import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax.data import cache


def _pair() -> cache.ArrayPair:
  images = np.arange(2 * 3 * 3 * 1, dtype=np.uint8).reshape(2, 3, 3, 1)
  return images, np.array([1, 0], np.int32)


class FetchTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.path = pathlib.Path(folder) / 'a' / 'x.arrays'
    self.make = mock.Mock(side_effect=_pair)

  def assert_pair(self, pair):
    for got, want in zip(pair, _pair(), strict=True):
      np.testing.assert_array_equal(got, want)
      self.assertEqual(got.dtype, want.dtype)

  def test_second_fetch_reads_the_file(self):
    self.assert_pair(cache.fetch(self.path, 'k', self.make))
    self.assert_pair(cache.fetch(self.path, 'k', self.make))
    self.make.assert_called_once()
    self.assertEqual(os.listdir(self.path.parent), ['x.arrays'])

  def test_another_key_makes_again_and_replaces(self):
    cache.fetch(self.path, 'k', self.make)
    cache.fetch(self.path, 'other', self.make)
    cache.fetch(self.path, 'other', self.make)
    self.assertEqual(self.make.call_count, 2)

  @parameterized.parameters(0, 10, 70, 120, -1, -12)
  def test_truncated_entry_is_made_again(self, length):
    cache.fetch(self.path, 'k', self.make)
    self.path.write_bytes(self.path.read_bytes()[:length])
    self.assert_pair(cache.fetch(self.path, 'k', self.make))
    self.assert_pair(cache.fetch(self.path, 'k', self.make))
    self.assertEqual(self.make.call_count, 2)

  def test_no_flipped_bit_is_believed(self):
    cache.fetch(self.path, 'k', self.make)
    sound = self.path.read_bytes()
    for place in range(len(sound)):
      if sound[place] == ord('\n'):
        continue
      damaged = bytearray(sound)
      damaged[place] ^= 1
      self.path.write_bytes(damaged)
      self.make.reset_mock()
      self.assert_pair(cache.fetch(self.path, 'k', self.make))
      self.make.assert_called_once()

  def test_longer_file_is_made_again(self):
    cache.fetch(self.path, 'k', self.make)
    self.path.write_bytes(self.path.read_bytes() + b'\0')
    self.assert_pair(cache.fetch(self.path, 'k', self.make))
    self.assertEqual(self.make.call_count, 2)

  def test_unwritable_folder_only_warns(self):
    self.path.parent.parent.joinpath('a').write_text('a file, not a folder')
    with self.assertLogs(level='WARNING') as logs:
      self.assert_pair(cache.fetch(self.path, 'k', self.make))
    self.assertIn('NSL_JAX_CACHE', logs.output[0])

  def test_failed_write_leaves_nothing_behind(self):
    with mock.patch.object(os, 'replace', side_effect=OSError('full')):
      self.assert_pair(cache.fetch(self.path, 'k', self.make))
    self.assertEqual(os.listdir(self.path.parent), [])

  def test_counts_are_kept_beside_the_arrays(self):
    make = mock.Mock(side_effect=lambda: (_pair(), {'a': 3, 'b': 0}))
    for _ in range(2):
      pair, counts = cache.fetch_counted(self.path, 'k', make)
      self.assert_pair(pair)
      self.assertEqual(counts, {'a': 3, 'b': 0})
    make.assert_called_once()
    self.assertEqual(os.listdir(self.path.parent), ['x.arrays'])

  def test_entry_keeps_other_shapes_and_types(self):
    pair = (np.zeros((0, 2, 2, 3), np.uint8), np.arange(6.0).reshape(2, 3).T)
    cache.fetch(self.path, 'k', lambda: pair)
    for got, want in zip(cache.fetch(self.path, 'k', self.make), pair):
      np.testing.assert_array_equal(got, want)
    self.make.assert_not_called()


class DigestTest(absltest.TestCase):
  def test_every_byte_counts_and_the_layout_does_not(self):
    array = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    other = array.copy()
    other.view(np.uint8)[2, 15] ^= 1
    found = {
      cache.digest(header, [first, second])
      for header in (b'', b'x')
      for first in (array, other)
      for second in (array, other)
    }
    self.assertLen(found, 8)
    strided = np.stack([array, other], axis=2)[..., 0]
    self.assertEqual(cache.digest(b'', [strided]), cache.digest(b'', [array]))


class FingerprintTest(absltest.TestCase):
  def test_path_size_and_time_count(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    a, b = folder / 'a', folder / 'b'
    a.write_text('x')
    b.write_text('x')
    os.utime(a, ns=(1, 1))
    os.utime(b, ns=(1, 1))
    seen = {cache.fingerprint([a]), cache.fingerprint([b])}
    a.write_text('xy')
    os.utime(a, ns=(1, 1))
    seen.add(cache.fingerprint([a]))
    os.utime(a, ns=(1, 2))
    seen.add(cache.fingerprint([a]))
    self.assertLen(seen, 4)
    self.assertEqual(cache.fingerprint([a, b]), cache.fingerprint([b, a]))


class DirectoryTest(parameterized.TestCase):
  @parameterized.parameters(
    ('/arg', {'NSL_JAX_CACHE': '/own', 'XDG_CACHE_HOME': '/xdg'}, '/arg'),
    (None, {'NSL_JAX_CACHE': '/own', 'XDG_CACHE_HOME': '/xdg'}, '/own'),
    (None, {'XDG_CACHE_HOME': '/xdg'}, '/xdg/nsl_jax'),
    (None, {'HOME': '/home/a'}, '/home/a/.cache/nsl_jax'),
  )
  def test_order(self, argument, environment, want):
    with mock.patch.dict(os.environ, environment, clear=True):
      self.assertEqual(cache.directory(argument), pathlib.Path(want))


if __name__ == '__main__':
  absltest.main()
