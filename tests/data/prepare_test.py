"""Tests of the data command and of making data sets ready."""

import time
from unittest import mock

from absl.testing import absltest, parameterized
from data_command import TempDirTest, run_command

from nsl_jax.data import download, prepare


class PrepareTest(TempDirTest):
  def prepare(self, name):
    return run_command('--prepare', name, '--data_dir', str(self.data_dir))

  def assert_fails(self, name, *parts):
    """The command fails with status 2 and one line that has all the parts."""
    code, out, err = self.prepare(name)
    self.assertEqual((code, out, err.count('\n')), (2, '', 1))
    for part in parts:
      self.assertIn(str(part), err)

  def test_nothing_to_do(self):
    folder = self.write()
    code, out, _ = self.prepare('svhn')
    self.assertEqual((code, out), (0, f'svhn is ready: {folder}\n'))
    self.assertEqual(self.prepare('digits')[0], 0)

  def test_unknown_name(self):
    self.assert_fails('cifar', 'did you mean')

  def test_without_tensorflow(self):
    with mock.patch.object(prepare, 'has_module', return_value=False):
      self.assert_fails('svhn', 'pip install tensorflow')

  def test_damaged_set_names_the_folder(self):
    folder = self.write()
    (folder / 'features.json').unlink()
    self.assert_fails('svhn', folder, '--prepare svhn')

  @parameterized.parameters(
    ('svhn', 'test_32x32.mat (64275384 bytes, SHA-256 cdce80dfb2a2c4c6'),
    ('svhn_extra', 'extra_32x32.mat (1329278602 bytes'),
    ('cifar10', 'cifar-10-binary.tar.gz (170052171 bytes'),
    ('cifar100', 'cifar-100-binary.tar.gz (168513733 bytes'),
    ('stl10', 'stl10_binary.tar.gz (2640397119 bytes'),
    ('mnist', 't10k-labels-idx1-ubyte.gz (4542 bytes'),
  )
  def test_offline_names_files_and_folder_at_once(self, name, archive):
    self.enter_context(mock.patch.object(prepare, 'has_module'))
    self.enter_context(
      mock.patch.object(download, '_reachable', return_value=False)
    )
    started = time.monotonic()
    self.assert_fails(name, archive, f'into {self.manual}, then run: python -m')
    self.assertLess(time.monotonic() - started, 5)

  def test_archive_of_wrong_size(self):
    self.enter_context(mock.patch.object(prepare, 'has_module'))
    archive = self.manual / 'cifar-10-binary.tar.gz'
    archive.write_text('short')
    self.assert_fails('cifar10', f'{archive} has 5 bytes', '170052171 bytes')

  def test_own_manual_folder_comes_first(self):
    self.enter_context(mock.patch.object(prepare, 'has_module'))
    (self.manual / 'mnist').mkdir()
    archive = self.manual / 'mnist' / 't10k-labels-idx1-ubyte.gz'
    archive.write_text('short')
    self.assert_fails('mnist', f'{archive} has 5 bytes')

  def test_has_help(self):
    status, out, _ = run_command('--help')
    self.assertEqual(status, 0)
    for word in ('--check', '--prepare', '--data_dir', 'downloads/manual'):
      self.assertIn(word, out)


if __name__ == '__main__':
  absltest.main()
