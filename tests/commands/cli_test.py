"""Commands as they are typed: one line for what is wrong, and a sure end."""

import os
import pathlib
import subprocess
import tempfile
import textwrap
import time
from unittest import mock

import command
import fresh_process
from absl.testing import absltest, parameterized
from repository import ROOT

from nsl_jax import errors, files, main
from nsl_jax.commands import (
  bench,
  cli,
  data,
  options,
  plot,
  report,
  reproduce,
  search,
)
from nsl_jax.data import cache


class ModuleTest(absltest.TestCase):
  def test_modules_that_are_no_command(self):
    cases = {
      (
        '-m',
        'nsl_jax.training.train_step',
        '--config=x',
      ): 'nsl_jax.training.train_step',
      ('-m', 'nsl_jax.training.evaluate'): 'nsl_jax.training.evaluate',
      ('-um', 'nsl_jax.training.experiment'): 'nsl_jax.training.experiment',
      ('-X', 'utf8', '-W', 'ignore', '-mnsl_jax.losses', '-m', 'x'): (
        'nsl_jax.losses'
      ),
      ('-m', 'nsl_jax.data.sources'): 'nsl_jax.data.sources',
      ('-m', 'nsl_jax.mian'): 'nsl_jax.mian',
      ('-m', 'nsl_jax.commands.bench', '--steps=1'): 'nsl_jax.commands.bench',
    }
    started = {words: fresh_process.start(*words) for words in cases}
    for words, process in started.items():
      with self.subTest(words):
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (2, ''), err)
        self.assertEqual(
          err,
          f'error: {cases[words]} is no command: use python -m nsl_jax '
          'COMMAND; without a command it lists them\n',
        )

  def test_what_is_let_through(self):
    with tempfile.TemporaryDirectory() as folder:
      script = pathlib.Path(folder) / 'nsl_jax.training.train_step'
      script.write_text('import nsl_jax; print("well")')
      other = pathlib.Path(folder) / 'other.py'
      other.write_text('import nsl_jax; print("well")')
      cases = (
        (
          '-c',
          'import nsl_jax; print("well")',
          '-m',
          'nsl_jax.training.train_step',
        ),
        (str(script), '-m', 'nsl_jax.training.train_step'),
        ('-m', 'other', '-m', 'nsl_jax.training.train_step'),
      )
      path = os.pathsep.join([str(ROOT), folder])
      started = [
        fresh_process.start(*words, PYTHONPATH=path) for words in cases
      ]
      for words, process in zip(cases, started):
        with self.subTest(words):
          out, err = process.communicate(timeout=60)
          self.assertEqual((process.returncode, out), (0, 'well\n'), err)

  def test_jax_is_not_waited_for(self):
    code = (
      'import sys; sys.argv = ["-m"]\n'
      'sys.orig_argv = ["python", "-m", "nsl_jax.training.train_step"]\n'
      'try: import nsl_jax\n'
      'except SystemExit as end: print(end.code, "jax" in sys.modules)'
    )
    out, err = fresh_process.start('-c', code).communicate(timeout=60)
    self.assertEqual(out, '2 False\n', err)


_COMMANDS = {
  'reproduce': reproduce.main,
  'search': search.main,
  'bench': bench.main,
  'report': report.main,
  'train': main.main,
  'plot': plot.main,
  'data': data.main,
  'options': options.main,
}


class OptionsTest(parameterized.TestCase):
  @parameterized.parameters(
    ('reproduce', ('--row', 'DIG-2', '--seed', '3'), '--seed', '--seeds'),
    ('reproduce', ('--row', 'DIG-2', '--seed=3'), '--seed', '--seeds'),
    ('search', ('--confi=x', '--grid', 'a=1'), '--confi', '--config'),
    ('bench', ('--infer',), '--infer', '--inference'),
    ('report', ('--matc', 'NS'), '--matc', '--match'),
    ('train', ('--confi=x',), '--confi', '--config'),
    ('plot', ('runs/a', '--ou=x.png'), '--ou', '--out'),
    ('data', ('--prepar', 'svhn'), '--prepar', '--prepare'),
    ('options', ('--verbos', '1', 'vat'), '--verbos', '--verbosity'),
  )
  def test_no_abbreviations(self, name, words, wrong, right):
    with mock.patch.object(cli, 'fail', side_effect=SystemExit) as fail:
      with self.assertRaises(SystemExit):
        _COMMANDS[name](words)
    message, status = fail.call_args.args
    self.assertEqual(
      (message, status),
      (f"no such option: {wrong}; did you mean '{right}'?; see --help", 2),
    )

  @parameterized.parameters(
    ('train', '--lr=1', 'did you mean --config.optimizer.lr?'),
    ('train', '--labels', 'did you mean --config.data.labeled?'),
    ('train', '--nonsense', 'known: --config, --coordinator_address, '),
    # These have no fields of a config.
    ('search', '--seed=3', "did you mean '--seeds'?"),
    ('bench', '--batch_size=3', "did you mean '--batch'?"),
  )
  def test_words_that_people_try(self, name, word, hint):
    with mock.patch.object(cli, 'fail', side_effect=SystemExit) as fail:
      with self.assertRaises(SystemExit):
        _COMMANDS[name]((word,))
    message, status = fail.call_args.args
    self.assertEqual(status, 2)
    option = word.partition('=')[0]
    self.assertStartsWith(message, f'no such option: {option}; {hint}')

  @parameterized.parameters(
    (
      'reproduce',
      ('--row', 'DIG-2', '--workdir=s3://b/run'),
      '--workdir=s3://b/run',
    ),
    ('reproduce', ('--row', 'DIG-2', '--ledger', 's3://b'), '--ledger=s3:/b'),
    (
      'search',
      ('--config=x', '--grid=a=1', '--out=az://b/o.csv'),
      '--out=az://b/o.csv',
    ),
    (
      'search',
      ('--config=x', '--grid=a=1', '--workdir=hdfs://b'),
      '--workdir=hdfs://b',
    ),
    ('bench', ('--json', 'gs:/b/x.json'), '--json=gs:/b/x.json'),
    ('report', ('--out', 'file:///b'), '--out=file:/b'),
    ('report', ('--fill', 'gs://b/x.md'), '--fill=gs:/b/x.md'),
    ('train', ('--config=x', '--workdir=s3://b'), '--workdir=s3://b'),
    ('plot', ('s3://b/run', '--out=x.png'), 'the run=s3://b/run'),
    ('plot', ('runs/a', '--out=gs://b/x.png'), '--out=gs:/b/x.png'),
  )
  def test_addresses_are_refused(self, name, words, message):
    with self.assertRaisesRegex(
      errors.UserError, f'^{message} is an address, and only local'
    ):
      _COMMANDS[name](words)

  def test_addresses_are_refused_where_folders_are_made(self):
    with self.assertRaisesRegex(errors.UserError, '^--workdir=gs:/b is an'):
      files.make_folder(pathlib.Path('gs://b'), '--workdir')
    with self.assertRaisesRegex(errors.UserError, '=gs:/b/x is an'):
      files.write(pathlib.Path('gs://b/x'), b'')
    with mock.patch.dict(os.environ, NSL_JAX_CACHE='gs://b/x'):
      with self.assertRaisesRegex(errors.UserError, 'NSL_JAX_CACHE=gs://b/x'):
        cache.directory()

  @parameterized.parameters('C:/run', 'C:\\run', 'runs/x:/y', '/a:b/c', 'a:b')
  def test_what_is_no_address(self, path):
    errors.refuse_address(path, '--workdir')

  def test_main_command(self):
    done = command.run(
      main.main,
      '--config=configs/digits_ns3l.py:smoke=true',
      '--workdir=s3://bucket/run',
    )
    self.assertEqual((done.status, done.out), (2, ''), done.err)
    self.assertStartsWith(
      done.err,
      'error: --workdir=s3://bucket/run is an address, and only local folders '
      'and gs://… buckets can be written',
    )
    self.assertLen(done.err.splitlines(), 1)
    self.assertFalse((ROOT / 's3:').exists())


# A loop of a toy with the real checkpoints, in which something happens.
_TOY = textwrap.dedent("""
    import pathlib, sys, threading
    import jax, jax.numpy as jnp
    from nsl_jax.commands import cli
    from nsl_jax.training import checkpoint, loop, sharding
    from nsl_jax.types import State

    state = State(step=jnp.int32(0), key=jax.random.key(0), opt=(), stats={},
                  params=jax.random.normal(jax.random.key(1), (SIZE,)),
                  slots={})

    def chunk(state, data, rows):
      state = state.replace(step=state.step + 1, params=state.params + 1.0)
      return state, {'loss': jnp.ones(1)}

    def evaluate(state):
      EVALUATE
      return {'validation_error': None}

    plan = loop.Plan(steps=8, log_every=2, eval_every=2, checkpoint_every=4,
                     steps_per_call=1, keep=2)
    cli.run_command(lambda: loop.run(
        pathlib.Path(sys.argv[1]), plan=plan, state=state, data=None,
        streams={}, chunk=chunk, evaluate=evaluate, mesh=sharding.make(1),
        title='toy', start={}))
""")


class EndTest(absltest.TestCase):
  def toy(self, folder, evaluate='', size=1000, before=''):
    code = _TOY.replace('SIZE', str(size)).replace('EVALUATE', evaluate)
    code = code.replace('\nplan =', f'\n{before}\nplan =')
    begun = time.monotonic()
    process = fresh_process.start('-c', code, folder)
    _, err = process.communicate(timeout=120)
    return process.returncode, err, time.monotonic() - begun

  def test_unexpected_error_while_a_checkpoint_is_written(self):
    """The writing of step 4 hangs, as do threads that nobody can end."""
    hang = (
      'def hang(*_, **__): threading.Event().wait()\n'
      'threading.Thread(target=hang).start()\n'
      'checkpoint._PATIENCE_S = 1.0\n'
      'checkpoint.ocp.CheckpointManager.save = lambda *_, **__: True\n'
      'checkpoint.ocp.CheckpointManager.wait_until_finished = (\n'
      '    lambda *_: hang() if broken else None)\n'
      'broken = []\n'
    )
    fail = 'if int(state.step) == 6: broken.append(1); raise KeyError("here")'
    with tempfile.TemporaryDirectory() as folder:
      status, err, seconds = self.toy(folder, fail, before=hang)
    self.assertEqual(status, 1, err)
    self.assertIn("KeyError: 'here'", err.splitlines()[-1])
    self.assertLess(seconds, 60.0)

  def test_unexpected_error_keeps_what_was_being_written(self):
    fail = 'if int(state.step) == 6: raise KeyError("here")'
    with tempfile.TemporaryDirectory() as folder:
      status, err, _ = self.toy(folder, fail, size=1_000_000)
      self.assertEqual(status, 1, err)
      self.assertIn("KeyError: 'here'", err.splitlines()[-1])
      self.assertEqual(os.listdir(f'{folder}/checkpoints'), ['4'])
      status, err, _ = self.toy(folder, size=1_000_000)
      self.assertEqual(status, 0, err)
      self.assertIn('50.0% 4/8', err)  # from there on

  def test_real_full_disk(self):
    """Of sizes that no and one checkpoint fits in."""
    folder = self.enterContext(tempfile.TemporaryDirectory())
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=24k', 'tmpfs', folder]
    if os.name != 'posix' or not _succeeds(mount):
      self.skipTest('no file system can be mounted here')
    self.addCleanup(_succeeds, ['umount', folder])
    for size, kept in ((24, 'none saved'), (700, 'of step 4 is kept')):
      _succeeds(['mount', '-o', f'remount,size={size}k', folder])
      status, err, _ = self.toy(folder, size=100_000)
      last = err.strip().splitlines()[-1]
      self.assertEqual(status, 1, err)
      self.assertRegex(
        last,
        r'error: toy: cannot write checkpoint \d in .*/(checkpoints|final) '
        r'\(no space left on device\); ',
      )
      self.assertIn(kept, last)
      self.assertNotIn('Traceback', err)
      self.assertLess(len(err.splitlines()), 9, err)
    _succeeds(['mount', '-o', 'remount,size=20m', folder])
    status, err, _ = self.toy(folder, size=100_000)
    self.assertEqual(status, 0, err)


def _succeeds(words):
  return subprocess.run(words, capture_output=True).returncode == 0


if __name__ == '__main__':
  absltest.main()
