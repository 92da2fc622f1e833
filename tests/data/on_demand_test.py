"""Images that are decoded as they are read, beside those decoded at once."""

import errno
import os
import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from nsl_jax import errors
from nsl_jax.data import duplicates, examples, normalize, on_demand, resize
from nsl_jax.data.datasets import folder as folder_lib


class ImagesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    rng = np.random.default_rng(0)
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    for part, number in (('labeled/a', 4), ('labeled/b', 4), ('unlabeled', 9)):
      (cls.folder / part).mkdir(parents=True)
      for at in range(number):
        pixels = rng.integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).save(cls.folder / part / f'{at}.png')
    (cls.folder / 'test' / 'a').mkdir(parents=True)
    Image.fromarray(pixels[::-1]).save(cls.folder / 'test' / 'a' / '0.png')
    (cls.folder / 'unlabeled' / '3.png').write_bytes(b'nothing')

  def load(self, several):
    with (
      mock.patch.object(
        folder_lib.jax.distributed, 'is_initialized', lambda: several
      ),
      mock.patch.object(
        folder_lib.jax, 'process_count', lambda: 2 if several else 1
      ),
      mock.patch.object(
        on_demand, 'inspect', _as_of_one_process(on_demand.inspect)
      ),
    ):
      return folder_lib.load(
        str(self.folder),
        tempfile.mkdtemp(dir=self.folder.parent),
        size=8,
        skip_damaged=True,
      )

  def test_source_is_that_of_a_single_process(self):
    one, two = self.load(False), self.load(True)
    self.assertIsInstance(two.train.images, on_demand.Images)
    self.assertEqual(one.train.images.shape, two.train.images.shape)
    np.testing.assert_array_equal(one.train.images, two.train.images)
    np.testing.assert_array_equal(one.test.images, two.test.images)
    np.testing.assert_array_equal(one.train.labels, two.train.labels)
    self.assertEqual(one.files, two.files)
    self.assertEqual(one.report, two.report)
    for kind in ('unit', 'standard'):
      found = [normalize.fit(kind, each.train.images) for each in (one, two)]
      self.assertEqual(found[0].keys(), found[1].keys())
      for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])
    with self.assertRaisesRegex(errors.UserError, 'gcn_zca reads all images'):
      normalize.fit('gcn_zca', two.train.images)
    rows = {'labeled': np.arange(4), 'unlabeled': np.arange(8, 16)}
    self.assertEqual(
      *(
        duplicates.hashes(each.train.images, rows['unlabeled'])
        for each in (one, two)
      )
    )

  def test_full_disk(self):
    """Is one line; writing through a map would end the process."""
    images = self.load(True).train.images
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with mock.patch.object(on_demand.os, 'pwrite', side_effect=error):
      with self.assertRaisesRegex(
        errors.UserError, 'cannot write decoded images .*No space left.*NSL_JAX'
      ):
        images[:2][np.arange(2)]
    self.assertLen(images[np.arange(2)], 2)

  def test_only_what_is_read_is_decoded(self):
    images = self.load(True).train.images
    read = []
    with mock.patch.object(
      on_demand.resize,
      'read',
      lambda path, form: read.append(path.name) or _read(path, form),
    ):
      rows = np.array([[2, 5], [5, 0]])
      found = images[rows]
      self.assertEqual(found.shape, (2, 2, 8, 8, 3))
      self.assertLen(read, 3)
      np.testing.assert_array_equal(images[3:6][np.array([2])], found[:1, 1])
      np.testing.assert_array_equal(images[5], found[1, 0])
      self.assertLen(read, 3)  # what was read is kept
      images[1:2][:]  # a part of a part, still not read
      self.assertLen(read, 3)

  def test_some_of_them_are_not_decoded_either(self):
    source = self.load(True)
    rows, codes = np.array([5, 0, 2]), source.train.images.codes
    part = examples.take(source, rows, np.arange(1)).train.images
    self.assertIsInstance(part, on_demand.Images)
    self.assertFalse(part._there.any())
    self.assertEqual(
      part.codes, {at: codes[row] for at, row in enumerate(rows)}
    )
    np.testing.assert_array_equal(part, source.train.images[rows])

  def test_some_of_them_are_normalized_by_these_alone(self):
    found = []
    for several in (False, True):
      source = self.load(several)
      part = examples.take(source, np.array([5, 0, 2]), np.arange(1)).train
      found.append(normalize.fit('standard', part.images)['mean'])
    np.testing.assert_array_equal(*found)
    whole = normalize.fit('standard', source.train.images)['mean']
    self.assertGreater(np.abs(whole - found[1]).max(), 1e-3)

  def test_file_that_is_gone(self):
    images = self.load(True).train.images
    with mock.patch.object(
      on_demand.resize, 'read', side_effect=ValueError('no such file')
    ):
      with self.assertRaisesRegex(
        errors.UserError, '0.png was there .* cannot be read now .no such file'
      ):
        images[np.array([0])]

  def test_shares_add_up(self):
    found = sorted(self.folder.rglob('*.png'))
    paths = [str(path.relative_to(self.folder)) for path in found]
    form = resize.Form(8, 8, 3, 'crop')
    every = dict.fromkeys(('hashed', 'counted'), np.ones(len(paths), bool))
    parts = []
    for index in range(3):
      with (
        mock.patch.object(on_demand.jax, 'process_index', lambda: index),
        mock.patch.object(on_demand.jax, 'process_count', lambda: 3),
        mock.patch.object(
          on_demand, '_gather', lambda part: parts.append(part) or [part]
        ),
      ):
        on_demand.inspect(self.folder, paths, form, **every)
    one = on_demand.inspect(self.folder, paths, form, **every)
    several = on_demand._merged(parts)
    self.assertEqual(several[:3], one[:3])
    self.assertLen(one.damaged, 1)
    self.assertLen(one.codes, len(paths) - 1)
    np.testing.assert_array_equal(several.histogram, one.histogram)


_read = resize.read


def _as_of_one_process(inspect):
  def call(*words, **named):
    with mock.patch.object(on_demand.jax, 'process_count', lambda: 1):
      return inspect(*words, **named)

  return call


if __name__ == '__main__':
  absltest.main()
