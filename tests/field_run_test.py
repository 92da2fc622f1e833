"""What happens to runs on real machines: each resumes exactly, or is one line.

All runs are of one small problem, compiled once. A new case is a line of one
of the tables, and the few lines that do the damage.
"""

import errno
import functools
import json
import os
import pathlib
import shutil
import signal
import tempfile
import time
from unittest import mock

import orbax.checkpoint as ocp
from absl.testing import absltest, parameterized
from tensorboardX import event_file_writer

from nsl_jax import errors
from nsl_jax.training import (
  assembly,
  checkpoint,
  config as config_lib,
  experiment,
  loop,
  metrics_log,
)

_STEPS, _STOP = 20, 12  # of a whole run; where a broken one is told to stop
_FOLDER = tempfile.TemporaryDirectory()
_NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _config():
  config = config_lib.load('configs/digits_supervised.py', smoke=True)
  with config.unlocked():
    config.devices = 1
    config.model = {'name': 'mlp', 'hidden': 16, 'layers': 1}
    config.steps, config.log_every = _STEPS, 4
    config.eval.every_steps, config.checkpoint.every = 4, 5
  return config


def _newest(seed):
  steps = [p for p in (seed / 'checkpoints').iterdir() if p.name.isdigit()]
  return max(steps, key=lambda p: int(p.name))


def _cut(path, keep):
  path.write_bytes(path.read_bytes()[:keep])


def _half_line_in_the_middle(seed):
  path = seed / 'metrics.jsonl'
  lines = path.read_text().splitlines(keepends=True)
  lines[1] = lines[1][:20] + '\n'
  path.write_text(''.join(lines))


def _half_line_at_the_end(seed):
  with (seed / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 16, "kind": "tr')


def _best_of_a_lost_start(seed):
  (best,) = (seed / 'best').iterdir()
  shutil.copytree(best, seed / 'best' / '16')


def _half_a_best_network(seed):
  half = seed / 'best' / '16.orbax-checkpoint-tmp'
  half.mkdir()
  (half / 'state').write_text('half')


# What becomes of the folder of a seed that was stopped at step 12, and what
# the next start says; '' where it ends as if nothing had been.
_DAMAGE = {
  'nothing': (lambda seed: None, ''),
  'no state in the newest checkpoint': (
    lambda seed: shutil.rmtree(_newest(seed) / 'state'),
    '',
  ),
  'no position in the newest checkpoint': (
    lambda seed: shutil.rmtree(_newest(seed) / 'position'),
    '',
  ),
  'an empty newest checkpoint': (
    lambda seed: [
      shutil.rmtree(_newest(seed)),
      (seed / 'checkpoints' / '13').mkdir(),
    ],
    '',
  ),
  'the newest checkpoint is gone': (
    lambda seed: shutil.rmtree(_newest(seed)),
    '',
  ),
  'no checkpoints': (
    lambda seed: shutil.rmtree(seed / 'checkpoints'),
    'metrics.jsonl has lines up to step 12, but no checkpoint exists to go on '
    'from: restore',
  ),
  'nothing but a folder': (
    lambda seed: [shutil.rmtree(seed), seed.mkdir()],
    '',
  ),
  'half a checkpoint': (
    lambda seed: _newest(seed).rename(
      seed / 'checkpoints' / '12.orbax-checkpoint-tmp'
    ),
    '',
  ),
  'the best of a lost start': (_best_of_a_lost_start, ''),
  'half of a best network': (_half_a_best_network, ''),
  'no split': (lambda seed: (seed / 'split.npz').unlink(), ''),
  'no events': (lambda seed: shutil.rmtree(seed / 'tb'), ''),
  'half a line at the end': (_half_line_at_the_end, ''),
  'half a line in the middle': (
    _half_line_in_the_middle,
    'metrics.jsonl, line 2 is damaged',
  ),
  'no metrics': (
    lambda seed: (seed / 'metrics.jsonl').unlink(),
    'metrics.jsonl has 0 lines up to the checkpoint of step 12, which '
    'knows of 6',
  ),
  'half a split': (
    lambda seed: _cut(seed / 'split.npz', 100),
    'split.npz is damaged',
  ),
  'half a config': (
    lambda seed: _cut(seed.parent / 'config.json', 100),
    'config.json cannot be read',
  ),
  'no config': (lambda seed: (seed.parent / 'config.json').unlink(), ''),
  'half a lock of one that died': (
    lambda seed: (seed.parent / 'lock.json').write_text('{"ho'),
    '',
  ),
}


@functools.cache
def _problem():
  """What all runs share, the folder of an unbroken one, and its results."""
  parts = assembly.prepare(_config())
  folder = pathlib.Path(_FOLDER.name) / 'unbroken'
  with mock.patch.object(assembly, 'prepare', lambda *given: parts):
    return parts, folder, experiment.run(_config(), folder)


class FieldTest(parameterized.TestCase):
  """One problem, compiled once, and an unbroken run of it."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.parts, cls.unbroken, cls.results = _problem()

  def setUp(self):
    super().setUp()
    self.folder = (
      pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / 'run'
    )
    self.seed = self.folder / 'seed_0'

  def start(self, **parts):
    """A start of the run, with some parts of the problem replaced."""
    deadline = parts.pop('deadline', None)
    found = self.parts._replace(**parts)
    with (
      mock.patch.object(assembly, 'prepare', lambda *given: found),
      mock.patch.object(assembly, 'check_step'),  # parts act in the run alone
    ):
      return experiment.run(_config(), self.folder, deadline=deadline)

  def lines(self, folder):
    lines = metrics_log.read(folder / 'seed_0' / 'metrics.jsonl')
    seconds = [line.pop('seconds') for line in lines]
    self.assertEqual(seconds, sorted(seconds))
    self.assertGreaterEqual(seconds[0], 0.0)
    return lines

  def assert_as_unbroken(self, results, *, weights=True):
    self.assertEqual(self.lines(self.folder), self.lines(self.unbroken))
    reports = [{**one['reports'][0]} for one in (results, self.results)]
    for report in reports:
      self.assertGreater(report.pop('wall_time_s'), 0.0)
      if not weights:
        report['best_validation'] = {
          **report['best_validation'],
          'weights': None,
        }
    self.assertEqual(*reports)
    names = [
      sorted(p.name for p in (f / 'seed_0' / 'best').iterdir())
      for f in (self.folder, self.unbroken)
    ]
    if weights:
      self.assertEqual(*names)

  def evaluate_then(self, at, what):
    """The evaluation, and something else at a step."""

    def evaluate(state, *rest):
      found = self.parts.evaluate(state, *rest)
      if int(state.step) == at:
        what()
      return found

    return evaluate

  def stop(self):
    with self.assertRaises(loop.Interrupted):
      self.start(
        evaluate=self.evaluate_then(
          _STOP, lambda: signal.raise_signal(signal.SIGTERM)
        )
      )

  def assert_one_line(self, error, message):
    self.assertIn(message, str(error))
    self.assertNotIn('\n', str(error))
    self.assertFalse((self.folder / 'lock.json').exists())


class DamageTest(FieldTest):
  def stop(self):
    """A copy of a run that was stopped, which all damage is done to."""
    stopped = pathlib.Path(_FOLDER.name) / 'stopped'
    if not stopped.exists():
      super().stop()
      shutil.copytree(self.folder, stopped)
    else:
      shutil.copytree(stopped, self.folder)

  @parameterized.named_parameters(
    (name.replace(' ', '_'), *case) for name, case in _DAMAGE.items()
  )
  def test_after(self, damage, message):
    self.stop()
    damage(self.seed)
    if message:
      with self.assertRaises(errors.UserError) as raised:
        self.start()
      self.assert_one_line(raised.exception, message)
    else:
      self.assert_as_unbroken(self.start())

  def test_best_network_that_is_gone(self):
    self.stop()
    shutil.rmtree(self.seed / 'best')
    results = self.start()
    self.assert_as_unbroken(results, weights=False)
    best = results['reports'][0]['best_validation']
    kept = self.seed / f'best/{best["step"]}'
    self.assertEqual(best['weights'] is not None, kept.exists())

  def test_the_last_network_was_not_written(self):
    """Then the next start writes it, though no step is left."""
    shutil.copytree(self.unbroken, self.folder)
    (self.seed / 'result.json').unlink()
    shutil.rmtree(self.seed / 'final')
    self.assert_as_unbroken(self.start())
    names = [path.name for path in (self.seed / 'final').iterdir()]
    self.assertEqual(names, [str(_STEPS)])

  def test_clock_set_back(self):
    self.stop()
    with mock.patch.object(time, 'time', lambda: 1e9):
      results = self.start()
    self.assert_as_unbroken(results)


class SignalTest(FieldTest):
  @parameterized.parameters(signal.SIGTERM, signal.SIGINT)
  def test_while_the_first_step_is_compiled(self, number):
    calls = []

    def chunk(*words):
      if not calls:
        signal.raise_signal(number)
      calls.append(1)
      return self.parts.chunk(*words)

    with self.assertRaises(loop.Interrupted) as raised:
      self.start(chunk=chunk)
    self.assertEqual(raised.exception.signal, number)
    self.assertLen(calls, 1)
    self.assert_as_unbroken(self.start())

  def test_end_of_its_time(self):
    with self.assertRaisesRegex(loop.Interrupted, 'the end of its') as raised:
      self.start(deadline=time.monotonic())
    self.assertEqual(raised.exception.signal, loop.OUT_OF_TIME)
    self.assertEqual(_newest(self.seed).name, '1')
    self.assert_as_unbroken(self.start(deadline=time.monotonic() + 1000))

  @parameterized.parameters(4, 12, _STEPS)
  def test_in_an_evaluation(self, step):
    with self.assertRaises(loop.Interrupted):
      self.start(
        evaluate=self.evaluate_then(
          step, lambda: signal.raise_signal(signal.SIGTERM)
        )
      )
    self.assertEqual(_newest(self.seed).name, str(step))
    self.assert_as_unbroken(self.start())

  @parameterized.parameters(5, 15, _STEPS)
  def test_while_a_checkpoint_is_written(self, at):
    save = checkpoint.Checkpoints.save

    def told(store, step, *rest):
      save(store, step, *rest)
      if step == at and store._folder.name == 'checkpoints':
        signal.raise_signal(signal.SIGTERM)

    with mock.patch.object(checkpoint.Checkpoints, 'save', told):
      if at == _STEPS:  # it is done anyhow
        self.start()
      else:
        with self.assertRaises(loop.Interrupted):
          self.start()
    self.assert_as_unbroken(self.start())


class TrainingErrorTest(FieldTest):
  def test_loss_that_becomes_nan_late(self):
    def chunk(state, data, rows):
      late = int(state.step) == 13
      state, history = self.parts.chunk(state, data, rows)
      if late:
        history = history | {'loss': history['loss'] * float('nan')}
      return state, history

    with self.assertRaises(errors.TrainingError) as raised:
      self.start(chunk=chunk)
    self.assert_one_line(
      raised.exception,
      'loss is nan at step 14; the checkpoint of step 10 '
      f'is kept in {self.seed}',
    )
    self.assert_as_unbroken(self.start())


def _full_while_starting(seed):
  """orbax cannot make its folders."""
  del seed
  save = ocp.CheckpointManager.save

  def fail(manager, step, *rest, **named):
    if step == 15:
      raise _NO_SPACE
    return save(manager, step, *rest, **named)

  return mock.patch.object(ocp.CheckpointManager, 'save', fail)


def _full_in_the_background(seed):
  """The writer's thread fails, which is known when it is waited for."""
  del seed
  save, wait = (
    ocp.CheckpointManager.save,
    ocp.CheckpointManager.wait_until_finished,
  )
  failing = []

  def begin(manager, step, *rest, **named):
    if step == 15:
      half = pathlib.Path(manager.directory) / '15.orbax-checkpoint-tmp'
      half.mkdir()
      failing.append(manager)
    else:
      save(manager, step, *rest, **named)

  def fail(manager):
    if manager in failing:
      raise ValueError(
        'RESOURCE_EXHAUSTED: Error writing local file "x": Failed writing: '
        '"x" [OS error 28: ENOSPC No space left on device]\nmore lines'
      )
    wait(manager)

  stack = mock.patch.multiple(
    ocp.CheckpointManager, save=begin, wait_until_finished=fail
  )
  return stack


def _full_for_metrics(seed):
  """The line of step 16, behind the checkpoint of step 15."""
  del seed
  write = metrics_log.Log.write

  def fail(lines, kind, step, *rest):
    if step == 16:
      lines._file = open('/dev/full', 'ab', buffering=0)
    return write(lines, kind, step, *rest)

  return mock.patch.object(metrics_log.Log, 'write', fail)


def _full_for_events(seed):
  """As above."""
  del seed
  flush = event_file_writer.EventsWriter.flush

  def fail(writer):
    if writer._num_outstanding_events and len(failed) > 7:
      raise _NO_SPACE
    failed.append(1)
    return flush(writer)

  failed = []
  return mock.patch.object(event_file_writer.EventsWriter, 'flush', fail)


_FULL = (
  (
    _full_while_starting,
    'cannot write checkpoint 15 in {seed}/checkpoints '
    '(no space left on device); the checkpoint of step 10 is kept',
  ),
  (
    _full_in_the_background,
    'cannot write checkpoint 15 in '
    '{seed}/checkpoints (no space left on device); the checkpoint of step 10 '
    'is kept',
  ),
  (
    _full_for_metrics,
    'cannot write {seed}/metrics.jsonl (No space left on '
    'device); the checkpoint of step 15 is kept',
  ),
  (
    _full_for_events,
    'cannot write {seed}/tb (No space left on device); the checkpoint of step ',
  ),
)


class FullDiskTest(FieldTest):
  @parameterized.parameters(*_FULL)
  def test_one_line_and_resumes(self, fill, message):
    with fill(self.seed):
      with self.assertRaises(errors.WriteError) as raised:
        self.start()
    self.assert_one_line(raised.exception, message.format(seed=self.seed))
    self.assertEmpty(list(self.folder.rglob('*orbax-checkpoint-tmp*')))
    self.assert_as_unbroken(self.start())

  @parameterized.parameters('split.npz', 'result.json', 'results.json')
  def test_small_files_are_named(self, name):
    write = pathlib.Path.write_bytes

    def fail(path, content):
      if path.name.startswith(f'{name}.') and path.suffix == '.part':
        write(path, content[:10])
        raise _NO_SPACE
      return write(path, content)

    with mock.patch.object(pathlib.Path, 'write_bytes', fail):
      with self.assertRaises(errors.UserError) as raised:
        self.start()
    self.assert_one_line(raised.exception, f'{name} (No space left on device)')
    self.assertEmpty(list(self.folder.rglob('*.part')))
    self.assert_as_unbroken(self.start())


class BestTest(FieldTest):
  def errors_of(self, *validation):
    """An evaluation that finds these validation errors, in turn."""
    found = iter(validation)

    def evaluate(state, fitted, split):
      values = self.parts.evaluate(state, fitted, split)
      if split.size == 180:
        values = values | {'error': next(found)}
      return values

    return evaluate

  def saved(self):
    saved = []
    save = checkpoint.Checkpoints.save

    def note(store, step, *rest):
      if store._folder.name == 'best':
        saved.append(step)
      return save(store, step, *rest)

    self.enterContext(mock.patch.object(checkpoint.Checkpoints, 'save', note))
    return saved

  @parameterized.parameters(
    ((9.0, 5.0, 7.0, 5.0, 6.0), [4, 8]),  # the earliest of equals
    ((1.0, 2.0, 3.0, 4.0, 5.0), [4]),
    ((5.0, 4.0, 3.0, 2.0, 1.0), [4, 8, 12, 16, 20]),
    ((5.0, 4.0, 3.0, 2.0, 2.0), [4, 8, 12, 16]),
  )
  def test_each_that_is_strictly_lower(self, validation, steps):
    saved = self.saved()
    results = self.start(evaluate=self.errors_of(*validation))
    self.assertEqual(saved, steps)
    best = results['reports'][0]['best_validation']
    self.assertEqual(best['weights'], f'best/{steps[-1]}')
    self.assertEqual(os.listdir(self.seed / 'best'), [str(steps[-1])])

  def test_what_is_best_survives_a_resume(self):
    evaluate, saved = self.errors_of(9.0, 5.0, 8.0), self.saved()

    def stop(state, fitted, split):
      if int(state.step) == 12:
        signal.raise_signal(signal.SIGTERM)
      return evaluate(state, fitted, split)

    with self.assertRaises(loop.Interrupted):
      self.start(evaluate=stop)
    results = self.start(evaluate=self.errors_of(7.0, 6.0))
    self.assertEqual(saved, [4, 8])
    best = results['reports'][0]['best_validation']
    self.assertEqual((best['step'], best['weights']), (8, 'best/8'))

  def test_a_start_that_was_lost_counts_for_nothing(self):
    """It died after a better network, before a checkpoint that names it."""

    def die():
      raise RuntimeError('killed')

    with self.assertRaisesRegex(RuntimeError, 'killed'):
      self.start(
        evaluate=self.errors_of(9.0, 5.0, 1.0), chunk=self.chunk_to(13, die)
      )
    # 4 is what the checkpoint of step 5 names, 8 that of step 10.
    self.assertEqual(sorted(os.listdir(self.seed / 'best')), ['12', '4', '8'])
    results = self.start(evaluate=self.errors_of(7.0, 8.0, 6.0))
    best = results['reports'][0]['best_validation']
    self.assertEqual((best['step'], best['weights']), (8, 'best/8'))
    self.assertEqual(os.listdir(self.seed / 'best'), ['8'])
    content = json.loads((self.seed / 'result.json').read_text())
    self.assertEqual(content['best_validation'], best)

  def chunk_to(self, step, what):
    def chunk(state, *rest):
      if int(state.step) == step:
        what()
      return self.parts.chunk(state, *rest)

    return chunk


if __name__ == '__main__':
  absltest.main()
