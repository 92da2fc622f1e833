"""Tests of the data command and of making data sets ready."""

import contextlib
import http.server
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from unittest import mock

import h5py
import numpy as np
import tfds_fixtures
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.commands import cli, data as command_line
from nsl_jax.data import cache, download, prepare, sources, versions


def _run(*arguments: str) -> tuple[int, str, str]:
  """Exit status, stdout and stderr of the command."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      with mock.patch.object(cli, '_keep_compilations'):
        cli.run_command(lambda: command_line.main(arguments))
      code = 0
    except SystemExit as stop:
      code = stop.code
  return code, out.getvalue(), err.getvalue()


class TempDirTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    self.data_dir = self.folder / 'data'
    self.manual = self.data_dir / 'downloads' / 'manual'
    self.manual.mkdir(parents=True)
    cache_dir = str(self.folder / 'cache')
    self.enter_context(mock.patch.dict(os.environ, NSL_JAX_CACHE=cache_dir))

  def write(self, tfds_name='svhn_cropped'):
    pair = tfds_fixtures.random_split(4, (8, 8, 3), 10)
    splits = {'train': pair, 'test': pair}
    return tfds_fixtures.write(self.data_dir, tfds_name, splits, 10)

  def write_usps(self, count=6, scale=1.0):
    """A usps.h5 of random images; returns (data f32[n, 256], target i32[n])."""
    rng = np.random.default_rng(0)
    data = rng.random((count, 256), np.float32) * scale
    target = rng.integers(0, 10, count).astype(np.int32)
    with h5py.File(self.manual / 'usps.h5', 'w') as file:
      for split in ('train', 'test'):
        file[f'{split}/data'], file[f'{split}/target'] = data, target
    return data, target


class CheckTest(TempDirTest):
  def check(self):
    code, out, _ = _run('--check', '--data_dir', str(self.data_dir))
    self.assertEqual(code, 0)
    return {
      line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()
    }

  def test_every_name_has_a_line(self):
    folder = self.write()
    lines = self.check()
    self.assertEqual(tuple(lines), sources.NAMES)
    self.assertStartsWith(lines['digits'], 'ready')
    self.assertRegex(lines['svhn'], f'^ready +{folder}$')
    self.assertRegex(lines['svhn_extra'], f'^ready +{folder}$')
    self.assertRegex(lines['stl10'], f'^missing +{self.data_dir}/stl10$')
    self.assertStartsWith(lines['usps'], 'missing')

  def test_tfrecord_damaged_and_usps(self):
    folder = self.write()
    file = folder / 'dataset_info.json'
    file.write_text(file.read_text().replace('array_record"', 'tfrecord"'))
    (self.write('cifar100') / 'features.json').unlink()
    self.write_usps()
    lines = self.check()
    self.assertStartsWith(lines['svhn'], 'TFRecord only')
    self.assertStartsWith(lines['cifar100'], 'damaged')
    self.assertIn('usps.h5', lines['usps'])

  def test_converted_copy_beside_tfrecord_is_ready(self):
    file = self.write() / 'dataset_info.json'
    info = file.read_text().replace('"array_record"', '"tfrecord"')
    info = info.replace('{', '{"alternativeFileFormats": ["array_record"],', 1)
    file.write_text(info)
    self.assertStartsWith(self.check()['svhn'], 'ready')
    source = sources.load('svhn', self.data_dir)
    self.assertLen(source.train.labels, 4)


class PrepareTest(TempDirTest):
  def prepare(self, name):
    return _run('--prepare', name, '--data_dir', str(self.data_dir))

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

  def test_module_runs_and_has_help(self):
    done = subprocess.run(
      [sys.executable, '-m', 'nsl_jax', 'data', '--help'],
      capture_output=True,
      text=True,
      check=True,
    )
    for word in ('--check', '--prepare', '--data_dir', 'downloads/manual'):
      self.assertIn(word, done.stdout)


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
    code, out, _ = _run('--prepare', 'usps', '--data_dir', str(self.data_dir))
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
    from nsl_jax.data.datasets import aflw, tiny_imagenet, usps

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


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers HEAD /<status> with that status."""

  def do_HEAD(self):
    self.send_response(int(self.path[1:]))
    self.end_headers()

  def log_message(self, *unused_arguments):
    pass


class ReachableTest(parameterized.TestCase):
  @parameterized.parameters((200, True), (405, True), (404, False))
  def test_status(self, status, want):
    server = http.server.HTTPServer(('127.0.0.1', 0), _Handler)
    self.addCleanup(server.server_close)
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    url = f'http://127.0.0.1:{server.server_port}/{status}'
    with mock.patch.dict(os.environ, no_proxy='*'):
      self.assertEqual(download._reachable(url), want)
    thread.join()

  def test_silent_server_does_not_hang(self):
    server = http.server.HTTPServer(('127.0.0.1', 0), _Handler)  # Never reads.
    self.addCleanup(server.server_close)
    url = f'http://127.0.0.1:{server.server_port}/200'
    self.enter_context(mock.patch.dict(os.environ, no_proxy='*'))
    self.enter_context(mock.patch.object(download, '_CONNECT_SECONDS', 0.2))
    self.assertFalse(download._reachable(url))


if __name__ == '__main__':
  absltest.main()
