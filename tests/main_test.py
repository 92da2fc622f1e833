"""The main command as a user runs it: real processes, killed and resumed."""

import contextlib
import functools
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import command
import fresh_process
import numpy as np
import orbax.checkpoint as ocp
from absl.testing import absltest, parameterized
from repository import ROOT

from nsl_jax import main
from nsl_jax.training import metrics_log

_DIGITS = 'configs/digits_ns3l.py'
_SHORT = (
  f'--config={_DIGITS}:reduced=60',
  '--config.log_every=3',
  '--config.checkpoint.every=10',
  '--config.eval.every_steps=12',
  '--config.model.name=mlp',
  '--config.model.hidden=16',
)


_start = functools.partial(fresh_process.start, '-m', 'nsl_jax.main')
_run = functools.partial(fresh_process.run, '-m', 'nsl_jax.main')


def _metrics(workdir: pathlib.Path) -> list[dict]:
  lines = metrics_log.read(workdir / 'seed_0' / 'metrics.jsonl')
  return [{k: v for k, v in line.items() if k != 'seconds'} for line in lines]


def _last_state(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  folder = workdir / 'seed_0' / 'checkpoints'
  newest = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
  path = folder.absolute() / str(newest) / 'state'
  tree = ocp.StandardCheckpointer().restore(path)
  flat = {}

  def walk(prefix: str, node) -> None:
    if isinstance(node, (dict, list, tuple)):
      pairs = node.items() if isinstance(node, dict) else enumerate(node)
      for key, child in pairs:
        walk(f'{prefix}/{key}', child)
    elif hasattr(node, 'dtype') and 'key' not in str(node.dtype):
      flat[prefix] = np.asarray(node)

  walk('', tree)
  return flat


def _wait_for_step(workdir: pathlib.Path, step: int, process) -> None:
  deadline = time.time() + 200
  while time.time() < deadline and process.poll() is None:
    lines = metrics_log.read(workdir / 'seed_0' / 'metrics.jsonl')
    if lines and lines[-1]['step'] >= step:
      return
    time.sleep(0.005)


class ResumeTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls._folder = tempfile.TemporaryDirectory()
    cls.folder = pathlib.Path(cls._folder.name)
    cls.unbroken = cls.folder / 'unbroken'
    done = _run(*_SHORT, f'--workdir={cls.unbroken}')
    assert done.returncode == 0, done.stderr

  @classmethod
  def tearDownClass(cls):
    cls._folder.cleanup()
    super().tearDownClass()

  def _assert_same(self, workdir: pathlib.Path):
    self.assertEqual(_metrics(self.unbroken), _metrics(workdir))
    want, got = _last_state(self.unbroken), _last_state(workdir)
    self.assertNotEmpty(want)
    self.assertEqual(want.keys(), got.keys())
    for name, value in want.items():
      np.testing.assert_array_equal(value, got[name], err_msg=name)

  def test_stopped_then_killed_equals_unbroken(self):
    """By SIGTERM, which saves and says so, then by SIGKILL, which does not."""
    workdir = self.folder / 'stopped'
    process = _start(*_SHORT, f'--workdir={workdir}')
    _wait_for_step(workdir, 14, process)
    process.terminate()
    _, err = process.communicate(timeout=120)
    self.assertEqual(process.returncode, 128 + signal.SIGTERM, err)
    self.assertIn('the same command resumes', err)
    self.assertNotIn('Traceback', err)
    saved = list((workdir / 'seed_0' / 'checkpoints').iterdir())
    self.assertNotEmpty(saved)
    process = _start(*_SHORT, f'--workdir={workdir}')
    _wait_for_step(workdir, 33, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    self.assertEqual(process.returncode, -signal.SIGKILL)
    done = _run(*_SHORT, f'--workdir={workdir}')
    self.assertEqual(done.returncode, 0, done.stderr)
    self._assert_same(workdir)

  def test_two_processes_stop_together_and_reproduce_one(self):
    workdir = self.folder / 'together'

    def start():
      with socket.socket() as probe:
        probe.bind(('localhost', 0))
        port = probe.getsockname()[1]
      return [
        _start(
          *_SHORT,
          f'--workdir={workdir}',
          '--num_processes=2',
          f'--process_id={i}',
          f'--coordinator_address=localhost:{port}',
        )
        for i in range(2)
      ]

    def losses(folder):
      return {
        line['step']: line['loss']
        for line in _metrics(folder)
        if line['kind'] == 'train'
      }

    processes = start()
    _wait_for_step(workdir, 15, processes[0])
    processes[1].terminate()  # one is told, both stop
    for process in processes:
      _, err = process.communicate(timeout=120)
      self.assertEqual(process.returncode, 128 + signal.SIGTERM, err)
    stopped = max(losses(workdir))
    self.assertBetween(stopped, 15, 57)
    saved = {
      int(path.name) for path in (workdir / 'seed_0' / 'checkpoints').iterdir()
    }
    self.assertBetween(max(saved), stopped, stopped + 2)  # between two lines
    for process in start():
      _, err = process.communicate(timeout=240)
      self.assertEqual(process.returncode, 0, err)
    one, two = losses(self.unbroken), losses(workdir)
    self.assertEqual(list(two), list(range(3, 61, 3)))
    # A dozen steps: beyond that rounding, which differs, is what is compared.
    # At the seventh it may move a class across NS3L's threshold.
    for step, tolerance in ((3, 1e-6), (6, 1e-6), (9, 1e-3), (12, 1e-3)):
      np.testing.assert_allclose(one[step], two[step], rtol=tolerance)

  def test_results_file(self):
    results = json.loads((self.unbroken / 'results.json').read_text())
    for field in (
      'row',
      'kind',
      'config',
      'seeds',
      'score',
      'protocol',
      'steps',
      'full_steps',
      'reduced',
      'wall_time_s',
      'device',
      'versions',
      'split_sha256',
      'data_note',
      'commit',
    ):
      self.assertIn(field, results)
    self.assertEqual(results['score']['metric'], 'test_error')
    self.assertEqual(results['score']['unit'], '%')
    self.assertTrue(results['reduced'])
    self.assertLen(results['split_sha256'], 1)
    report = results['reports'][0]
    self.assertEqual(
      results['score']['per_seed'], [report['best_validation']['test_error']]
    )
    for name in ('split.npz', 'metrics.jsonl', 'tb', 'checkpoints'):
      self.assertTrue((self.unbroken / 'seed_0' / name).exists(), name)


class OverridesTest(parameterized.TestCase):
  """Fields of the config, set from the command line."""

  def test_split_overrides(self):
    others, overrides = main.split_overrides(
      [
        '--config=x.py:a=1,b=2',
        '--config.steps=7',
        '--config.data.augment=flip,translate:2',
        '--workdir',
        'w',
        '--config.method.name',
        'vat',
        '--config.row=a=b',
        '--print_config',
        '--config.seeds',
      ]
    )
    self.assertEqual(
      others, ['--config=x.py:a=1,b=2', '--workdir', 'w', '--print_config']
    )
    self.assertEqual(
      overrides,
      [
        ('steps', '7'),
        ('data.augment', 'flip,translate:2'),
        ('method.name', 'vat'),
        ('row', 'a=b'),
        ('seeds', ''),
      ],
    )

  @parameterized.parameters(
    ('configs/digits_ns3l.py', (), 'digits_ns3l'),
    ('configs/digits_ns3l.py:seeds=5', (), 'digits_ns3l'),
    ('configs/digits_ns3l.py', (('seeds', '5'),), 'digits_ns3l'),
    (
      'configs/digits_ns3l.py:labels=30,seeds=2,reduced=50',
      (('seeds', '3'), ('optimizer.lr', '1e-3')),
      'digits_ns3l,labels=30,reduced=50,optimizer.lr=1e-3',
    ),
    ('a/b.py', (('data.dir', '/c/d'),), 'b,data.dir=_c_d'),
  )
  def test_default_workdir(self, argument, overrides, name):
    """More seeds go where the first are; another run never does."""
    self.assertEqual(
      main.default_workdir(argument, list(overrides)),
      pathlib.Path('runs') / name,
    )

  def printed(self, *words):
    with tempfile.TemporaryDirectory() as folder:
      workdir = pathlib.Path(folder) / 'run'
      with contextlib.redirect_stdout(io.StringIO()) as out:
        main.main(
          [
            f'--config={_DIGITS}',
            '--print_config',
            f'--workdir={workdir}',
            *words,
          ]
        )
      self.assertFalse(workdir.exists())
    return json.loads(out.getvalue())

  def test_print_config_is_complete_and_trains_nothing(self):
    before = self.printed()
    self.assertEqual(before['method']['name'], 'ns3l')
    self.assertEqual(before['optimizer']['name'], 'adam')
    after = self.printed(
      '--config.optimizer.lr=1',
      '--config.optimizer.name=sgd',
      '--config.optimizer.momentum',
      '0.5',
      '--config.method.terms.vat.weight=0.3',
    )
    self.assertEqual(
      (after['optimizer']['lr'], after['optimizer']['momentum']), (1.0, 0.5)
    )
    self.assertIn('nesterov', after['optimizer'])
    term = after['method']['terms']['vat']
    self.assertEqual(term['weight'], 0.3)
    self.assertContainsSubset({'ramp', 'ramp_steps', 'eps'}, term)
    for name in before.keys() - {'optimizer', 'method'}:
      self.assertEqual(after[name], before[name], name)


class BadInputTest(parameterized.TestCase):
  def test_one_line_and_status_2(self):
    digits = f'--config={_DIGITS}'
    cases = {
      (): '--config is missing',
      ('--config=configs/digit.py',): 'no config file configs/digit.py',
      (f'{digits}:lables=5',): "did you mean 'labels'?",
      (digits, '--config.optimizer.lrr=1'): (
        'no such field config.optimizer.lrr: did you mean lr? '
      ),
      (digits, '--config.steps=many'): (
        'config.steps=many: must be int, like 2000'
      ),
      (digits, '--lr=1'): 'no such option: --lr; did you mean --config.op',
      (digits, '--config.method.terms.vta.weight=1'): "did you mean 'vat'?",
      (digits, '--config.method.name=ns3'): "did you mean 'ns3l'?",
      (digits, '--config.kernels=eigne'): "did you mean 'eigen'?",
      (digits, '--config.data.name=svhn', '--config.data.dir=/nowhere'): (
        'python -m nsl_jax data --prepare svhn'
      ),
      (
        f'{digits}:labels=5000',
        '--config.devices=1',
      ): 'lower config.data.labeled',
      (digits, '--worrkdir=x'): 'workdir',
    }
    with tempfile.TemporaryDirectory() as folder:
      for words, message in cases.items():
        where = [f'--workdir={folder}/w'] if words else []
        with self.subTest(words):
          self.check(message, *command.run(main.main, *words, *where))
      self.assertEqual(os.listdir(folder), [])

  def test_by_a_process(self):
    done = _run(f'--config={_DIGITS}', '--config.optimizer.lrr=1')
    self.check('did you mean lr? ', done.returncode, done.stdout, done.stderr)

  def check(self, message, status, out, err):
    self.assertEqual((status, out), (2, ''), err)
    self.assertLen(err.strip().splitlines(), 1, err)
    self.assertStartsWith(err, 'error: ')
    self.assertIn(message, err)

  def test_loss_not_finite(self):
    with tempfile.TemporaryDirectory() as folder:
      done = command.run(
        main.main,
        f'--config={_DIGITS}:smoke=true',
        '--config.optimizer.lr=1e30',
        f'--workdir={folder}',
      )
      self.assertEqual(done.status, 1, done.err)
      last = done.err.strip().splitlines()[-1]
      self.assertRegex(last, r'^error: .* at step 1; none saved in ')
      self.assertNotIn('Traceback', done.err)
      self.assertFalse(os.path.exists(f'{folder}/results.json'))


class ClosedPipeTest(absltest.TestCase):
  """`command | head` says nothing, and has the status that it always has."""

  def test_status_of_sigpipe(self):
    cases = {  # what is run, whether its errors can be read, how it writes
      'at once': (('nsl_jax', 'data', '--check'), True, '1'),
      'help': (('nsl_jax.main', '--help'), True, ''),
      'help at once': (('nsl_jax.main', '--help'), True, '1'),
      'at the end': (('nsl_jax',), True, ''),
      'error': (('nsl_jax', 'trian'), False, ''),
    }
    started = {}
    for name, (words, readable, unbuffered) in cases.items():
      reader, writer = os.pipe()
      os.close(reader)
      started[name] = subprocess.Popen(
        [sys.executable, '-m', *words],
        cwd=ROOT,
        text=True,
        env=fresh_process.environment(PYTHONUNBUFFERED=unbuffered),
        stdout=writer,
        stderr=subprocess.PIPE if readable else writer,
      )
      os.close(writer)
    for name, process in started.items():
      with self.subTest(name):
        _, err = process.communicate(timeout=240)
        self.assertEqual(process.returncode, 128 + signal.SIGPIPE, err)
        self.assertEqual(err or '', '')


if __name__ == '__main__':
  absltest.main()
