"""Data sets of users: other kinds of images and labels, and what is wrong."""

import json
import os
import pathlib
import tempfile
from unittest import mock

import ml_collections
import numpy as np
import tensorflow_datasets as tfds
import tfds_fixtures
from absl.testing import absltest, parameterized
from PIL import Image

from nsl_jax import errors
from nsl_jax.data import cache, records, sources
from nsl_jax.training import pipeline

CLASSES = tfds.features.ClassLabel(num_classes=10)
POINTS = tfds.features.Tensor(shape=(3, 2), dtype=np.float32)


def image(*shape):
  return tfds.features.Image(shape=shape)


def pair(count, shape=(4, 5, 1)):
  images, labels = tfds_fixtures.random_split(count, shape, 10, seed=count)
  return images, [int(label) for label in labels]


def points(count):
  """f32[N, 3, 2], all of which are positions."""
  rng = np.random.default_rng(count)
  return rng.uniform(1, 9, (count, 3, 2)).astype(np.float32)


class FolderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.data_dir, self.cache_dir = folder / 'data', folder / 'cache'
    self.data_dir.mkdir()

  def write(self, label=CLASSES, images=image(4, 5, 1), name='label', **splits):
    """Writes train of 6 images and test of 4, or what is given."""
    splits = {'train': pair(6), 'test': pair(4), **splits}
    return tfds_fixtures.write_features(
      self.data_dir,
      'mnist',
      splits,
      {'image': images, name: label},
      names=('image', name),
    )

  def write_points(self, train, test):
    """Writes those points with images."""
    return self.write(
      POINTS,
      name='landmarks',
      train=(pair(len(train))[0], train),
      test=(pair(len(test))[0], test),
    )

  def load(self):
    return sources.load('mnist', self.data_dir, cache_dir=self.cache_dir)

  def assert_fails(self, *parts):
    """Loading fails with one line that has all the parts; returns it."""
    with self.assertRaises(errors.UserError) as caught:
      self.load()
    message = str(caught.exception)
    self.assertNotIn('\n', message)
    for part in parts:
      self.assertIn(str(part), message)
    return message

  def change(self, folder, file, found, other):
    text = (folder / file).read_text()
    self.assertIn(found, text)
    (folder / file).write_text(text.replace(found, other))


class ImageTest(FolderTest):
  def test_transparent_images_show_white_and_are_counted(self):
    images = np.zeros((6, 4, 5, 4), np.uint8)
    images[..., :3] = 100
    images[:, :2, :, 3] = 255  # the upper half can be seen
    images[5, :, :, 3] = 255
    test = images[[5, 5, 0]].copy()
    test[2, 2:, :, 3] = 51
    self.write(
      images=image(4, 5, 4), train=(images, [1] * 6), test=(test, [2] * 3)
    )
    for decodes in (2, 0):  # the second time all is from the cache
      with mock.patch.object(
        records, 'decode', side_effect=records.decode
      ) as decode:
        source = self.load()
      self.assertEqual(decode.call_count, decodes)
      self.assertEqual(source.train.images.shape, (6, 4, 5, 3))
      np.testing.assert_array_equal(source.train.images[:, :2], 100)
      np.testing.assert_array_equal(source.train.images[:5, 2:], 255)
      np.testing.assert_array_equal(source.train.images[5], 100)
      np.testing.assert_array_equal(source.test.images[2, 2:], 224)
      self.assertEqual(  # 0.2 * 100 + 0.8 * 255; five of train, one of test
        source.note, '6 images with transparency composited on white'
      )

  def test_grey_with_transparency(self):
    images = np.zeros((4, 4, 5, 2), np.uint8)
    images[..., 0], images[..., 1] = 100, 51
    files = [tfds_fixtures.encode(one, 'png') for one in images]
    folder = self.write(train=(files, [1] * 4))
    self.change(folder, 'features.json', '"1"', '"2"')
    source = self.load()
    self.assertEqual(source.train.images.shape, (4, 4, 5, 1))
    np.testing.assert_array_equal(source.train.images, 224)
    self.assertStartsWith(source.note, '4 images with transparency')

  def test_16_bits(self):
    deep = Image.fromarray(np.full((4, 5), 25700, np.uint16))
    with tempfile.NamedTemporaryFile(suffix='.png') as file:
      deep.save(file.name)
      content = pathlib.Path(file.name).read_bytes()
    self.write(train=([content] * 2, [0, 1]))
    source = self.load()
    np.testing.assert_array_equal(source.train.images, 100)
    self.assertEqual(source.note, '2 images of 16 bits scaled to 8')

  def test_entries_of_the_old_format_are_not_read(self):
    self.write()
    with mock.patch.object(cache, '_FORMAT', 'nsl_jax arrays 1'):
      self.load()
    with mock.patch.object(
      records, 'decode', side_effect=records.decode
    ) as decode:
      self.load()
    self.assertEqual(decode.call_count, 2)

  @parameterized.parameters(
    ('hello', 'no image of a known format'), ('cut', 'damaged image')
  )
  def test_damaged_image_of_a_set_of_the_users(self, damage, reason):
    images, labels = pair(6)
    files = [tfds_fixtures.encode(one, 'png') for one in images]
    files[3] = b'hello' if damage == 'hello' else files[3][:60]
    folder = self.write(train=(files, labels))
    message = self.assert_fails(
      f'split train of {folder} (row 3: {reason}',
      'replace that image, or move that version away, then run: python -m',
    )
    self.assertNotRegex(message, 'object at|delete')

  def test_damaged_image_of_a_set_that_is_prepared(self):
    images, labels = pair(4)
    files = [tfds_fixtures.encode(one, 'png') for one in images]
    files[1] = b''
    folder = self.write(test=(files, labels))
    info = json.loads((folder / 'dataset_info.json').read_text())
    info['moduleName'] = 'tensorflow_datasets.image_classification.mnist'
    (folder / 'dataset_info.json').write_text(json.dumps(info))
    message = self.assert_fails(
      f'split test of {folder} (row 1: ',
      '); move that version away, then run: python -m nsl_jax data --prepare',
    )
    self.assertNotIn('replace', message)

  def test_train_and_test_of_two_sizes(self):
    self.write(images=image(None, None, 1), test=pair(4, (5, 4, 1)))
    self.assert_fails(
      'images of split train are 4x5x1', 'those of split test 5x4x1'
    )

  def test_two_sizes_in_a_split(self):
    images, labels = pair(6)
    images = [*images[:4], *pair(2, (4, 6, 1))[0]]
    self.write(images=image(None, None, 1), train=(images, labels))
    self.assert_fails('of split train', 'row 0 has 5x4 pixels, row 4 6x4')

  def test_numbers_that_are_no_pixels(self):
    folder = self.write()
    self.change(folder, 'features.json', '"uint8"', '"float32"')
    self.assert_fails(
      folder, "feature 'image' is Image of float32, but tfds.features.Image "
    )

  def test_split_without_an_example(self):
    folder = self.write()
    self.change(folder, 'dataset_info.json', '"4"', '"0"')
    self.assert_fails(f"{folder} has no examples in split 'test'")


class LabelTest(FolderTest):
  @parameterized.parameters(
    (tfds.features.Text(), ['a', 'b'], 'Text'),
    (
      tfds.features.Tensor(shape=(2,), dtype=np.int64),
      np.eye(2, dtype=int),
      'Tensor of shape [2]',
    ),
    (tfds.features.Scalar(dtype=np.int64), [1, 2], 'Scalar'),
  )
  def test_other_feature(self, feature, labels, found):
    images = pair(2)[0]
    folder = self.write(feature, train=(images, labels), test=(images, labels))
    self.assert_fails(
      f"{folder}: feature 'label' is {found}, but tfds.features.ClassLabel",
      'needed; write the data set with that',
    )

  @parameterized.parameters('{}', '{"numClasses": "0"}')
  def test_classes_without_their_number(self, label):
    folder = self.write()
    file = folder / 'features.json'
    features = json.loads(file.read_text())
    features['featuresDict']['features']['label']['classLabel'] = json.loads(
      label
    )
    file.write_text(json.dumps(features))
    self.assert_fails(
      f"{folder}: feature 'label' is ClassLabel without num_classes, but "
      'tfds.features.ClassLabel(num_classes=...) is needed'
    )

  @parameterized.parameters('image', 'label')
  def test_no_such_feature(self, name):
    folder = self.write()
    self.change(folder, 'features.json', f'"{name}":', '"other":')
    self.assert_fails(
      f'{folder}: there is no feature {name!r}', 'tfds.features.', 'other'
    )

  def test_training_images_without_a_label(self):
    images, _ = pair(6)
    labels = [3, -1, 0, -1, -1, 9]
    self.write(train=(images, labels))
    source = self.load()
    np.testing.assert_array_equal(source.train.images, images)
    np.testing.assert_array_equal(source.train.labels, labels)
    self.assertEqual(source.note, '3 training images without a label')
    np.testing.assert_array_equal(
      sources.has_label(source.train.labels), np.array(labels) >= 0
    )

  def test_test_images_without_a_label(self):
    folder = self.write(test=(pair(5)[0], [1, 2, -1, 4, -1]))
    self.assert_fails(
      f'{folder}: 2 of the 5 images of split test have no label (the first '
      'is row 2)',
      'label them or take them out',
    )

  def test_below_minus_one(self):
    self.write()
    arrays, facts = np.zeros((4, 4, 5, 1), np.uint8), {}
    with mock.patch.object(
      records, 'decode', return_value=((arrays, np.arange(-2, 2)), facts)
    ):
      self.assert_fails('lie in [-2, 1], outside [0, 10)')


class PointsTest(FolderTest):
  def test_outside_of_the_image_is_a_position(self):
    train, test = points(6), points(4)
    train[2, 0], test[0, 0], test[1, 2] = (-3, 2), (-0.5, 1), (0, 90)
    self.write_points(train, test)
    source = self.load()
    np.testing.assert_array_equal(source.train.labels, train.reshape(6, 6))
    np.testing.assert_array_equal(source.test.labels, test.reshape(4, 6))
    self.assertTrue(sources.has_label(source.train.labels).all())
    self.assertEqual((source.note, source.outputs), ('', 6))

  @parameterized.product(
    split=('train', 'test'),
    place=((0, 0), (-1, -1), (np.nan, np.nan), (3, np.nan), (np.inf, 1)),
  )
  def test_point_without_a_position(self, split, place):
    found = {'train': points(6), 'test': points(4)}
    found[split][3, 1] = place
    folder = self.write_points(**found)
    self.assert_fails(
      f'{folder}: point 2 of row 3 of split {split} has no position (x '
      f'{place[0]:g}, y {place[1]:g})'
    )

  def test_rows_without_a_label(self):
    train = points(6)
    train[[1, 4]] = np.nan
    self.write_points(train, points(4))
    source = self.load()
    known = [True, False, True, True, False, True]
    self.assertEqual(sources.has_label(source.train.labels).tolist(), known)
    self.assertEqual(source.note, '2 training images without a label')
    split = pipeline.split_of(split_config(labeled=3, validation=1), source, 0)
    chosen = np.concatenate([split.labeled, split.validation])
    self.assertEqual(np.sort(chosen).tolist(), [0, 2, 3, 5])
    self.assertEqual(split.unlabeled.tolist(), [1, 4])

  def test_test_row_without_a_label(self):
    test = points(4)
    test[2] = np.nan
    folder = self.write_points(points(6), test)
    self.assert_fails(
      f'{folder}: 1 of the 4 images of split test have no label'
    )

  def test_eyes_at_one_place(self):
    test = points(4)
    test[2, 0] = test[2, 1]
    self.write_points(points(6), test)
    self.assert_fails('both eyes of row 2 of split test')

  @parameterized.parameters(((6,),), ((3, 3),), ((1, 2),))
  def test_other_shape(self, shape):
    feature = tfds.features.Tensor(shape=shape, dtype=np.float32)
    values = np.ones((4, *shape), np.float32)
    folder = self.write(
      feature,
      name='landmarks',
      train=(pair(4)[0], values),
      test=(pair(4)[0], values),
    )
    self.assert_fails(
      f"{folder}: feature 'landmarks' is Tensor of shape {list(shape)}",
      'Tensor of shape [points, 2]',
    )


def split_config(**numbers):
  return ml_collections.ConfigDict(
    {
      'data': dict(
        rule='uniform',
        validation_rule='uniform',
        holdout=0,
        unlabeled_includes_labeled=False,
        imbalance=1.0,
        imbalance_unlabeled=1.0,
        unlabeled_classes=(),
        **numbers,
      )
    }
  )


class LimitTest(FolderTest):
  def limited(self, limit):
    config = ml_collections.ConfigDict(
      {
        'data': dict(
          name='mnist',
          dir=str(self.data_dir),
          limit=limit,
          unknown_classes=(),
          unlabeled_classes=(),
        )
      }
    )
    with mock.patch.dict(os.environ, NSL_JAX_CACHE=str(self.cache_dir)):
      return pipeline.load_source(config)

  def test_points_left_of_the_image_have_a_label(self):
    train, test = points(6), points(4)
    train[:, 0, 0] = test[:, 0, 0] = -2.0
    train[1, 0, 0] = 2.0
    self.write_points(train, test)
    source = self.limited(3)
    np.testing.assert_array_equal(source.train.labels, train[:3].reshape(3, 6))
    np.testing.assert_array_equal(source.test.labels, test[:3].reshape(3, 6))

  def test_half_of_the_rows_have_a_label(self):
    train = points(6)
    train[[0, 1, 5]] = np.nan
    self.write_points(train, points(4))
    labels = self.limited(4).train.labels
    np.testing.assert_array_equal(labels, train[[2, 3, 0, 1]].reshape(4, 6))

  def test_no_row_is_left(self):
    self.write(train=(pair(6)[0], [3, -1, 0, -1, -1, 9]))
    with self.assertRaisesRegex(
      errors.UserError, 'limit=1 leaves no image of split train: raise it'
    ):
      self.limited(1)


if __name__ == '__main__':
  absltest.main()
