"""One run at a time in a folder, and none locked out by one that died."""

import contextlib
import errno
import io
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import threading
import time
from unittest import mock

import fresh_process
import temporary
from absl.testing import absltest, parameterized
from repository import ROOT

from nsl_jax import errors
from nsl_jax.training import lock

_SMOKE = ('--config=configs/digits_supervised.py:smoke=true',)


class LockTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    self.path = self.folder / 'lock.json'

  def refused(self, *words):
    with self.assertRaises(errors.UserError) as raised:
      lock.Lock(self.folder).take()
    for word in words:
      self.assertIn(word, str(raised.exception))
    self.assertNotIn('\n', str(raised.exception))

  def write(self, **changes):
    content = {
      'host': platform.node(),
      'pid': 2**22 + 1,
      'since': '2020-01-01T00:00:00+00:00',
    }
    self.path.write_text(json.dumps(content | changes))

  def test_holds_until_the_end(self):
    with lock.Lock(self.folder) as held:
      content = json.loads(self.path.read_text())
      self.assertEqual(
        (content['host'], content['pid']), (platform.node(), os.getpid())
      )
      held.take()  # again is nothing
      self.refused(
        f'process {os.getpid()} on {platform.node()} since {content["since"]}',
        'another --workdir',
      )
      self.assertEqual(json.loads(self.path.read_text()), content)
    self.assertFalse(self.path.exists())
    with lock.Lock(self.folder):
      self.assertTrue(self.path.exists())

  def test_released_after_an_error(self):
    with self.assertRaises(ZeroDivisionError):
      with lock.Lock(self.folder):
        1 / 0
    self.assertFalse(self.path.exists())

  def test_no_folder_is_made(self):
    with lock.Lock(self.folder / 'run') as held:
      self.assertFalse((self.folder / 'run').exists())
      (self.folder / 'run').mkdir()
      held.take()
      self.assertTrue((self.folder / 'run' / 'lock.json').exists())
    self.assertEqual(list((self.folder / 'run').iterdir()), [])

  @parameterized.parameters('', '{"host', '[]', '{}')
  def test_of_one_that_died_before_it_said_so(self, content):
    self.path.write_text(content)
    with lock.Lock(self.folder):
      self.assertEqual(json.loads(self.path.read_text())['pid'], os.getpid())

  def test_of_one_that_died_here(self):
    self.write()
    with lock.Lock(self.folder):
      self.assertEqual(json.loads(self.path.read_text())['pid'], os.getpid())

  def test_of_another_host_that_is_alive(self):
    self.write(host='elsewhere', pid=17, beat=0)
    renew = threading.Timer(
      0.5, lambda: self.write(host='elsewhere', pid=17, beat=1)
    )
    renew.start()
    begun = time.monotonic()
    self.refused(
      'process 17 on elsewhere since 2020-01-01T00:00:00+00:00: wait for it'
    )
    self.assertBetween(time.monotonic() - begun, 0.4, 5.0)
    self.assertEqual(json.loads(self.path.read_text())['beat'], 1)

  @mock.patch.object(lock, '_LEASE_S', 0.5)
  def test_of_another_host_that_died(self):
    self.write(host='elsewhere', pid=17, beat=3)
    with lock.Lock(self.folder):
      self.assertEqual(json.loads(self.path.read_text())['pid'], os.getpid())

  @mock.patch.object(lock, '_BEAT_S', 0.05)
  def test_is_renewed_until_the_end(self):
    beat = lambda: json.loads(self.path.read_text())['beat']
    with lock.Lock(self.folder):
      first = beat()
      for _ in range(100):
        if beat() > first:
          break
        time.sleep(0.05)
      self.assertGreater(beat(), first)
    time.sleep(0.2)
    self.assertFalse(self.path.exists())

  def test_ends_once_another_run_has_taken_it_over(self):
    code = (
      'import pathlib, sys, time; from nsl_jax.training import lock\n'
      'lock._BEAT_S = 0.05; lock.Lock(pathlib.Path(sys.argv[1])).take()\n'
      'print("held", flush=True); time.sleep(300)'
    )
    holder = subprocess.Popen(
      [sys.executable, '-c', code, str(self.folder)],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    self.assertEqual(holder.stdout.readline(), 'held\n')
    self.write(host='elsewhere', pid=17, token='other')
    _, err = holder.communicate(timeout=60)
    self.assertEqual(holder.returncode, 1)
    self.assertRegex(
      err, f'^error: {self.path} was taken over by process 17 on elsewhere '
    )
    self.assertLen(err.splitlines(), 1)

  @parameterized.parameters('no module', 'an error')
  def test_where_flock_is_missing(self, why):
    """Only the beats tell who is alive: process ids may be of containers."""
    if why == 'no module':
      self.enterContext(mock.patch.object(lock, 'fcntl', None))
    else:
      error = OSError(errno.ENOLCK, 'No locks available')
      self.enterContext(
        mock.patch.object(lock.fcntl, 'flock', side_effect=error)
      )
    self.enterContext(mock.patch.object(lock, '_LEASE_S', 1.0))
    self.enterContext(mock.patch.object(lock, '_BEAT_S', 0.05))
    with lock.Lock(self.folder):
      self.refused(f'process {os.getpid()} on')
    self.assertFalse(self.path.exists())
    self.write(beat=3)  # of a dead one
    with lock.Lock(self.folder):
      self.assertEqual(json.loads(self.path.read_text())['pid'], os.getpid())

  def test_one_that_does_not_answer_is_told_of(self):
    printed = io.StringIO()
    read = lock.Lock._read

    def slowly(held):
      time.sleep(0.3)
      return read(held)

    with (
      mock.patch.object(lock, '_PATIENCE_S', 0.1),
      mock.patch.object(lock.Lock, '_read', slowly),
      contextlib.redirect_stderr(printed),
      lock.Lock(self.folder),
    ):
      pass
    self.assertEqual(
      printed.getvalue(), f'no answer yet from {self.path}: retrying\n'
    )

  def test_does_not_remove_that_of_another(self):
    with lock.Lock(self.folder):
      self.write(host='elsewhere', token='other')
    self.assertEqual(json.loads(self.path.read_text())['token'], 'other')

  def test_of_several_processes_the_first_holds_it_for_all(self):
    agreed = []
    for index, others in ((0, False), (1, False), (1, True)):
      with (
        mock.patch.object(lock.jax, 'process_index', lambda: index),
        mock.patch.object(lock.jax.distributed, 'is_initialized', lambda: True),
        mock.patch.object(
          lock.sharding, 'process_max', lambda n: agreed.append(n) or n | others
        ),
      ):
        if others:
          self.refused('process 0 cannot use')
        else:
          with lock.Lock(self.folder):
            self.assertEqual(self.path.exists(), index == 0)
    # Twice that there is a folder, and that it could be taken.
    self.assertEqual(agreed, [True, False, True, False, False])


class ProcessesTest(absltest.TestCase):
  def test_two_starts_at_once(self):
    with tempfile.TemporaryDirectory() as folder:
      words = ('-m', 'nsl_jax.main', *_SMOKE, f'--workdir={folder}')
      started = [fresh_process.start(*words) for _ in range(2)]
      outputs = [p.communicate(timeout=240) for p in started]
      ended = sorted((p.returncode, *s) for p, s in zip(started, outputs))
      (status, _, err), (refused, out, told) = ended
      self.assertEqual((status, refused), (0, 2), (err, told))
      self.assertEqual(out, '')
      self.assertLen(told.strip().splitlines(), 1, told)
      self.assertRegex(
        told, f'^error: {folder} is in use by process [0-9]+ on .* since '
      )
      lines = pathlib.Path(folder, 'seed_0', 'metrics.jsonl').read_text()
      self.assertLen(lines.splitlines(), 4 + 2)  # every 5 and every 10 of 20
      self.assertFalse(pathlib.Path(folder, 'lock.json').exists())

  def test_killed_holder_is_followed_at_once(self):
    code = (
      'import pathlib, sys, time; from nsl_jax.training import lock\n'
      'lock.Lock(pathlib.Path(sys.argv[1])).take()\n'
      'print("held", flush=True); time.sleep(300)'
    )
    with tempfile.TemporaryDirectory() as folder:
      holder = fresh_process.start('-c', code, folder)
      self.assertEqual(holder.stdout.readline(), 'held\n')
      begun = time.monotonic()
      with self.assertRaisesRegex(errors.UserError, f'process {holder.pid} '):
        lock.Lock(pathlib.Path(folder)).take()
      self.assertLess(time.monotonic() - begun, 1.0)
      holder.kill()
      holder.communicate()
      self.assertTrue(pathlib.Path(folder, 'lock.json').exists())
      with lock.Lock(pathlib.Path(folder)):
        pass


if __name__ == '__main__':
  absltest.main()
