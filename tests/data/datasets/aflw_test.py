"""Lists of faces in both layouts, from the lines to arrays."""

import os
import pathlib
import shutil
import tempfile
from unittest import mock

import face_fixtures
import numpy as np
import scipy.io
from absl.testing import absltest, parameterized
from PIL import Image

from nsl_jax import errors
from nsl_jax.data import prepare, sources
from nsl_jax.data.datasets import face_lists

COUNTS = {'training.txt': 6, 'testing.txt': 3}


class FolderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.data_dir = pathlib.Path(folder) / 'data'
    self.folder = self.data_dir / 'downloads' / 'manual' / 'aflw'
    cache_dir = os.path.join(folder, 'cache')
    self.enter_context(mock.patch.dict(os.environ, NSL_JAX_CACHE=cache_dir))


class LoadTest(FolderTest):
  def test_images_and_points(self):
    points = face_fixtures.write(self.folder, COUNTS)
    source = sources.load('aflw', self.data_dir)
    self.assertEqual((source.num_classes, source.outputs), (0, 10))
    self.assertRegex(
      source.note, r'^aflw of \d+ \+ \d+ images, not the 10,122 \+ 2,991'
    )
    for arrays, name in (
      (source.train, 'training.txt'),
      (source.test, 'testing.txt'),
    ):
      self.assertEqual(arrays.images.shape, (COUNTS[name], 60, 60, 1))
      self.assertEqual(arrays.images.dtype, np.uint8)
      self.assertEqual(arrays.labels.dtype, np.float32)
      expected = np.stack(points[name]).reshape(-1, 10) * 60
      np.testing.assert_allclose(arrays.labels, expected, atol=1e-4)
      first = Image.open(self.folder / name[:-4] / 'picture 0.png')
      small = np.asarray(
        first.convert('L').resize((60, 60), Image.Resampling.BILINEAR)
      )
      np.testing.assert_array_equal(arrays.images[0, ..., 0], small)

  def test_deep_and_transparent_images(self):
    face_fixtures.write(self.folder, COUNTS)
    path = self.folder / 'testing' / 'picture 0.png'
    deep = np.full((90, 90), 30 * 257, np.uint16)
    Image.fromarray(deep).save(path)
    path = self.folder / 'testing' / 'picture 2.png'
    Image.new('RGBA', (90, 90), (1, 2, 3, 0)).save(path)
    for _ in range(2):  # the second is from what was kept
      source = sources.load('aflw', self.data_dir)
      np.testing.assert_array_equal(source.test.images[0], 30)
      np.testing.assert_array_equal(source.test.images[2], 255)
      self.assertEndsWith(
        source.note,
        '; 1 image with transparency composited on white; '
        '1 image of 16 bits scaled to 8',
      )

  def test_points_are_where_the_digit_is(self):
    """Inside its corners a picture differs from the gray around them."""
    face_fixtures.write(self.folder, COUNTS)
    for image, row in zip(*sources.load('aflw', self.data_dir).train):
      x0, y0 = row[:2].round().astype(int)
      x1, y1 = row[8:].round().astype(int)
      away = np.abs(image[..., 0].astype(int) - 90) > 40
      inside = np.zeros_like(away)
      inside[max(y0 - 1, 0) : y1 + 2, max(x0 - 1, 0) : x1 + 2] = True
      self.assertGreater(away[inside].mean(), 0.3)
      self.assertLess(away[~inside].mean(), 0.02)

  def test_prepared_once(self):
    face_fixtures.write(self.folder, COUNTS)
    line = prepare.prepare('aflw', self.data_dir)
    folder = self.data_dir / 'aflw' / '1.1.0'
    self.assertEqual(line, f'aflw is ready: {folder}')
    before = sources.load('aflw', self.data_dir)
    (self.folder / 'training.txt').unlink()
    after = sources.load('aflw', self.data_dir)
    np.testing.assert_array_equal(before.train.labels, after.train.labels)
    self.assertEqual(
      prepare.status('aflw', self.data_dir), ('ready', str(folder))
    )

  def test_status_before(self):
    self.assertEqual(prepare.status('aflw', self.data_dir)[0], 'missing')
    face_fixtures.write(self.folder, COUNTS)
    state, where = prepare.status('aflw', self.data_dir)
    self.assertEqual(state, 'ready')
    self.assertEndsWith(where, 'manual/aflw/training.txt')


class ReleaseTest(FolderTest):
  """The layout that the code of L2I reads."""

  def setUp(self):
    super().setUp()
    self.points = face_fixtures.write(self.folder, COUNTS)
    self.same = sources.load('aflw', self.data_dir)
    shutil.rmtree(self.data_dir / 'aflw')
    face_fixtures.as_release(self.folder)
    self.mat = self.folder / 'aflw_test_keypoints.mat'

  def test_is_read_as_the_other(self):
    state, where = prepare.status('aflw', self.data_dir)
    self.assertEqual(state, 'ready')
    self.assertEndsWith(where, 'manual/aflw/aflw_train_images.txt')
    source = sources.load('aflw', self.data_dir)
    for found, known in (
      (source.train, self.same.train),
      (source.test, self.same.test),
    ):
      np.testing.assert_array_equal(found.images, known.images)
      np.testing.assert_allclose(found.labels, known.labels, atol=1e-5)

  def test_is_taken_where_both_are(self):
    lines = 'not a list'
    for name in COUNTS:
      (self.folder / name).write_text(lines)
    _, where = prepare.status('aflw', self.data_dir)
    self.assertEndsWith(where, 'manual/aflw/aflw_train_images.txt')
    self.assertLen(sources.load('aflw', self.data_dir).train.images, 6)

  def test_points_outside_are_kept(self):
    points = scipy.io.loadmat(self.mat)['gt']
    points[1, 2] = -3.0, 500.0  # y, x
    scipy.io.savemat(self.mat, dict(gt=points))
    labels = sources.load('aflw', self.data_dir).test.labels
    self.assertLess(labels[1, 5], 0.0)
    self.assertGreater(labels[1, 4], 60.0)

  @parameterized.parameters(0.0, -1.0, np.nan, np.inf)
  def test_point_without_a_position(self, value):
    points = scipy.io.loadmat(self.mat)['gt']
    points[1, 2] = value
    scipy.io.savemat(self.mat, dict(gt=points))
    self.assert_fails(
      'aflw_test_images.txt, line 2: point 3 of 5 has no position',
      f'(x {value:g}, y {value:g}); remove the line, and its row of gt',
    )

  def test_one_place_for_both_eyes(self):
    points = scipy.io.loadmat(self.mat)['gt']
    points[1, 0] = points[1, 1]
    scipy.io.savemat(self.mat, dict(gt=points))
    self.assert_fails('line 2: both eyes', 'get the release again')

  def assert_fails(self, *parts):
    with self.assertRaises(errors.UserError) as caught:
      sources.load('aflw', self.data_dir)
    for part in parts:
      self.assertIn(part, str(caught.exception))
    self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(
    (dict(gt=np.zeros((2, 5, 2))), 'gt is [2, 5, 2]'),
    (dict(points=np.zeros((3, 5, 2))), "MATLAB file with points gt ('gt')"),
  )
  def test_wrong_points(self, content, message):
    scipy.io.savemat(self.mat, content)
    self.assert_fails(str(self.mat), message)

  def test_no_matlab_file(self):
    self.mat.write_text('hello')
    self.assert_fails(str(self.mat), 'no MATLAB file with points gt')

  def test_missing_points(self):
    self.mat.unlink()
    self.assert_fails('put the images and aflw_test_keypoints.mat into')

  def test_missing_image(self):
    (self.folder / 'output' / 'test picture 1.jpg').unlink()
    self.assert_fails('aflw_test_images.txt, line 2: ', 'does not exist')


class WrongTest(FolderTest):
  def setUp(self):
    super().setUp()
    face_fixtures.write(self.folder, COUNTS)
    self.list = self.folder / 'testing.txt'

  def assert_fails(self, *parts):
    with self.assertRaises(errors.UserError) as caught:
      sources.load('aflw', self.data_dir)
    message = str(caught.exception)
    self.assertNotIn('\n', message)
    for part in parts:
      self.assertIn(part, message)
    self.assertIsNone(prepare.newest('aflw', self.data_dir))

  def change(self, words):
    """The second line with other words at some places, counted from behind."""
    lines = self.list.read_text().splitlines()
    found = lines[1].split(' ')
    for at, word in words.items():
      found[at] = word
    lines[1] = ' '.join(found)
    self.list.write_text('\n'.join(lines))

  @parameterized.parameters('wide', 'nan', '1,5')
  def test_not_a_number(self, word):
    self.change({-9: word})
    self.assert_fails(
      f'{self.list}, line 2: not a path and 14 numbers', 'remove the line'
    )

  def test_too_few_columns(self):
    self.list.write_text('testing/a.png 1 2 3 4 5\n')
    self.assert_fails(f'{self.list}, line 1: not a path and 14 numbers')

  def test_missing_image(self):
    (self.folder / 'testing' / 'picture 1.jpg').unlink()
    self.assert_fails(f'{self.list}, line 2:', 'picture 1.jpg does not exist')

  def test_not_an_image(self):
    (self.folder / 'testing' / 'picture 1.jpg').write_text('hello')
    self.assert_fails(f'{self.list}, line 2:', 'is not a readable image')

  def test_damaged_image(self):
    path = self.folder / 'testing' / 'picture 1.jpg'
    path.write_bytes(path.read_bytes()[:700])
    self.assert_fails(f'{self.list}, line 2:', 'picture 1.jpg is damaged')

  @parameterized.parameters('-0.5', '151')
  def test_point_outside_is_a_position(self, value):
    self.change({-9: value})  # y1
    with Image.open(self.folder / 'testing' / 'picture 1.jpg') as picture:
      height = picture.size[1]
    labels = sources.load('aflw', self.data_dir).test.labels
    self.assertAlmostEqual(labels[1, 1], float(value) * 60 / height, delta=1e-4)

  @parameterized.parameters('0', '-1.0')
  def test_point_without_a_position(self, value):
    self.change({-12: value, -7: value})  # x3, y3
    self.assert_fails(
      f'{self.list}, line 2: point 3 of 5 has no position (x '
      f'{float(value):g}, y',
      'remove the line',
    )

  @parameterized.parameters((0, 1), (-1, 0), (0, -1))
  def test_on_the_edge_is_a_position(self, x, y):
    self.change({-12: str(x), -7: str(y)})
    self.assertLen(face_lists.read(self.list), 3)

  def test_no_unit(self):
    self.change({-14: '40', -13: '40', -9: '50', -8: '50'})
    self.assert_fails(f'{self.list}, line 2: both eyes')

  def test_broken_png(self):
    path = self.folder / 'testing' / 'picture 0.png'
    content = bytearray(path.read_bytes())
    content[content.index(b'IDAT') + 12] ^= 255
    path.write_bytes(content)
    self.assert_fails(f'{self.list}, line 1:', 'picture 0.png is damaged')

  def test_floating_point_image(self):
    path = self.folder / 'testing' / 'picture 1.jpg'
    Image.new('F', (90, 90)).save(path, format='tiff')
    self.assert_fails(f'{self.list}, line 2:', 'floating-point numbers (mode F')

  def test_blank_lines_do_not_count(self):
    self.list.write_text('\n' + self.list.read_text() + '\n\n')
    self.assertLen(face_lists.read(self.list), 3)
    self.list.write_text('\n')
    self.assert_fails(f'{self.list} lists no image')

  def test_missing_list(self):
    self.list.unlink()
    self.assert_fails('testing.txt', f'into {self.folder}, then run')


if __name__ == '__main__':
  absltest.main()
