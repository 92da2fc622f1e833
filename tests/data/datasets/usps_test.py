"""USPS: made of its HDF5 file, in which folder, and what is wrong."""

from unittest import mock

import h5py
import numpy as np
import tfds_fixtures
from absl.testing import absltest, parameterized
from data_command import TempDirTest, run_command

from nsl_jax import errors
from nsl_jax.data import cache, prepare, sources, versions
from nsl_jax.data.datasets import usps


class UspsTest(TempDirTest):
  def assert_holds(self, source, data, target):
    images = np.floor(data * np.float32(255)).reshape(-1, 16, 16, 1)
    np.testing.assert_array_equal(source.train.images, images)
    np.testing.assert_array_equal(source.test.labels, target)
    self.assertEqual(source.train.images.dtype, np.uint8)
    self.assertEqual(source.num_classes, 10)

  def test_load_prepares_in_the_data_folder(self):
    data, target = self.write_usps()
    self.assert_holds(sources.load('usps', self.data_dir), data, target)
    self.assertIsNotNone(prepare.newest('usps', self.data_dir))

  def test_unwritable_data_folder_uses_the_cache(self):
    data, target = self.write_usps()
    self.data_dir.chmod(0o555)
    self.addCleanup(self.data_dir.chmod, 0o755)
    for _ in range(2):
      self.assert_holds(sources.load('usps', self.data_dir), data, target)
    self.assertIsNone(prepare.newest('usps', self.data_dir))

  def test_command(self):
    self.write_usps()
    code, out, _ = run_command(
      '--prepare', 'usps', '--data_dir', str(self.data_dir)
    )
    folder = self.data_dir / 'usps' / '1.1.0'
    self.assertEqual((code, out), (0, f'usps is ready: {folder}\n'))

  def test_what_an_older_rule_made_is_not_used(self):
    data, target = self.write_usps()
    old = tfds_fixtures.random_split(3, (16, 16, 1), 10, seed=5)
    tfds_fixtures.write(
      self.data_dir, 'usps', {'train': old, 'test': old}, 10, version='1.0.0'
    )
    state, where = prepare.status('usps', self.data_dir)
    self.assertEqual((state, where[-7:]), ('ready', 'usps.h5'))
    self.assert_holds(sources.load('usps', self.data_dir), data, target)
    (self.manual / 'usps.h5').unlink()  # no longer needed
    self.assert_holds(sources.load('usps', self.data_dir), data, target)

  def test_what_an_older_rule_made_in_the_cache_is_not_used(self):
    data, target = self.write_usps()
    key = cache.fingerprint([self.manual / 'usps.h5'])[:12]
    old = tfds_fixtures.random_split(3, (16, 16, 1), 10, seed=5)
    tfds_fixtures.write(
      self.folder / 'cache' / f'prepared-{key}',
      'usps',
      {'train': old, 'test': old},
      10,
      version='1.0.0',
    )
    self.data_dir.chmod(0o555)
    self.addCleanup(self.data_dir.chmod, 0o755)
    self.assert_holds(sources.load('usps', self.data_dir), data, target)

  def test_two_processes_prepare_at_once(self):
    data, target = self.write_usps()
    prepare_it = usps.Usps.download_and_prepare

    def second(builder, **words):  # the first has renamed its folder meanwhile
      prepare_it(builder, **words)
      raise OSError('Cannot rename: already exists')

    with mock.patch.object(usps.Usps, 'download_and_prepare', second):
      self.assert_holds(sources.load('usps', self.data_dir), data, target)

  def test_pixels_are_rounded_down(self):
    self.write_usps()
    with h5py.File(self.manual / 'usps.h5', 'r+') as file:
      file['train/data'][0, :4] = [0.0, 0.5, 0.999, 1.0]  # 127.5, 254.7
    images = sources.load('usps', self.data_dir).train.images
    self.assertEqual(images[0, 0, :4, 0].tolist(), [0, 127, 254, 255])

  def test_class_out_of_range_is_named(self):
    self.write_usps()
    with h5py.File(self.manual / 'usps.h5', 'r+') as file:
      file['train/target'][0] = 11
    with self.assertRaisesRegex(errors.UserError, 'Class label 11 greater'):
      sources.load('usps', self.data_dir)

  @parameterized.parameters('1.0.0', '2.0.0')
  def test_only_another_version_is_there(self, version):
    pair = tfds_fixtures.random_split(3, (16, 16, 1), 10)
    tfds_fixtures.write(
      self.data_dir, 'usps', {'train': pair, 'test': pair}, 10, version=version
    )
    self.assertEqual(prepare.status('usps', self.data_dir)[0], 'missing')
    message = f'put usps.h5 .*; usps {version} there is not read, since usps 1'
    with self.assertRaisesRegex(errors.UserError, message):
      sources.load('usps', self.data_dir)

  def test_versions_are_those_of_the_builders(self):
    from nsl_jax.data.datasets import aflw, tiny_imagenet

    self.assertEqual(set(versions.MADE), set(prepare.MANUAL))
    for builder in (aflw.Aflw, tiny_imagenet.TinyImagenet, usps.Usps):
      version = str(builder.VERSION)
      self.assertEqual(versions.MADE[builder.name], version)
      self.assertIn(version, builder.RELEASE_NOTES)

  def test_missing_file(self):
    with self.assertRaisesRegex(errors.UserError, f'into {self.manual}, then'):
      sources.load('usps', self.data_dir)

  @parameterized.parameters(2.0, -1.0)
  def test_values_out_of_range(self, scale):
    self.write_usps(scale=scale)
    with self.assertRaisesRegex(errors.UserError, r'must lie in \[0, 1\]'):
      sources.load('usps', self.data_dir)
    self.assertIsNone(prepare.newest('usps', self.data_dir))

  def test_damaged_file(self):
    (self.manual / 'usps.h5').write_text('not HDF5')
    with self.assertRaisesRegex(errors.UserError, 'usps.h5'):
      sources.load('usps', self.data_dir)


if __name__ == '__main__':
  absltest.main()
