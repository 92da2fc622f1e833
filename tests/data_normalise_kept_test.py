"""Whitening is fitted once for the same images, then read from disk."""

import contextlib
import io
import os
import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax.data import normalize


class KeptTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.images = rng.integers(0, 256, (300, 6, 6, 3), np.uint8)
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder) / 'cache'

  def fit(self, images=None, kind='gcn_zca', folder=None):
    """The fitted arrays, and what was printed."""
    err = io.StringIO()
    images = self.images if images is None else images
    with contextlib.redirect_stderr(err):
      fitted = normalize.fit(kind, images, cache_dir=folder or self.folder)
    return fitted, err.getvalue()

  def assert_same(self, got, want):
    self.assertEqual(got.keys(), want.keys())
    for name, value in want.items():
      self.assertEqual(
        (got[name].dtype, got[name].shape), (value.dtype, value.shape)
      )
      self.assertEqual(got[name].tobytes(), value.tobytes(), name)

  def test_second_fit_reads_the_same_bits(self):
    first, said = self.fit()
    self.assertEqual(
      said, 'fitting the whitening matrix of 300 images, once ...\n'
    )
    self.assert_same(first, normalize.whitening(self.images))
    self.assertLen(os.listdir(self.folder), 1)
    with mock.patch.object(normalize, 'whitening') as whitening:
      second, said = self.fit(self.images.copy())
    whitening.assert_not_called()
    self.assertEqual(said, '')
    self.assert_same(second, first)

  def test_one_changed_pixel_is_fitted_anew(self):
    first, _ = self.fit()
    images = self.images.copy()
    images[7, 3, 2, 1] ^= 1
    second, said = self.fit(images)
    self.assertIn('once', said)
    self.assert_same(second, normalize.whitening(images))
    self.assertFalse(np.array_equal(first['matrix'], second['matrix']))
    self.assertEqual(self.fit()[1], '')  # Both are kept.

  def test_another_shape_of_the_same_bytes_is_fitted_anew(self):
    self.fit()
    wide = self.images.reshape(300, 3, 12, 3)
    self.assertIn('once', self.fit(wide)[1])

  @parameterized.parameters('_VERSION', '_NORM', '_REGULARISER')
  def test_another_way_of_fitting_is_fitted_anew(self, name):
    self.fit()
    with mock.patch.object(normalize, name, getattr(normalize, name) + 1):
      fitted, said = self.fit()
      self.assertIn('once', said)
      self.assert_same(fitted, normalize.whitening(self.images))
    self.assertEqual(self.fit()[1], '')

  @parameterized.parameters(-1, 200, 3000, -3000)
  def test_damage_is_fitted_anew(self, place):
    first, _ = self.fit()
    entry = next(self.folder.iterdir())
    content = bytearray(entry.read_bytes())
    content[place] ^= 255
    entry.write_bytes(content)
    second, said = self.fit()
    self.assertIn('once', said)
    self.assert_same(second, first)
    self.assertEqual(self.fit()[1], '')

  def test_cache_that_cannot_be_written_only_warns(self):
    self.folder.write_text('a file, not a folder')
    with self.assertLogs(level='WARNING') as logs:
      fitted, _ = self.fit()
    self.assert_same(fitted, normalize.whitening(self.images))
    self.assertIn('NSL_JAX_CACHE', logs.output[0])

  @parameterized.parameters('unit', 'signed', 'standard')
  def test_what_is_quick_is_not_kept(self, kind):
    self.assertEqual(self.fit(kind=kind)[1], '')
    self.assertFalse(self.folder.exists())

  def test_default_folder(self):
    with mock.patch.dict(os.environ, NSL_JAX_CACHE=str(self.folder)):
      normalize.fit('gcn_zca', self.images)
    self.assertEqual(self.fit()[1], '')


if __name__ == '__main__':
  absltest.main()
