"""Several processes: how they join, and the message when one is missing."""

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from unittest import mock

import fresh_process
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from repository import ROOT

from nsl_jax import errors
from nsl_jax.training import metrics_log, processes, sharding

_JOIN = (
  'import os, sys, time\n'
  'from nsl_jax.commands import cli\n'
  'from nsl_jax.training import processes\n'
  'where, number, index, seconds = sys.argv[1:5]\n'
  'def body():\n'
  '  processes.join(where, int(number), int(index), within_s=int(seconds))\n'
  '  print("joined", flush=True)\n'
  '  time.sleep(100)\n'
  'cli.run_command(body)\n'
)
# A process that was one of several, and says what jax does before it aborts.
_ABORT = (
  'import os, signal, sys, time\n'
  'from nsl_jax.training import processes\n'
  'joined = processes._supervise("host:1", 9)\n'
  'sys.stderr.write("\\rbar 10%"); sys.stderr.flush()\n'
  'kind, when = sys.argv[1:3]\n'
  'if when == "joined": os.write(joined, b"x")\n'
  'for part in open(kind).read().split("|"):\n'
  '  os.write(2, part.encode()); time.sleep(0.05)\n'
  'os.kill(os.getpid(), signal.SIGABRT)\n'
)
_F = 'F1128 00:35:50.060530   25855 client.h:80] Terminating process because '
_E = 'E1128 00:35:50.060309   25855 coordination_service_agent.cc:289] Polled\n'


def _port():
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]


def _python(*words):
  return subprocess.Popen(
    [sys.executable, *words],
    cwd=ROOT,
    text=True,
    env=fresh_process.environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )


class RelayTest(parameterized.TestCase):
  @parameterized.parameters(
    (
      f'{_E}{_F}UNAVAILABLE: The following tasks are unhealthy (stopped sending'
      ' heartbeats):\n2\nThe tasks have crashed.\n*** Check failure\n  @ 0x1\n',
      'joined',
      'process 2 is lost (silent for 20 s): the same command resumes',
    ),
    (
      f'{_F}UNAVAILABLE: The following tasks are unhealthy (stopped sending '
      'heartbeats):\n/job:jax_worker/replica:0/task:3\n/job:jax_worker/replica:'
      '0/task:11\nThe tasks have crashed.\n',
      'joined',
      'processes 3, 11 are lost',
    ),
    (
      f'F11|28{_F[5:]}UNAVAILABLE: Socket closed\nRPC: /x/PollForError\n',
      'joined',
      'process 0, the coordinator at host:1, is lost',
    ),
    (f'{_F}INTERNAL: new\n', 'joined', 'another process is lost'),
    (
      f'{_F}DEADLINE_EXCEEDED\n\nRPC: /x/RegisterTask\n*** Check failure',
      'not yet',
      'the processes did not all connect to host:1 within 9 s: start all',
    ),
  )
  def test_an_abort_of_jax_is_one_line(self, printed, when, line):
    with tempfile.NamedTemporaryFile('w') as file:
      file.write(printed)
      file.flush()
      done = _python('-c', _ABORT, file.name, when)
      _, err = done.communicate(timeout=60)
    self.assertEqual(done.returncode, processes.LOST, err)
    bar, *lines = re.split('[\r\n]+', err.strip())[0:]
    self.assertEqual(bar, 'bar 10%')
    self.assertLen(lines, 1, err)
    self.assertStartsWith(lines[0], f'error: {line}')

  def test_another_abort_stays_one(self):
    with tempfile.NamedTemporaryFile('w') as file:
      file.write('terminate called\n')
      file.flush()
      done = _python('-c', _ABORT, file.name, 'joined')
      _, err = done.communicate(timeout=60)
    self.assertEqual(done.returncode, -signal.SIGABRT)
    self.assertEqual(err, '\nbar 10%terminate called\n')  # \r, as text

  def test_killed(self):
    code = (
      'import os, signal\n'
      'from nsl_jax.training import processes\n'
      'processes._supervise("host:1", 9)\n'
      'os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    done = _python('-c', code)
    _, err = done.communicate(timeout=60)
    self.assertEqual(done.returncode, 128 + signal.SIGKILL)
    self.assertRegex(
      err, '^\n?error: killed, as when the memory is exhausted\n$'
    )

  def test_what_is_not_fatal_is_held_back_for_a_moment_only(self):
    code = (
      'import os, sys, time\n'
      'from nsl_jax.training import processes\n'
      'processes._HOLD_S = 0.5\n'
      'processes._supervise("host:1", 9)\n'
      f'os.write(2, {_E!r}.encode())\n'
      'time.sleep(1.5)\n'
      'os.write(1, b"alive")\n'
      'time.sleep(100)\n'
    )
    done = _python('-c', code)
    self.addCleanup(done.communicate)
    self.addCleanup(done.kill)
    self.assertEqual(done.stderr.readline(), _E)
    self.assertEqual(done.stdout.read(5), 'alive')


class JoinTest(parameterized.TestCase):
  def test_nobody_or_too_few_are_there(self):
    begun = time.monotonic()
    nobody, port = f'localhost:{_port()}', _port()
    alone = _python('-c', _JOIN, nobody, '2', '1', '3')
    few = [
      _python('-c', _JOIN, f'localhost:{port}', '3', str(i), '5')
      for i in range(2)
    ]
    out, err = alone.communicate(timeout=120)
    self.assertEqual((alone.returncode, out), (2, ''), err)
    self.assertLen(err.splitlines(), 1, err)
    self.assertStartsWith(
      err, f'error: no coordinator at {nobody} within 3 s (Connection refused)'
    )
    for process in few:
      out, err = process.communicate(timeout=120)
      self.assertEqual((process.returncode, out), (processes.LOST, ''), err)
      self.assertLen(err.splitlines(), 1, err)
      self.assertStartsWith(
        err,
        f'error: the processes did not all connect to localhost:{port} within',
      )
    self.assertLess(time.monotonic() - begun, 100)

  @parameterized.parameters(
    (('h:1', 2, None), 'give all of'),
    ((None, None, 1), 'give all of'),
    (('h', 2, 0), '--coordinator_address=h: must be HOST:PORT'),
    (('h:x', 2, 0), '--coordinator_address=h:x: must be HOST:PORT'),
    (('h:65536', 2, 0), '--coordinator_address=h:65536: must be HOST:PORT'),
    (('h:1', 2, 2), '--process_id=2: must be from 0 to .* = 1'),
    (('h:1', 2, -1), '--process_id=-1: must be'),
  )
  def test_invalid(self, words, message):
    with self.assertRaisesRegex(errors.UserError, message):
      processes.join(*words)

  def test_no_time_to_join(self):
    with self.assertRaisesRegex(errors.UserError, '^--join_s=0: must be at'):
      processes.join('h:1', 2, 0, within_s=0)

  def test_two_tasks_of_slurm(self):
    """Joined by the variables of Slurm alone, which jax reads."""
    port = _port()
    code = (
      'import jax, sys\n'
      'from nsl_jax.training import processes\n'
      'processes.join(None, None, None)\n'
      'print(jax.process_index(), jax.process_count(), flush=True)\n'
    )
    started = [
      subprocess.Popen(
        [sys.executable, '-c', code],
        cwd=ROOT,
        text=True,
        env=fresh_process.environment(
          SLURM_JOB_ID=str(port),  # from which jax takes the port
          SLURM_STEP_NODELIST='localhost',
          SLURM_NTASKS='2',
          SLURM_PROCID=str(index),
          SLURM_LOCALID=str(index),
          SLURM_STEP_NUM_TASKS='2',
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
      )
      for index in range(2)
    ]
    for index, process in enumerate(started):
      out, err = process.communicate(timeout=120)
      self.assertEqual(process.returncode, 0, err)
      self.assertEqual(out.splitlines()[-1], f'{index} 2')


class FirstProcessTest(parameterized.TestCase):
  def test_an_error_of_the_first_ends_all_in_the_same_way(self):
    code = (
      'import sys\n'
      'from nsl_jax import errors\n'
      'from nsl_jax.commands import cli\n'
      'from nsl_jax.training import processes, sharding\n'
      'def fail():\n'
      '  raise errors.UserError("the split is damaged")\n'
      'def body():\n'
      '  processes.join(sys.argv[1], 2, int(sys.argv[2]))\n'
      '  assert sharding.in_first_process(lambda: 3, "count") in (3, None)\n'
      '  sharding.check_same(lambda: b"of all", "another config")\n'
      '  try:\n'
      '    index = sys.argv[2].encode()\n'
      '    sharding.check_same(lambda: index, "another config")\n'
      '  except errors.UserError as error:\n'
      '    print(error, file=sys.stderr)\n'
      '  sharding.in_first_process(fail, "use the split")\n'
      'cli.run_command(body)\n'
    )
    where = f'localhost:{_port()}'
    started = [_python('-c', code, where, str(i)) for i in range(2)]
    differs = (
      'process 1 has another config than process 0: give all processes the '
      'same command and the same data\n'
    )
    self.assertEqual(
      [(p.communicate(timeout=120)[1], p.returncode) for p in started],
      [
        (f'{differs}error: the split is damaged\n', 2),
        (
          f'{differs}error: process 0 cannot use the split: see what it says\n',
          2,
        ),
      ],
    )

  @parameterized.parameters(errors.UserError, errors.WriteError)
  def test_others_raise_the_same_kind(self, kind):
    told = []

    def fail():
      raise kind('no')

    for index in (0, 1):
      with (
        mock.patch.object(sharding.jax, 'process_index', lambda: index),
        mock.patch.object(
          sharding.jax.distributed, 'is_initialized', lambda: True
        ),
        mock.patch.object(
          sharding, 'process_max', lambda n: told.append(n) or max(told)
        ),
        self.assertRaisesRegex(kind, 'process 0 cannot x' if index else '^no$'),
      ):
        sharding.in_first_process(fail, 'x')
    self.assertEqual(told[1], 0)


# Evaluates by several processes, and prints what a single one found, too.
_EVALUATE = """
import json, sys
import numpy as np
from nsl_jax.training import evaluate, processes, sharding
from nsl_jax.types import Method

def found():
  mesh = sharding.make()
  predict = lambda state, x: x.reshape(x.shape[0], -1) @ state
  measure = evaluate.make_evaluate(
    Method(init=None, update=None, predict=predict), lambda _, x: x / 255
  )
  results = []
  for count, batch in ((16, 6), (17, 6), (13, 5), (2, 8), (1, 1), (500, 64)):
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 2, 3, 1)).astype(np.uint8)
    labels = rng.integers(0, 3, count).astype(np.int32)
    weights = rng.normal(size=(6, 3)).astype(np.float32)
    for stream in (False, True):
      results.append(measure(
        sharding.put(weights, sharding.replicated_sharding(mesh)),
        {},
        evaluate.on_device(images, labels, batch, mesh, stream=stream),
      ))
  return results

if len(sys.argv) > 1:
  processes.join(sys.argv[1], 3, int(sys.argv[2]))
print(json.dumps(found()))
"""


class EvaluateTest(absltest.TestCase):
  def test_uneven_shards_give_the_numbers_of_a_single_process(self):
    where = f'localhost:{_port()}'
    started = [_python('-c', _EVALUATE, where, str(i)) for i in range(3)]
    started.append(_python('-c', _EVALUATE))
    ended = [p.communicate(timeout=120) for p in started]
    self.assertEqual([p.returncode for p in started], [0] * 4, ended)
    *several, single = [json.loads(out.splitlines()[-1]) for out, _ in ended]
    for results in several:
      for found, expected in zip(results, single, strict=True):
        self.assertEqual(found['error'], expected['error'])
        self.assertEqual(found['by_class'], expected['by_class'])
        np.testing.assert_allclose(
          found['cross_entropy'], expected['cross_entropy'], rtol=1e-6
        )


@pytest.mark.slow
class LostTest(absltest.TestCase):
  def test_of_four_one_is_killed_and_the_same_command_resumes(self):
    words = (
      *('-m', 'nsl_jax', 'train'),
      '--config=configs/digits_ns3l.py:reduced=120',
      *('--config.batch.labeled=48', '--config.batch.unlabeled=48'),
      *('--config.log_every=5', '--config.eval.every_steps=30'),
      *('--config.checkpoint.every=20', '--num_processes=4'),
    )

    def start(folder):
      where = f'--coordinator_address=localhost:{_port()}'
      return [
        _python(*words, where, f'--process_id={i}', f'--workdir={folder}')
        for i in range(4)
      ]

    def lines(folder):
      found = metrics_log.read(folder / 'seed_0' / 'metrics.jsonl')
      return [{k: v for k, v in one.items() if k != 'seconds'} for one in found]

    with tempfile.TemporaryDirectory() as folder:
      broken, unbroken = pathlib.Path(folder, 'a'), pathlib.Path(folder, 'b')
      started = start(broken)
      while not (broken / 'seed_0' / 'checkpoints' / '40').exists():
        self.assertIsNone(started[2].poll())
        time.sleep(0.1)
      started[2].kill()
      begun = time.monotonic()
      for index, process in enumerate(started):
        _, err = process.communicate(timeout=120)
        if index != 2:
          self.assertEqual(process.returncode, processes.LOST, err)
          self.assertRegex(err, r'error: process 2 is lost .*\n$')
          self.assertNotIn('Traceback', err)
          self.assertNotIn('stack trace', err)
      self.assertLess(time.monotonic() - begun, 40)
      for where in (broken, unbroken):
        for process in start(where):
          _, err = process.communicate(timeout=400)
          self.assertEqual(process.returncode, 0, err)
      self.assertEqual(lines(broken), lines(unbroken))


if __name__ == '__main__':
  absltest.main()
