"""A run whose work folder is in a bucket: the clients are the real ones, the
bucket is a server on the loopback.
"""

import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time
from unittest import mock

import fake_bucket
import fresh_process
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from etils import epath
from repository import ROOT

from nsl_jax import errors, files
from nsl_jax.data import split_file
from nsl_jax.inference import loading, predictor, tables
from nsl_jax.training import checkpoint, lock, metrics_log

_SERVER = fake_bucket.Bucket()
os.environ.update(_SERVER.environment)  # before gcsfs is imported
pytest.importorskip('gcsfs', reason='gcsfs is not installed')
_WORDS = (
  '--config=configs/digits_supervised.py:reduced=60',
  '--config.checkpoint.every=10',
  '--config.log_every=4',
  '--config.eval.every_steps=15',
)
# Without the wait of a minute for one that was killed.
_TRAIN = (
  'import sys\n'
  'from nsl_jax import __main__ as commands\n'
  'from nsl_jax.training import lock\n'
  'lock._LEASE_S = 1.0\n'
  'sys.argv.insert(1, "train")\n'
  'commands.main()\n'
)


def _start(workdir):
  return subprocess.Popen(
    [sys.executable, '-c', _TRAIN, *_WORDS, f'--workdir={workdir}'],
    cwd=ROOT,
    text=True,
    env=fresh_process.environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )


def _lines(folder):
  found = metrics_log.read(folder / 'seed_0' / 'metrics.jsonl')
  return [{k: v for k, v in line.items() if k != 'seconds'} for line in found]


def setUpModule():
  """One run on disk, one in the bucket that is killed and started again."""
  global _LOCAL, _DISK, _REMOTE, _KILLED
  _LOCAL = tempfile.TemporaryDirectory()
  _DISK = pathlib.Path(_LOCAL.name, 'run')
  _REMOTE = files.path_of('gs://bucket/runs/one', '--workdir')
  unbroken = _start(_DISK)
  process = _start(_REMOTE)
  until = time.monotonic() + 200
  saved = 'bucket/runs/one/seed_0/checkpoints/20/commit_success.txt'
  while saved not in _SERVER.objects and process.poll() is None:
    assert time.monotonic() < until
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  _KILLED = process.returncode, sorted(_SERVER.objects)
  process = _start(_REMOTE)
  for one in (unbroken, process):
    _, err = one.communicate(timeout=200)
    assert one.returncode == 0, err


def tearDownModule():
  """Ends the server."""
  _SERVER.close()
  _LOCAL.cleanup()


class RunTest(absltest.TestCase):
  def test_killed_and_resumed_equals_one_on_disk(self):
    status, objects = _KILLED
    self.assertEqual(status, -signal.SIGKILL)
    self.assertIn('bucket/runs/one/lock.json', objects)
    self.assertNotIn('bucket/runs/one/results.json', objects)
    self.assertLen(_lines(_DISK), 60 // 4 + 60 // 15)
    self.assertEqual(_lines(_REMOTE), _lines(_DISK))
    one, two = (
      json.loads((folder / 'results.json').read_text())
      for folder in (_DISK, _REMOTE)
    )
    self.assertEqual(one['score'], two['score'])
    self.assertEqual(one['split_sha256'], two['split_sha256'])

  def test_weights_are_the_same(self):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    one, two = (
      loading.load(folder).predict_proba(images)
      for folder in (_DISK, str(_REMOTE))
    )
    np.testing.assert_array_equal(one, two)

  def test_files_are_those_of_a_run_on_disk(self):
    self.assertFalse(pathlib.Path('gs:').exists())
    self.assertFalse((_REMOTE / 'lock.json').exists())
    seed, disk = _REMOTE / 'seed_0', _DISK / 'seed_0'
    for name in ('network.json', 'normalization.npz', 'split.npz'):
      self.assertEqual((seed / name).read_bytes(), (disk / name).read_bytes())
    self.assertEqual(
      split_file.load(seed / 'split.npz').sha256(),
      split_file.load(disk / 'split.npz').sha256(),
    )
    self.assertLen(list((seed / 'tb').iterdir()), 2)  # one of each start
    self.assertEqual(
      checkpoint.steps_in(seed / 'checkpoints'),
      checkpoint.steps_in(disk / 'checkpoints'),
    )

  def test_a_checkpoint_without_its_last_file_is_none(self):
    folder = files.path_of('gs://bucket/runs/part', '--workdir')
    (folder / '20' / 'state').mkdir(parents=True, exist_ok=True)
    (folder / '20' / 'state' / '_METADATA').write_text('{}')
    self.assertEqual(checkpoint.steps_in(folder), [])
    store = checkpoint.Checkpoints(folder, keep=1)
    store.keep_only([])
    store.close()
    self.assertFalse((folder / '20').exists())

  def test_predictions(self):
    out = files.path_of('gs://bucket/p/new.csv', '--out')
    tables.check_target(out, overwrite=False)
    read = [predictor.Read('a.png', np.array([0.25, 0.75]), None, ())]
    tables.write(out, read, ('cat', 'dog'), 2)
    self.assertEqual(tables.read(out)[0]['class'], 'dog')
    with self.assertRaisesRegex(errors.UserError, 'exists'):
      tables.check_target(out, overwrite=False)

  def test_half_a_table_is_never_there(self):
    out = files.path_of('gs://bucket/p/half.csv', '--out')

    def found():
      yield predictor.Read('a.png', np.array([0.25, 0.75]), None, ())
      raise OSError(28, 'No space left on device')

    with self.assertRaisesRegex(errors.UserError, 'No space left'):
      tables.write(out, found(), ('cat', 'dog'), 2)
    self.assertFalse(out.exists())


class LockTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = files.path_of(f'gs://bucket/{self.id()}', '--workdir')
    self.path = self.folder / 'lock.json'

  def write(self, **changes):
    content = {
      'host': platform.node(),
      'pid': 2**22 + 1,
      'since': '2020-01-01T00:00:00+00:00',
    }
    self.path.write_text(json.dumps(content | changes))

  def test_holds_and_is_released(self):
    with lock.Lock(self.folder):
      self.assertEqual(json.loads(self.path.read_text())['pid'], os.getpid())
    self.assertFalse(self.path.exists())

  @mock.patch.object(lock, '_LEASE_S', 1.0)
  def test_of_a_dead_process_of_this_host(self):
    self.write()
    with lock.Lock(self.folder):
      pass
    self.assertFalse(self.path.exists())

  @mock.patch.object(lock, '_LEASE_S', 1.0)
  def test_of_another_host(self):
    self.write(host='elsewhere')
    with lock.Lock(self.folder):  # it is not renewed
      pass
    self.write(host='elsewhere', beat=0)
    read, reads = lock.Lock._read, []

    def renewed(self):
      reads.append(1)
      return read(self) | {'beat': len(reads)}

    with mock.patch.object(lock.Lock, '_read', renewed):
      with self.assertRaisesRegex(
        errors.UserError, 'in use by process .* on elsewhere .*: wait for it'
      ):
        lock.Lock(self.folder).take()

  def test_of_two_at_once_one_gets_it(self):
    with mock.patch.object(lock.Lock, '_check_holder_is_dead', lambda *_: None):
      with lock.Lock(self.folder) as first:
        with mock.patch.object(lock.Lock, '_read', lambda _: {}):
          with self.assertRaisesRegex(errors.UserError, 'is in use by'):
            lock.Lock(self.folder).take()
        self.assertTrue(self.path.exists())
        del first


class RefusedTest(absltest.TestCase):
  def test_bucket_that_cannot_be_written(self):
    folder = files.path_of('gs://bucket/readonly', '--workdir')
    begun = time.monotonic()
    with mock.patch.object(_SERVER, 'read_only', True):
      with self.assertRaisesRegex(
        errors.UserError, '^cannot write gs://bucket/readonly/lock.json .*: '
      ) as raised:
        lock.Lock(folder).__enter__()
      with self.assertRaisesRegex(errors.UserError, '^cannot write gs://'):
        files.make_folder(folder, '--out')
    self.assertNotIn('\n', str(raised.exception))
    self.assertLess(time.monotonic() - begun, 10.0)

  def test_no_such_bucket(self):
    folder = files.path_of('gs://missing/run', '--workdir')
    with self.assertRaisesRegex(
      errors.UserError, '^cannot write gs://missing/run/lock.json .no such buck'
    ):
      lock.Lock(folder).__enter__()

  def test_without_its_client(self):
    with mock.patch.object(files.importlib.util, 'find_spec', lambda _: None):
      with self.assertRaisesRegex(errors.UserError, r'nsl_jax\[gcs\]'):
        files.path_of('gs://bucket/run', '--workdir')
    for word in ('gs://', 'gs:///'):
      with self.assertRaisesRegex(errors.UserError, 'names no bucket'):
        files.path_of(word, '--workdir')

  def test_local_paths_stay_local(self):
    self.assertIsInstance(files.path_of('runs/x', '--workdir'), pathlib.Path)
    path = files.path_of('gs://bucket/run', '--workdir')
    self.assertIsInstance(path, epath.Path)
    self.assertEqual(str(files.absolute(path)), 'gs://bucket/run')


if __name__ == '__main__':
  absltest.main()
