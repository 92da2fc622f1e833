"""Tests of reading data sets, mostly on tiny ones in the same form."""

import contextlib
import io
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from unittest import mock

import numpy as np
import tfds_fixtures
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.commands import data as command_line
from nsl_jax.data import (
  prepare,
  records,
  sources,
  splits as splits_lib,
  versions,
)

_SHAPES = {
  'usps': (16, 16, 1),
  'mnist': (28, 28, 1),
  'fashion_mnist': (28, 28, 1),
  'cifar10': (32, 32, 3),
  'cifar100': (32, 32, 3),
  'svhn_cropped': (32, 32, 3),
  'stl10': (96, 96, 3),
}


class TempDirTest(parameterized.TestCase):
  """Gives each test a separate data folder and cache folder."""

  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.data_dir, self.cache_dir = folder / 'data', folder / 'cache'
    self.data_dir.mkdir()

  def write(self, tfds_name='mnist', counts=None, num_classes=10, **options):
    """Writes splits of the given sizes; returns (folder, splits)."""
    shape = _SHAPES[tfds_name]
    if tfds_name in versions.MADE:
      options.setdefault('version', versions.MADE[tfds_name])
    counts = counts or {'train': 12, 'test': 5}
    splits = {
      split: tfds_fixtures.random_split(count, shape, num_classes, seed=seed)
      for seed, (split, count) in enumerate(counts.items())
    }
    folder = tfds_fixtures.write(
      self.data_dir, tfds_name, splits, num_classes, **options
    )
    return folder, splits

  def load(self, name='mnist'):
    return sources.load(name, self.data_dir, cache_dir=self.cache_dir)

  def assert_arrays(self, got, want):
    np.testing.assert_array_equal(got.images, want[0])
    np.testing.assert_array_equal(got.labels, want[1])
    self.assertEqual((got.images.dtype, got.labels.dtype), (np.uint8, np.int32))

  def assert_fails(self, name='mnist', *parts):
    """Loading fails with one line that has all the parts."""
    with self.assertRaises(errors.UserError) as caught:
      self.load(name)
    message = str(caught.exception)
    self.assertNotIn('\n', message)
    for part in parts:
      self.assertIn(str(part), message)


class LoadTest(TempDirTest):
  @parameterized.parameters(
    ('mnist', 10), ('fashion_mnist', 10), ('cifar10', 10), ('cifar100', 100)
  )
  def test_plain_sets(self, name, num_classes):
    _, splits = self.write(name, num_classes=num_classes)
    source = self.load(name)
    self.assert_arrays(source.train, splits['train'])
    self.assert_arrays(source.test, splits['test'])
    self.assertEqual(source[:2], (name, num_classes))
    self.assertEqual(source.note, '')

  def test_svhn_leaves_extra_alone_and_svhn_extra_appends_it(self):
    counts = {'train': 6, 'test': 4, 'extra': 9}
    _, splits = self.write('svhn_cropped', counts)
    self.assert_arrays(self.load('svhn').train, splits['train'])
    source = self.load('svhn_extra')
    both = [np.concatenate(p) for p in zip(splits['train'], splits['extra'])]
    self.assert_arrays(source.train, both)
    self.assert_arrays(source.test, splits['test'])

  def test_stl10_unlabeled_images_come_last_without_labels(self):
    counts = {'train': 5, 'test': 4, 'unlabeled': 7}
    _, splits = self.write('stl10', counts)
    train = self.load('stl10').train
    images = np.concatenate([splits['train'][0], splits['unlabeled'][0]])
    labels = np.concatenate([splits['train'][1], np.full(7, -1)])
    self.assert_arrays(train, (images, labels))

  def test_other_image_size_and_class_count(self):
    pair = tfds_fixtures.random_split(9, (8, 6, 3), 3)
    splits = {'train': pair, 'test': pair}
    tfds_fixtures.write(self.data_dir, 'cifar10', splits, 3)
    source = self.load('cifar10')
    self.assert_arrays(source.train, pair)
    self.assertEqual(source.num_classes, 3)

  def test_highest_version_wins(self):
    self.write(version='3.9.1', counts={'train': 3, 'test': 3})
    self.write(version='3.10.0', counts={'train': 4, 'test': 3})
    (self.data_dir / 'mnist' / '4.0.0').mkdir()  # Nothing in it.
    self.assertLen(self.load().train.labels, 4)

  def test_jpeg_copy_says_so(self):
    self.write('cifar10', version='3.0.2', encoding='jpeg')
    self.assertStartsWith(self.load('cifar10').note, 'JPEG copy of cifar10')

  def test_data_dir_from_the_environment(self):
    self.write()
    with mock.patch.dict(os.environ, TFDS_DATA_DIR=str(self.data_dir)):
      source = sources.load('mnist', cache_dir=self.cache_dir)
    self.assertLen(source.train.labels, 12)

  @absltest.skipUnless(
    prepare.has_module('tensorflow'), 'TensorFlow is not installed'
  )
  def test_tfrecord_is_read_through_tensorflow(self):
    _, splits = self.write(file_format='tfrecord')
    self.assert_arrays(self.load().train, splits['train'])

  def test_no_tensorflow_is_imported_nor_tfds_for_digits(self):
    self.write()
    code = (
      'import sys; from nsl_jax.data import sources\n'
      'sources.load("digits")\n'
      'assert "tensorflow_datasets" not in sys.modules\n'
      f'sources.load("mnist", {str(self.data_dir)!r}, '
      f'cache_dir={str(self.cache_dir)!r})\n'
      'assert "tensorflow_datasets" in sys.modules\n'
      'assert "tensorflow" not in sys.modules\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


class AdaptationTest(TempDirTest):
  def write_both(self):
    """Returns the splits of USPS and of MNIST."""
    counts = {'train': 30, 'test': 4}
    return self.write('usps', counts)[1], self.write()[1]

  def test_labeled_source_then_unlabeled_target(self):
    usps, mnist = self.write_both()
    source = self.load('usps_to_mnist')
    images, labels = source.train
    self.assertEqual(images.shape, (42, 28, 28, 1))
    np.testing.assert_array_equal(labels[:30], usps['train'][1])
    self.assert_arrays(
      sources.Arrays(images[30:], labels[30:]),
      (mnist['train'][0], np.full(12, -1)),
    )
    self.assert_arrays(source.test, mnist['test'])
    self.assertEqual((images.dtype, labels.dtype), (np.uint8, np.int32))
    self.assertEqual(source[:2], ('usps_to_mnist', 10))
    self.assertEqual(source.note, '')

  def test_source_is_resized_by_a_cubic(self):
    # Columns 0 to 7 are black. Pixel x lies at 4 (x + 0.5) / 7 - 0.5 of the
    # small image, with Keys' weights at a = -0.5 for the four beside it.
    half = np.zeros((30, 16, 16, 1), np.uint8)
    half[:, :, 8:] = 100
    labels = np.arange(30) % 10
    pair = half, labels
    tfds_fixtures.write(
      self.data_dir,
      'usps',
      {'train': pair, 'test': pair},
      10,
      version=versions.MADE['usps'],
    )
    self.write()
    images = self.load('usps_to_mnist').train.images[:30]

    def weight(distance):
      d = abs(distance)
      near = 1.5 * d**3 - 2.5 * d**2 + 1
      far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
      return near if d < 1 else far if d < 2 else 0.0

    row = np.empty(28)
    for x in range(28):
      at = 4 * (x + 0.5) / 7 - 0.5
      share = np.array([weight(at - k) for k in range(16)])
      row[x] = 100 * share[8:].sum() / share.sum()
    self.assertGreater(row.max(), 105)
    expected = np.tile(row.clip(0, 255), (30, 28, 1))
    np.testing.assert_allclose(images[..., 0], expected, rtol=0, atol=0.51)

  def test_target_labels_never_enter(self):
    self.write_both()
    before = self.load('usps_to_mnist').train
    shutil.rmtree(self.data_dir / 'mnist')
    images, labels = tfds_fixtures.random_split(12, (28, 28, 1), 10, seed=0)
    pair = images, (labels + 1) % 10
    tfds_fixtures.write(
      self.data_dir, 'mnist', {'train': pair, 'test': pair}, 10
    )
    self.assert_arrays(self.load('usps_to_mnist').train, before)

  def test_split_is_the_two_sets(self):
    self.write_both()
    labels = self.load('usps_to_mnist').train.labels
    for seed in range(3):
      split = splits_lib.make(
        labels,
        10,
        labeled=30,
        validation=0,
        rule='uniform',
        validation_rule='uniform',
        seed=seed,
      )
      self.assertEqual(split.labeled.tolist(), list(range(30)))
      self.assertEqual(split.unlabeled.tolist(), list(range(30, 42)))
      self.assertEmpty(split.validation)

  def test_shares_the_cache_of_the_two_sets(self):
    self.write_both()
    first = self.load('usps_to_mnist')
    kept = sorted(path.name for path in self.cache_dir.iterdir())
    self.assertLen(kept, 4)
    with mock.patch.object(records, 'decode') as decode:
      self.assert_arrays(self.load('usps_to_mnist').train, first.train)
      self.load('usps')
      self.load('mnist')
    decode.assert_not_called()
    self.assertEqual(
      kept, sorted(path.name for path in self.cache_dir.iterdir())
    )

  @parameterized.parameters(('usps', 'mnist'), ('mnist', 'usps'))
  def test_missing_set_is_named_and_nothing_decoded(self, there, missing):
    self.write(there)
    self.assert_fails(
      'usps_to_mnist',
      f'{missing} is not in {self.data_dir}',
      f'python -m nsl_jax data --prepare {missing} --data_dir ',
    )
    self.assertEmpty(list(self.cache_dir.glob('*')))

  def test_notes_of_both(self):
    for name in ('usps', 'mnist'):
      self.write(name, encoding='jpeg')
    note = self.load('usps_to_mnist').note
    self.assertRegex(note, '^JPEG copy of usps.*; JPEG copy of mnist')

  def test_unknown_name(self):
    self.assert_fails('usps_to_mnits', "did you mean 'usps_to_mnist'?")

  @parameterized.parameters(
    ((), 'missing', 'see usps and mnist'),
    (('usps',), 'missing', 'see mnist'),
    (('usps', 'mnist'), 'ready', 'see usps and mnist'),
  )
  def test_command_lists_it(self, there, state, where):
    for name in there:
      self.write(name)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      command_line.main(['--check', '--data_dir', str(self.data_dir)])
    lines = out.getvalue().splitlines()
    self.assertEqual([line.split()[0] for line in lines], list(sources.NAMES))
    self.assertIn(
      ['usps_to_mnist', state, where],
      [line.split(maxsplit=2) for line in lines],
    )

  def test_command_prepares_both(self):
    self.write_both()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      command_line.main(
        ['--prepare', 'usps_to_mnist', '--data_dir', str(self.data_dir)]
      )
    usps, mnist = out.getvalue().splitlines()
    self.assertStartsWith(usps, 'usps is ready')
    self.assertStartsWith(mnist, 'mnist is ready')


class CacheTest(TempDirTest):
  def test_second_load_does_not_decode(self):
    _, splits = self.write()
    self.load()
    with mock.patch.object(records, 'decode') as decode:
      self.assert_arrays(self.load().train, splits['train'])
    decode.assert_not_called()

  def test_changed_data_are_read_again(self):
    folder, _ = self.write()
    self.load()
    shutil.rmtree(folder)
    _, splits = self.write(counts={'train': 12, 'test': 6})
    self.assert_arrays(self.load().test, splits['test'])

  def test_damaged_entry_is_made_again(self):
    _, splits = self.write()
    self.load()
    for entry in self.cache_dir.iterdir():
      content = bytearray(entry.read_bytes())
      content[-1] ^= 255
      entry.write_bytes(content)
    self.assert_arrays(self.load().train, splits['train'])

  def test_two_copies_do_not_share_an_entry(self):
    self.write(version='1.0.0', counts={'train': 3, 'test': 3})
    self.load()
    _, splits = self.write(version='1.0.1')
    self.assert_arrays(self.load().train, splits['train'])


class ErrorTest(TempDirTest):
  def test_unknown_name(self):
    self.assert_fails('fashion_mnits', "did you mean 'fashion_mnist'?")

  @parameterized.parameters('mnist', 'svhn', 'svhn_extra', 'stl10', 'usps')
  def test_missing_set_fails_fast_and_names_the_command(self, name):
    started = time.monotonic()
    command = f'python -m nsl_jax data --prepare {name} --data_dir '
    self.assert_fails(name, command + str(self.data_dir))
    self.assertLess(time.monotonic() - started, 2)

  def test_remote_folder(self):
    with self.assertRaisesRegex(errors.UserError, 'not a local folder'):
      sources.load('mnist', 'gs://bucket/data')

  @parameterized.parameters(0, 100, 65536, 100000, -1)
  def test_truncated_shard(self, length):
    folder, _ = self.write('stl10')
    shard = next(folder.glob('*-train.*'))
    shard.write_bytes(shard.read_bytes()[:length])
    self.assert_fails('stl10', 'split train', folder, '--prepare stl10')
    self.assertEmpty(list(self.cache_dir.glob('*')))

  def test_missing_shard(self):
    folder, _ = self.write()
    next(folder.glob('*-train.*')).unlink()
    self.assert_fails('mnist', folder, '--prepare mnist')

  @parameterized.parameters('features.json', 'dataset_info.json')
  def test_damaged_description(self, file):
    folder, _ = self.write()
    (folder / file).write_text('{"featuresDict": 3')
    self.assert_fails('mnist', folder, '--prepare mnist')

  def test_too_few_records(self):
    self.write()
    blocks = records._in_blocks
    short = lambda rows: itertools.islice(blocks(rows), 11)
    with mock.patch.object(records, '_in_blocks', short):
      self.assert_fails('mnist', 'only 11 of 12 examples')

  def test_images_of_two_sizes(self):
    self.write()
    small = tfds_fixtures.encode(np.zeros((8, 9, 1), np.uint8), 'png')
    blocks = records._in_blocks
    mixed = lambda rows: itertools.chain(
      itertools.islice(blocks(rows), 11), [{'image': small, 'label': 0}]
    )
    with mock.patch.object(records, '_in_blocks', mixed):
      self.assert_fails('mnist', 'differ in size', 'row 11 9x8)')

  def test_missing_split(self):
    self.write('svhn_cropped')
    self.assert_fails('svhn_extra', "no examples in split 'extra'")

  def test_labels_out_of_range(self):
    folder, _ = self.write(counts={'train': 50, 'test': 50})
    file = folder / 'features.json'
    features = json.loads(file.read_text())
    label = features['featuresDict']['features']['label']
    label['classLabel']['numClasses'] = '4'
    file.write_text(json.dumps(features))
    self.assert_fails('mnist', 'outside [0, 4)', folder)
    self.assert_fails('mnist', 'outside [0, 4)', folder)  # From the cache.

  def test_five_channels(self):
    folder, _ = self.write('cifar10')
    file = folder / 'features.json'
    features = json.loads(file.read_text())
    image = features['featuresDict']['features']['image']['image']
    image['shape']['dimensions'][-1] = '5'
    file.write_text(json.dumps(features))
    self.assert_fails(
      'cifar10', '5 channels; only 1 and 3', 'write the data set with'
    )

  def test_tfrecord_without_tensorflow(self):
    folder, _ = self.write()
    file = folder / 'dataset_info.json'
    file.write_text(file.read_text().replace('array_record"', 'tfrecord"'))
    with mock.patch.object(prepare, 'has_module', return_value=False):
      self.assert_fails('mnist', 'pip install tensorflow', folder)


class RealDataTest(parameterized.TestCase):
  @parameterized.parameters(('mnist', 10000), ('cifar10', 10000))
  def test_test_split(self, name, count):
    if not os.environ.get('TFDS_DATA_DIR'):
      self.skipTest('TFDS_DATA_DIR is not set')
    folder = prepare.newest(name)
    if folder is None:
      self.skipTest(f'{name} is not in TFDS_DATA_DIR')
    layout = prepare.read_layout(name, folder)
    (images, labels), facts = records.decode(layout, 'test')
    self.assertFalse(any(facts.values()))
    self.assertEqual(images.shape, (count, *_SHAPES[name]))
    self.assertEqual(np.unique(labels).tolist(), list(range(10)))
    if name == 'mnist':
      self.assertAlmostEqual(images.mean(), 33.791, delta=0.01)

  def test_usps_to_mnist(self):
    if not os.environ.get('TFDS_DATA_DIR'):
      self.skipTest('TFDS_DATA_DIR is not set')
    for name in sources.ADAPTATIONS['usps_to_mnist']:
      if prepare.status(name)[0] != 'ready':
        self.skipTest(f'{name} is not in TFDS_DATA_DIR')
    if not prepare.newest('usps') and not prepare.has_module('h5py'):
      self.skipTest('h5py, which reads usps.h5, is not installed')
    load = sources.load
    black = lambda n: sources.Arrays(
      np.zeros((n, 28, 28, 1), np.uint8), np.arange(n, dtype=np.int32) % 10
    )
    # MNIST takes long to decode, and is read as in any other config.
    mnist = sources.Source('mnist', 10, black(60_000), black(10_000), '')
    with mock.patch.object(
      sources,
      'load',
      lambda name, *a, **k: mnist if name == 'mnist' else load(name, *a, **k),
    ):
      source = load('usps_to_mnist')
    images, labels = source.train
    self.assertEqual(images.shape, (67_291, 28, 28, 1))
    self.assertEqual(source.test.images.shape, (10_000, 28, 28, 1))
    self.assertEqual(
      np.bincount(labels[:7291]).tolist(),
      [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644],
    )
    self.assertAlmostEqual(images[:7291].mean(), 65.148, delta=0.01)
    self.assertEqual(images[7291:].max(), 0)
    split = splits_lib.make(
      labels,
      10,
      labeled=7291,
      validation=0,
      rule='uniform',
      validation_rule='uniform',
      seed=0,
    )
    np.testing.assert_array_equal(split.labeled, np.arange(7291))
    np.testing.assert_array_equal(split.unlabeled, np.arange(7291, 67_291))


if __name__ == '__main__':
  absltest.main()
