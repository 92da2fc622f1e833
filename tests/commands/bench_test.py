"""The benchmarks by command: what is timed, and what is printed."""

import contextlib
import io
import json
import os
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest

from nsl_jax import errors
from nsl_jax.benchmarks import startup, step, step_times, stopwatch
from nsl_jax.commands import bench
from nsl_jax.reports import tables
from nsl_jax.training import assembly, kernels, sharding

_SETTING = stopwatch.Setting(2, 3, (8, 8, 1), 10, 1, 'float32', None)


class BenchTest(absltest.TestCase):
  def test_times_every_method_and_keeps_every_call(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder) / 'times.json'
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      bench.main(
        [
          '--method=supervised,ns3l:passes=1',
          '--batch=4+4',
          '--image=8x8x1',
          '--steps=2',
          '--augment=translate:1',
          f'--json={path}',
          '--breakdown',
          '--kernels=default',
        ]
      )
    content = json.loads(path.read_text())
    self.assertEqual(content['kind'], 'timing')
    self.assertEqual(list(content['methods']), ['supervised', 'ns3l:passes=1'])
    for times in content['methods'].values():
      self.assertLen(times['ms'], 2)
      self.assertLen(times['ms_empty'], 2)
      self.assertGreater(min(times['ms'] + times['ms_empty']), 0.0)
      self.assertGreater(times['parts_ms']['convolution backward'], 0.0)
    self.assertIn('| ns3l:passes=1 |', printed.getvalue())

  def test_times_configs_with_their_own_batch(self):
    name = 'configs/digits_ns3l.py'
    path = (
      pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
      / 'times.json'
    )
    with contextlib.redirect_stdout(io.StringIO()):
      bench.main(
        [
          f'--config={name}',
          '--image=8x8x1',
          '--steps=1',
          '--method=supervised',
          '--model=mlp',
          '--batch=2+3',
          '--full_only',
          f'--json={path}',
        ]
      )
    methods = json.loads(path.read_text())['methods']
    self.assertEqual(
      {name: one['images'] for name, one in methods.items()},
      {'supervised': 5, name: 100},
    )

  def test_rows_of_other_benchmarks(self):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      bench.main(
        [
          '--rows',
          '--method=pimodel,unknown',
          '--model=mlp',
          '--batch=2+3',
          '--image=8x8x1',
          '--steps=2',
          '--kernels=default',
        ]
      )
    lines = printed.getvalue().splitlines()
    self.assertLen(lines, 2)  # the paper's, and what the peers do
    for line, word in zip(lines, ('pi', 'pi:shared_batch_norm=False')):
      self.assertStartsWith(line, 'ROW ')
      row = json.loads(line.removeprefix('ROW '))
      self.assertEqual(
        [row[k] for k in ('peer', 'method', 'variant', 'batch')],
        ['nsl_jax', 'pimodel', word, '2+3'],
      )
      self.assertLen(row['all'], 2)

  def test_every_row_can_be_built(self):
    setting = _SETTING._replace(mesh=sharding.make(1))
    for words in step.ROWS.values():
      for word in words:
        if word.startswith('configs/'):
          self.assertEqual(
            step.of_config(word, setting, own_batch=False).setting.labeled, 2
          )
        else:
          step.of_word(word, 'small_cnn', setting, '').make(False)

  def test_either_kind_of_kernels(self):
    works = {'vat': step.Work(print, 'signed', _SETTING)}
    self.assertEqual(step.with_kernels(works, ['default']), works)
    found = step.with_kernels(works, ['default', 'eigen'])
    self.assertEqual(
      {name: work.setting.kernels for name, work in found.items()},
      {'vat [default]': 'default', 'vat [eigen]': 'eigen'},
    )

  def test_a_config_is_timed_with_its_views_and_without(self):
    made = []
    with mock.patch.object(
      assembly,
      'build_method',
      lambda config, *rest: made.append(config.data.augment),
    ):
      work = step.of_config('configs/digits_ns3l.py', _SETTING)
      work.make(True), work.make(False)
    self.assertEqual(made, ['translate:1', ''])
    self.assertEqual(
      stopwatch.sizes(work.setting), {'labeled': 50, 'unlabeled': 50}
    )

  def test_seconds_to_the_first_step(self):
    """The second start finds what the first has compiled."""
    config = 'configs/digits_supervised.py:smoke=true'
    folder = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder) / 'bench' / 'start.json'
    first_step, programs = startup.first_step, []

    def noting_programs(config, cache):
      with mock.patch.dict(os.environ, NSL_JAX_CACHE=cache):
        kernels.remember('default')  # a measurement could choose others
      seconds = first_step(config, cache)
      compiled = pathlib.Path(cache, 'compiled').glob('jit_chunk*-cache')
      programs.append([file.name for file in compiled])
      return seconds

    with (
      contextlib.redirect_stdout(io.StringIO()) as printed,
      mock.patch.object(startup, 'first_step', noting_programs),
      mock.patch.dict(
        os.environ,
        JAX_COMPILATION_CACHE_DIR=f'{folder}/own',
        JAX_DISABLE_MOST_OPTIMIZATIONS='true',
        XLA_FLAGS=os.environ['NSL_JAX_TEST_FLAGS'],
      ),
    ):
      bench.main(['--startup', f'--config={config}', f'--json={path}'])
    seconds = json.loads(path.read_text())['configs'][config]
    cold, warm = programs
    self.assertLen(cold, 1)
    self.assertEqual(warm, cold)
    self.assertFalse(pathlib.Path(folder, 'own').exists())
    self.assertGreater(min(seconds.values()), 0.1)
    row = f'| {config} | {seconds["cold_s"]:.1f} | {seconds["warm_s"]:.1f} |'
    self.assertIn(row, printed.getvalue())
    self.assertIn(row, tables.times(path.parent.parent, 'start'))

  def test_a_start_that_fails(self):
    with self.assertRaisesRegex(errors.UserError, r'^configs/no_such.py: no '):
      startup.measure(['configs/no_such.py'])

  def test_wrong_words(self):
    for words, message in (
      (['--batch=4'], 'write it like 64.64'),
      (['--image=8x8'], 'write it like 32x32x3'),
      (['--method=ns3'], "did you mean 'ns3l'"),
      (['--kernels=eigne'], "did you mean 'eigen'"),
      (['--rows', '--breakdown'], '--rows ignores --breakdown'),
      (['--startup'], 'needs a config'),
      (['--startup', '--config=x.py', '--batch=4+4'], 'ignores --batch'),
      (
        ['--startup', '--config=x.py', '--model=cnn3'],
        '--startup ignores --model',
      ),
      (['--method=ns3l:pases=1', '--image=8x8x1'], 'pases'),
      (['--batch=0+0'], 'must have at least one labeled image'),
      (['--config=configs/folder.py:dir=photos'], 'leaves settings open'),
    ):
      with self.assertRaisesRegex(errors.UserError, message):
        bench.main(words)

  def test_words(self):
    self.assertEqual(step.parse('ns3l'), ('ns3l', {}))
    self.assertEqual(
      step.parse('ns3l:passes=1+sampler=uniform'),
      ('ns3l', {'passes': 1, 'sampler': 'uniform'}),
    )

  def test_table_beside_other_libraries(self):
    """Every way of ours beside every other; one without the other is left."""
    row = lambda peer, method, ms, **more: dict(
      peer=peer, method=method, batch='4+4', median=ms, **more
    )
    table = step_times.beside(
      [
        row('usb', 'vat', 3000.0),
        row('nsl_jax', 'vat', 1500.0, variant='vat'),
        row('nsl_jax', 'vat', 4000.0, variant='vat:eps=1'),
        row('torchssl', 'vat', 6000.0),
        row('usb', 'flexmatch', 1.0),
      ]
    )
    self.assertEqual(
      table.splitlines()[2:],
      [
        '| vat | 4+4 | usb | 3,000 | vat | 1,500 | 2.00 |',
        '| vat | 4+4 | usb | 3,000 | vat:eps=1 | 4,000 | 0.75 |',
        '| vat | 4+4 | torchssl | 6,000 | vat | 1,500 | 4.00 |',
        '| vat | 4+4 | torchssl | 6,000 | vat:eps=1 | 4,000 | 1.50 |',
      ],
    )

  def test_table_of_ratios(self):
    one = {
      'images': 10,
      'ms': [2.0, 2.0, 4.0],
      'ms_empty': [1.0] * 3,
      'compile_s': 1.0,
      'memory_mb': None,
    }
    two = {**one, 'ms': [4.0, 6.0, 8.0]}
    lines = step_times.table({'a': one, 'b': two}).splitlines()
    cells = [cell.strip() for cell in lines[-1].strip('|').split('|')]
    self.assertEqual(
      cells[:7], ['b', '6.00', '4.00', '8.00', '1.00', '2.00', '1,667']
    )


if __name__ == '__main__':
  absltest.main()
