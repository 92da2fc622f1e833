"""Tests of making Tiny-ImageNet from a folder or zip in its own layout."""

import contextlib
import io
import os
import pathlib
import sys
import tempfile
from unittest import mock

import numpy as np
import tfds_fixtures
from absl.testing import absltest, parameterized
from PIL import Image

from nsl_jax import errors
from nsl_jax.commands import data as command_line
from nsl_jax.data import prepare, sources


def pixels(content):
  """The RGB pixels of a JPEG, uint8[64, 64, 3]."""
  picture = Image.open(io.BytesIO(content))
  found = np.asarray(picture)
  if picture.mode == 'L':
    found = np.stack([found] * 3, axis=-1)
  return found


class TempDirTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.data_dir, self.cache_dir = folder / 'data', folder / 'cache'
    self.data_dir.mkdir()
    self.manual = self.data_dir / 'downloads' / 'manual'
    self.enter_context(
      mock.patch.dict(os.environ, NSL_JAX_CACHE=str(self.cache_dir))
    )
    self.files = tfds_fixtures.tiny_imagenet(per_class=2, validation=5)
    self.names = self.files['wnids.txt'].decode().split()

  def put(self, **options):
    return tfds_fixtures.put_tiny_imagenet(self.data_dir, self.files, **options)

  def load(self):
    return sources.load('tiny_imagenet', self.data_dir)

  def command(self, *words):
    """What the data command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      command_line.main([*words, '--data_dir', str(self.data_dir)])
    return out.getvalue()

  def assert_fails(self, *parts):
    """Loading fails with one line that has all the parts; nothing is left."""
    with self.assertRaises(errors.UserError) as caught:
      self.load()
    message = str(caught.exception)
    self.assertNotIn('\n', message)
    for part in parts:
      self.assertIn(str(part), message)
    self.assertIsNone(prepare.newest('tiny_imagenet', self.data_dir))


class ReadTest(TempDirTest):
  @parameterized.parameters(True, False)
  def test_as_distributed(self, as_zip):
    self.put(as_zip=as_zip)
    source = self.load()
    self.assertEqual(source[:2], ('tiny_imagenet', 200))
    self.assertEqual(source.note, '')
    train, test = source.train, source.test
    # The first image of each class, then the second of each.
    np.testing.assert_array_equal(train.labels, [*range(200), *range(200)])
    expected = [
      pixels(self.files[f'train/{name}/images/{name}_{i}.JPEG'])
      for i in range(2)
      for name in self.names
    ]
    np.testing.assert_array_equal(train.images, expected)
    np.testing.assert_array_equal(test.labels, [0, 3, 6, 9, 12])
    expected = [
      pixels(self.files[f'val/images/val_{i}.JPEG']) for i in range(5)
    ]
    np.testing.assert_array_equal(test.images, expected)
    self.assertEqual(train.images.dtype, np.uint8)
    self.assertEqual(train.labels.dtype, np.int32)
    if not prepare.has_module('tensorflow'):
      self.assertNotIn('tensorflow', sys.modules)

  def test_grey_images_have_three_equal_channels(self):
    self.put()
    images = self.load().train.images
    equal = (images[..., :1] == images).all((1, 2, 3))
    # Every seventh file was gray, two files a class.
    gray = [2 * (row % 200) + row // 200 for row in np.flatnonzero(equal)]
    self.assertEqual(sorted(gray), list(range(0, 400, 7)))

  def test_is_made_once(self):
    path = self.put()
    first = self.load()
    path.unlink()
    np.testing.assert_array_equal(self.load().test.images, first.test.images)

  def test_folder_comes_before_the_zip(self):
    self.put(as_zip=False)
    (self.manual / 'tiny-imagenet-200.zip').write_text('not one')
    self.assertLen(self.load().train.labels, 400)

  def test_unwritable_data_folder_uses_the_cache(self):
    self.put()
    self.data_dir.chmod(0o555)
    self.addCleanup(self.data_dir.chmod, 0o755)
    self.assertLen(self.load().train.labels, 400)
    self.assertIsNone(prepare.newest('tiny_imagenet', self.data_dir))


class CommandTest(TempDirTest):
  def test_says_what_is_missing(self):
    self.manual.mkdir(parents=True)
    self.assertRegex(
      self.command('--check'),
      f'tiny_imagenet +missing +{self.data_dir}/tiny_imagenet\n',
    )
    with self.assertRaisesRegex(
      errors.UserError,
      'put tiny-imagenet-200.zip, or the folder that it holds, into '
      f'{self.manual}, then run: python -m nsl_jax data --prepare '
      f'tiny_imagenet --data_dir {self.data_dir}$',
    ):
      self.command('--prepare', 'tiny_imagenet')
    self.assert_fails(self.manual)

  @parameterized.parameters(True, False)
  def test_prepares(self, as_zip):
    path = self.put(as_zip=as_zip)
    path = path if as_zip else path / 'wnids.txt'
    self.assertRegex(
      self.command('--check'),
      f'tiny_imagenet +ready +made on first use from {path}\n',
    )
    folder = self.data_dir / 'tiny_imagenet' / '1.0.0'
    for _ in range(2):
      self.assertEqual(
        self.command('--prepare', 'tiny_imagenet'),
        f'tiny_imagenet is ready: {folder}\n',
      )
    self.assertRegex(
      self.command('--check'), f'tiny_imagenet +ready +{folder}\n'
    )


class DamageTest(TempDirTest):
  @parameterized.parameters(True, False)
  def test_missing_files(self, as_zip):
    whole, name = dict(self.files), self.names[7]
    for path, message in (
      ('wnids.txt', 'wnids.txt is missing'),
      ('val/val_annotations.txt', 'val/val_annotations.txt is missing'),
      ('val/images/val_4.JPEG', 'val/images/val_4.JPEG is missing'),
      (
        f'train/{name}/images/{name}_1.JPEG',
        f'train/{name}/images has 1 images, other classes have 2',
      ),
    ):
      with self.subTest(path):
        self.files = {k: v for k, v in whole.items() if k != path}
        place = self.put(as_zip=as_zip)
        if not as_zip:
          (place / path).unlink(missing_ok=True)
        self.assert_fails(message, place)

  @parameterized.parameters(
    (lambda content: content[:900],),
    (lambda content: b'no picture',),
    (lambda content: b'',),
  )
  def test_damaged_picture(self, change):
    path = f'train/{self.names[3]}/images/{self.names[3]}_1.JPEG'
    self.files[path] = change(self.files[path])
    self.put(as_zip=False)
    self.assert_fails(f'{path} is not a complete image')

  def test_picture_of_another_size(self):
    small = tfds_fixtures.encode(np.zeros((32, 64, 3), np.uint8), 'jpeg')
    self.files['val/images/val_2.JPEG'] = small
    self.put()
    self.assert_fails('val_2.JPEG has 64x32 pixels, not 64x64')

  @parameterized.parameters(
    (lambda text: text.replace(b'\t', b' ', 1).split()[0] + b'\n', 1),
    (lambda text: text + b'val_0.JPEG\tn99999999\t0\n', 6),
  )
  def test_annotations_without_a_class(self, change, line):
    path = 'val/val_annotations.txt'
    self.files[path] = change(self.files[path])
    self.put()
    self.assert_fails(f'line {line} of {path} does not name a class')

  @parameterized.parameters(
    (lambda names: names[:-1], 199),
    (lambda names: names + ['n1'], 201),
    (lambda names: names[:-1] + names[:1], 199),
  )
  def test_other_number_of_classes(self, change, count):
    self.files['wnids.txt'] = '\n'.join(change(self.names)).encode()
    self.put()
    self.assert_fails(f'wnids.txt names {count} classes, not 200')

  def test_no_pictures_at_all(self):
    self.files = {k: v for k, v in self.files.items() if 'train' not in k}
    self.put()
    self.assert_fails(f'train/{self.names[0]}/images has 0 images')

  def test_damaged_zip(self):
    path = self.put()
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:50_000])
    self.assert_fails('not a zip file', path)
    content[100_000] ^= 255
    path.write_bytes(content)
    self.assert_fails('Bad CRC-32 for file', path)


if __name__ == '__main__':
  absltest.main()
