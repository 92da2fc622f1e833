"""Normalization: by hand, and whitening by its algebra."""

import contextlib
import functools
import io
import os
import pathlib
import tempfile
import tracemalloc
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import real_data
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.data import normalize


def pictures(count, *shape, seed=0):
  """Smooth uint8 images, so that their pixels correlate as real ones do."""
  rng = np.random.default_rng(seed)
  steps = rng.normal(scale=12, size=(count, *shape)).cumsum(1).cumsum(2)
  return np.clip(128 + steps, 0, 255).astype(np.uint8)


def apply(kind, fitted, images):
  compiled = jax.jit(functools.partial(normalize.apply, kind))
  return np.asarray(compiled(fitted, jnp.asarray(images)))


@functools.cache
def real_pictures():
  """The middle 8x8 pixels of 2,000 images of CIFAR-10; None if not there."""
  found = real_data.first('cifar10', 2000, 'test')
  return found and found[0][:, 12:20, 12:20]


def exact_contrast(images):
  """The definition, in float64."""
  flat = images.reshape(len(images), -1).astype(np.float64)
  flat -= flat.mean(1, keepdims=True)
  norm = np.sqrt((flat**2).sum(1, keepdims=True))
  return 55 * flat / np.where(norm < 1e-10, 1, norm)


class SimpleTest(parameterized.TestCase):
  def test_no_rows(self):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    for kind in normalize.KINDS:
      found = normalize.apply(
        kind, normalize.fit(kind, images), jnp.asarray(images[:0])
      )
      self.assertEqual(found.shape, (0, 4, 4, 3))

  @parameterized.parameters(
    ('unit', [0, 51, 255], [0.0, 0.2, 1.0]),
    ('signed', [0, 51, 255], [-1.0, -0.6, 1.0]),
  )
  def test_by_hand(self, kind, levels, expected):
    images = np.array(levels, np.uint8).reshape(1, 3, 1, 1)
    fitted = normalize.fit(kind, images)
    self.assertEqual(fitted, {})
    found = apply(kind, fitted, images)
    self.assertEqual((found.shape, found.dtype), ((1, 3, 1, 1), np.float32))
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-6)

  def test_standard_by_hand(self):
    # Channel 0 has 0.2 and 0.6: mean 0.4, deviation 0.2. Channel 1 has 0 and
    # 1: mean and deviation 0.5.
    images = np.array([[51, 0], [153, 255]], np.uint8).reshape(2, 1, 1, 2)
    fitted = normalize.fit('standard', images)
    np.testing.assert_allclose(fitted['mean'], [0.4, 0.5], atol=1e-6)
    np.testing.assert_allclose(fitted['std'], [0.2, 0.5], atol=1e-6)
    np.testing.assert_allclose(
      apply('standard', fitted, images).reshape(2, 2),
      [[-1, -1], [1, 1]],
      atol=1e-5,
    )
    other = np.array([[102, 51]], np.uint8).reshape(1, 1, 1, 2)
    np.testing.assert_allclose(
      apply('standard', fitted, other).ravel(), [0, -0.6], atol=1e-5
    )

  @parameterized.parameters((200, 1), (200, 3), (5001, 3))
  def test_standard_moments(self, count, channels):
    images = pictures(count, 8, 8, channels)
    images[5000:] = 255  # which no block of images may leave out
    fitted = normalize.fit('standard', images)
    found = apply('standard', fitted, images)
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, atol=1e-4)
    shares = images.reshape(-1, channels) / 255.0
    np.testing.assert_allclose(fitted['mean'], shares.mean(0), rtol=1e-6)
    np.testing.assert_allclose(fitted['std'], shares.std(0), rtol=1e-6)

  def test_standard_takes_memory_for_a_few_images_only(self):
    peaks = []
    for count in (10_000, 40_000):
      images = np.broadcast_to(np.uint8(7), (count, 4, 4, 3))
      tracemalloc.start()
      normalize.fit('standard', images)
      peaks.append(tracemalloc.get_traced_memory()[1])
      tracemalloc.stop()
    self.assertLess(peaks[1], 1.5 * peaks[0])

  @parameterized.parameters('zca', 'Unit', '')
  def test_unknown_kind(self, kind):
    with self.assertRaisesRegex(
      errors.UserError, rf"config\.data\.normalize='{kind}': "
    ) as e:
      normalize.fit(kind, pictures(3, 4, 4, 1))
    self.assertNotIn('\n', str(e.exception))

  @parameterized.parameters(*normalize.KINDS)
  def test_numpy_and_jit_agree(self, kind):
    images = pictures(40, 6, 6, 3)
    fitted = normalize.fit(kind, images)
    np.testing.assert_allclose(
      normalize.apply(kind, fitted, images),
      apply(kind, fitted, images),
      rtol=2e-5,
      atol=2e-5,
    )

  @parameterized.parameters('standard', 'gcn_zca')
  def test_constant_channel_stays_finite(self, kind):
    images = pictures(30, 4, 4, 3)
    images[..., 1] = 7
    found = apply(kind, normalize.fit(kind, images), images)
    self.assertTrue(np.isfinite(found).all())
    if kind == 'standard':
      np.testing.assert_allclose(found[..., 1], 0, atol=1e-6)

  @parameterized.parameters(*normalize.KINDS)
  def test_rows_do_not_depend_on_each_other(self, kind):
    images = pictures(20, 6, 6, 3)
    fitted = normalize.fit(kind, images)
    np.testing.assert_allclose(
      apply(kind, fitted, images)[:3],
      apply(kind, fitted, images[:3]),
      rtol=2e-5,
      atol=2e-5,
    )


class ContrastTest(parameterized.TestCase):
  @parameterized.parameters(np.asarray, jnp.asarray)
  def test_mean_0_and_norm_55(self, convert):
    images = pictures(50, 32, 32, 3)
    flat = np.asarray(normalize.contrast(convert(images)), np.float64)
    self.assertEqual(flat.shape, (50, 3072))
    # Sums of 3,072 float32 numbers: relative rounding below 1e-5.
    np.testing.assert_allclose(flat.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(np.sqrt((flat**2).sum(1)), 55, rtol=1e-5)
    np.testing.assert_allclose(flat, exact_contrast(images), atol=1e-4)

  @parameterized.parameters(np.asarray, jnp.asarray)
  def test_no_contrast(self, convert):
    images = convert(np.full((2, 4, 4, 1), 9, np.uint8))
    np.testing.assert_array_equal(normalize.contrast(images), 0)


class WhiteningTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.images = pictures(300, 6, 6, 3)
    self.fitted = normalize.fit('gcn_zca', self.images)
    flat = exact_contrast(self.images)
    self.values, self.vectors = np.linalg.eigh(np.cov(flat.T, ddof=1))

  def test_matrix_is_symmetric(self):
    matrix = self.fitted['matrix']
    self.assertEqual((matrix.shape, matrix.dtype), ((108, 108), np.float32))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)

  def test_matrix_and_mean_by_definition(self):
    # Contrast is taken in float32: relative rounding 1e-7 of entries near 5,
    # and the root's slope is at most 0.1**-1.5 / 2 = 16 per unit covariance.
    root = 1 / np.sqrt(self.values + 0.1 + 1e-10)
    expected = (self.vectors * root) @ self.vectors.T
    np.testing.assert_allclose(self.fitted['matrix'], expected, atol=2e-4)
    np.testing.assert_allclose(
      self.fitted['mean'], exact_contrast(self.images).mean(0), atol=1e-4
    )

  def test_transformed_moments(self):
    white = apply('gcn_zca', self.fitted, self.images)
    self.assertEqual(white.shape, self.images.shape)
    flat = white.reshape(300, -1).astype(np.float64)
    # The mean of 300 sums of 108 products in float32.
    np.testing.assert_allclose(flat.mean(0), 0, atol=2e-5)
    found = np.linalg.eigvalsh(np.cov(flat.T, ddof=1))
    expected = np.sort(self.values / (self.values + 0.1 + 1e-10))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    self.assertLess(found.max(), 1)
    # Every image has mean 0: that direction is gone.
    np.testing.assert_allclose(found[0], 0, atol=1e-6)
    np.testing.assert_allclose(white.reshape(300, -1).sum(1), 0, atol=2e-3)

  def test_test_images_use_training_statistics(self):
    images = pictures(20, 6, 6, 3, seed=1)
    flat = exact_contrast(images) - exact_contrast(self.images).mean(0)[None]
    root = 1 / np.sqrt(self.values + 0.1 + 1e-10)
    expected = flat @ (self.vectors * root) @ self.vectors.T
    np.testing.assert_allclose(
      apply('gcn_zca', self.fitted, images).reshape(20, -1), expected, atol=2e-3
    )

  def test_in_parts_as_at_once(self):
    # More images than one part of the sums holds.
    images = pictures(5003, 2, 2, 3)
    flat = exact_contrast(images)
    found = normalize.whitening(images)
    covariance = np.cov(flat.T, ddof=1) + 0.1 * np.eye(12)
    np.testing.assert_allclose(
      found['matrix'] @ found['matrix'] @ covariance, np.eye(12), atol=2e-3
    )
    np.testing.assert_allclose(found['mean'], flat.mean(0), atol=1e-4)


class InvariantsTest(parameterized.TestCase):
  """What holds for any images, on real ones and on noise."""

  def images(self, which):
    if which == 'noise':
      rng = np.random.default_rng(0)
      return rng.integers(0, 256, (2000, 8, 8, 3), np.uint8)
    images = real_pictures()
    if images is None:
      self.skipTest('cifar10 is not in TFDS_DATA_DIR')
    return images

  @parameterized.parameters('real', 'noise')
  def test_contrast(self, which):
    flat = normalize.contrast(self.images(which)).astype(np.float64)
    self.assertEqual(flat.shape, (2000, 192))
    np.testing.assert_allclose(flat.mean(1), 0, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(flat, axis=1), 55, rtol=1e-5)

  @parameterized.parameters('real', 'noise')
  def test_whitening(self, which):
    images = self.images(which)
    fitted = normalize.fit('gcn_zca', images)
    np.testing.assert_allclose(fitted['matrix'], fitted['matrix'].T, atol=1e-6)
    before = np.cov(exact_contrast(images).T, ddof=1)
    white = apply('gcn_zca', fitted, images).reshape(2000, 192)
    white = white.astype(np.float64)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-4)
    after = np.cov(white.T, ddof=1)
    values = np.linalg.eigvalsh(before)
    found = np.linalg.eigvalsh(after)
    np.testing.assert_allclose(
      found, values / (values + 0.1 + 1e-10), atol=1e-4
    )
    self.assertLess(found[-1], 1)
    # The same axes, too: both commute.
    regular = before + (0.1 + 1e-10) * np.eye(192)
    np.testing.assert_allclose(
      after, np.linalg.solve(regular, before), atol=1e-4
    )
    # No image has a mean, so nothing varies along that direction ...
    along = np.full(192, 192**-0.5)
    self.assertLess(abs(along @ before @ along), 1e-6)
    self.assertLess(abs(along @ after @ along), 1e-6)
    # ... and along the others much does.
    self.assertGreater(np.trace(after), 50)


class InvertTest(parameterized.TestCase):
  @parameterized.product(kind=('unit', 'signed', 'standard'), channels=(1, 3))
  def test_there_and_back(self, kind, channels):
    images = pictures(30, 6, 6, channels)
    images[..., 0] = 7  # constant, so that `standard` cannot divide by it
    fitted = normalize.fit(kind, images)
    unit = images / np.float32(255)
    found = jax.jit(functools.partial(normalize.invert, kind))(
      fitted, apply(kind, fitted, images)
    )
    self.assertEqual((found.shape, found.dtype), (images.shape, np.float32))
    np.testing.assert_allclose(found, unit, atol=1e-6)
    np.testing.assert_allclose(
      normalize.from_unit(kind, fitted, unit),
      apply(kind, fitted, images),
      atol=1e-5,
    )

  def test_by_hand(self):
    fitted = {'mean': np.array([0.5, 0.25]), 'std': np.array([0.2, 0.5])}
    images = jnp.array([-1.0, 1.5]).reshape(1, 1, 1, 2)
    for kind, expected in (
      ('unit', [-1, 1.5]),
      ('signed', [0, 1.25]),
      ('standard', [0.3, 1]),
    ):
      found = normalize.invert(kind, fitted, images)
      np.testing.assert_allclose(found.ravel(), expected, atol=1e-6)

  def test_whitening_has_no_way_back(self):
    with self.assertRaisesRegex(
      errors.UserError, 'gcn_zca cannot be undone.* use unit, signed'
    ):
      normalize.invert('gcn_zca', {}, jnp.zeros((1, 2, 2, 3)))
    with self.assertRaisesRegex(errors.UserError, 'cutout'):
      normalize.from_unit('gcn_zca', {}, jnp.zeros((1, 2, 2, 3)))


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
    first, printed = self.fit()
    self.assertEqual(
      printed, 'fitting the whitening matrix of 300 images, once ...\n'
    )
    self.assert_same(first, normalize.whitening(self.images))
    self.assertLen(os.listdir(self.folder), 1)
    with mock.patch.object(normalize, 'whitening') as whitening:
      second, printed = self.fit(self.images.copy())
    whitening.assert_not_called()
    self.assertEqual(printed, '')
    self.assert_same(second, first)

  def test_one_changed_pixel_is_fitted_anew(self):
    first, _ = self.fit()
    images = self.images.copy()
    images[7, 3, 2, 1] ^= 1
    second, printed = self.fit(images)
    self.assertIn('once', printed)
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
      fitted, printed = self.fit()
      self.assertIn('once', printed)
      self.assert_same(fitted, normalize.whitening(self.images))
    self.assertEqual(self.fit()[1], '')

  @parameterized.parameters(-1, 200, 3000, -3000)
  def test_damage_is_fitted_anew(self, place):
    first, _ = self.fit()
    entry = next(self.folder.iterdir())
    content = bytearray(entry.read_bytes())
    content[place] ^= 255
    entry.write_bytes(content)
    second, printed = self.fit()
    self.assertIn('once', printed)
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
