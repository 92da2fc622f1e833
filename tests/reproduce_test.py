"""The ledger: rows by id, their files, and the table made from them."""

import contextlib
import io
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.benchmarks import startup, step, step_times, stopwatch
from nsl_jax.commands import bench, report, reproduce
from nsl_jax.papers import rows
from nsl_jax.reports import tables
from nsl_jax.training import config as config_lib, experiment


def _result(row: str, per_seed: list[float], **changes) -> dict:
  mean = sum(per_seed) / len(per_seed)
  return {
    'row': row,
    'kind': 'run',
    'seeds': list(range(len(per_seed))),
    'score': {
      'metric': 'test_error',
      'unit': '%',
      'per_seed': per_seed,
      'mean': mean,
      'std': 0.5,
    },
    'protocol': 'last',
    'steps': 3000,
    'full_steps': 29000,
    'reduced': True,
    'device': '1 x cpu (cpu; host: 2 cores)',
    'data_note': '',
    **changes,
  }


class ReproduceTest(absltest.TestCase):
  def test_list_has_every_row_and_says_which_run(self):
    text = reproduce.list_rows(rows.match(''))
    self.assertLen(text.splitlines(), len(rows.read()))
    lines = {line.split()[0]: line for line in text.splitlines()}
    self.assertIn('--row NS-T6-8', lines['NS-T6-8'])
    self.assertIn('16.59 ± 0.19', lines['NS-T6-8'])
    self.assertIn('--row L2-T5-1', lines['L2-T5-1'])
    cited = lines['DN-T1-c-pi-1000']
    self.assertNotIn('--row', cited)
    self.assertIn('cited', cited)

  def test_rows_are_found_by_words_in_any_case(self):
    ids = lambda *words: [row.id for row in rows.search(words)]
    self.assertEqual(ids('CIFAR10', 'mixmatch', '250'), ['NS-T3-1', 'NS-T3-2'])
    self.assertEqual(ids('dig'), ['DIG-1', 'DIG-2'])
    self.assertLen(ids(), len(rows.read()))
    self.assertIn('L2-T3-10', ids('mm', 'cifar10', '250'))
    self.assertEmpty(ids('cifar10', 'nothing'))

  def test_every_ready_row_names_itself_in_its_config(self):
    for row in rows.read().values():
      if row.kind == 'run':
        config = config_lib.load(row.config)
        self.assertIn(row.id, config.row.split())
        self.assertEqual(config.data.name, row.data)
        self.assertEqual(config.data.labeled, row.labels)

  def test_file_names_tell_budget_seeds_and_platform(self):
    full = _result('NS-T6-8', [1.0] * 5, reduced=False, steps=29000)
    short = _result('NS-T6-8', [1.0] * 3)
    name = reproduce.file_name
    self.assertEqual(
      name('NS-T6-8', full, 'gpu'), 'NS-T6-8-gpu-full-seeds5.json'
    )
    self.assertEqual(
      name('NS-T6-8', short, 'cpu'), 'NS-T6-8-cpu-reduced3000-seeds3.json'
    )

  def test_rows_without_a_command(self):
    with self.assertRaisesRegex(errors.UserError, 'cannot be run'):
      reproduce.reproduce(
        rows.find('DN-T1-c-pi-1000'),
        seeds=1,
        reduced=0,
        workdir=pathlib.Path('/nowhere'),
      )


class RunsTest(absltest.TestCase):
  """Tables of any work folders."""

  def test_finished_runs_are_tabulated(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    config = {
      'method': {'name': 'vat', 'terms': {'ns3l': {}}},
      'data': {'name': 'digits', 'labeled': 50},
    }
    for name in ('a', 'b'):
      (folder / name).mkdir()
      (folder / name / 'config.json').write_text(json.dumps(config))
    result = _result('', [4.0, 6.0], protocol='best_validation')
    (folder / 'a' / 'results.json').write_text(json.dumps(result))
    text = tables.of_runs([folder / 'a', folder / 'b'])
    self.assertLen(text.splitlines(), 3)
    self.assertIn(f'| {folder}/a | vat + ns3l | digits@50 | ', text)
    self.assertIn('5.00 ± 0.50', text)
    with self.assertRaisesRegex(errors.UserError, 'no finished run in .*/b'):
      tables.of_runs([folder / 'b'])


class ReportTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def _write(self, *results: dict):
    for number, result in enumerate(results):
      (self.folder / f'{number}.json').write_text(json.dumps(result))

  def test_differences_are_taken_from_the_supervised_row(self):
    self._write(
      _result('NS-T6-1', [14.0, 15.0]),
      _result('NS-T6-7', [13.0, 14.5]),
      _result('NS-T6-1', [11.0, 11.0], steps=29000, reduced=False),
    )
    lines = tables.table(tables.read(self.folder), 'NS-T6').splitlines()
    self.assertLen(lines, 5)
    cells = [cell.strip() for cell in lines[-1].strip('|').split('|')]
    self.assertEqual(cells[0], 'NS-T6-7')
    self.assertEqual(
      cells[3:7], ['16.47 ± 0.18', '-0.78', '13.75 ± 0.50', '-0.75']
    )
    self.assertEqual(cells[7], '2')
    self.assertIn('reduced from 29000', cells[8])

  def test_without_one_from_the_row_of_the_host(self):
    self._write(
      _result('L2-T3-1', [40.0]),
      _result('L2-T3-4', [37.0]),
      _result('L2-T3-13', [10.0]),
    )
    lines = tables.table(tables.read(self.folder), 'L2-T3').splitlines()
    found = [
      [cell.strip() for cell in line.strip('|').split('|')][2:7:2]
      for line in lines[-3:]
    ]
    self.assertEqual(
      found,
      [
        ['MT', '+0.00', '+0.00'],
        ['MT+V1', '-4.18', '-3.00'],
        ['MM+V1', '-0.73', ''],
      ],
    )

  def test_without_a_host_there_is_no_difference(self):
    self._write(_result('DN-T6-1', [40.0]), _result('DN-T6-2', [37.0]))
    lines = tables.table(tables.read(self.folder), 'DN-T6').splitlines()
    for line in lines[-2:]:
      cells = [cell.strip() for cell in line.strip('|').split('|')]
      self.assertEqual((cells[4], cells[6]), ('', ''))

  def test_another_budget_is_no_baseline(self):
    self._write(
      _result('NS-T6-7', [13.0]),
      _result('NS-T6-1', [11.0], steps=29000, reduced=False),
    )
    lines = tables.table(tables.read(self.folder), 'NS-T6-7').splitlines()
    cells = [cell.strip() for cell in lines[-1].strip('|').split('|')]
    self.assertEqual(cells[6], '')

  def test_accuracies_become_errors(self):
    row = rows.find('DN-T2-2')
    self.assertAlmostEqual(tables.reported_error(row), 100 - 94.29)

  def test_data_note_is_shown(self):
    self._write(_result('NS-T1-1', [20.0], data_note='JPEG copy'))
    self.assertIn('JPEG copy', tables.table(tables.read(self.folder), ''))

  @parameterized.parameters(
    ('docs/results.md', 'NS-T6-1 |'),
    ('README.md', 'DIG-2 |'),
    ('docs/speed.md', '| usb |'),
    ('docs/own-images.md', 'LabelSpreading'),
    ('docs/own-images.md', '| 100,000 |'),
  )
  def test_the_tables_in_pages_are_those_of_the_ledger(self, page, row):
    root = pathlib.Path(__file__).resolve().parent.parent
    text = (root / page).read_text()
    self.assertIn(row, text)
    self.assertEqual(text, tables.fill(text, root / 'results'))

  def test_a_page_that_cannot_be_filled(self):
    missing = self.folder / 'missing.md'
    with self.assertRaisesRegex(errors.UserError, r'--fill .*missing\.md'):
      report.main([f'--fill={missing}'])

  def test_every_measurement_of_a_table_of_times(self):
    step = {'median_ms': 2.0, 'ratio': 1.0, 'floor': 1.0, 'expected': 1.0}
    kinds = dict.fromkeys(('training', 'inference', 'evaluation'), step)
    times = {
      'kind': 'timing',
      'row': 'DN-T7-1 DN-T7-2',
      'steps': 3,
      'methods': {'DN-T7-1': {'method': 'mean_teacher', **kinds}},
    }
    results = [{**times, 'device': '1 x cpu'}, {**times, 'device': '1 x gpu'}]
    text = tables.table(results, 'DN-T7')
    for device in ('1 x cpu', '1 x gpu'):
      self.assertIn(f'{device}, 3 steps of each\n\n| row |', text)
    self.assertEqual(text.count('| DN-T7-1 | mean_teacher | 2 |'), 2)
    with self.assertRaisesRegex(errors.UserError, 'no result'):
      tables.table(results, 'DN-T8')

  def test_step_times_between_marks(self):
    one = {
      'images': 10,
      'ms': [4.0],
      'ms_empty': [2.0],
      'compile_s': 1.0,
      'memory_mb': None,
    }
    (self.folder / 'bench').mkdir()
    (self.folder / 'bench' / 'x.json').write_text(
      json.dumps(
        {'kind': 'timing', 'methods': {'a': one, 'b': {**one, 'ms': [6.0]}}}
      )
    )
    mark = '<!-- table: python -m nsl_jax report --bench x -->'
    filled = tables.fill(f'{mark}\nold\n<!-- end -->', self.folder)
    self.assertEqual(
      filled, f'{mark}\n\n{tables.times(self.folder, "x")}\n\n<!-- end -->'
    )
    self.assertIn('| b | 6.00 | 6.00 | 6.00 | 2.00 | 1.50 |', filled)
    with self.assertRaisesRegex(errors.UserError, 'no step times .*known: x'):
      tables.times(self.folder, 'y')

  def test_wrong_ledgers(self):
    with self.assertRaisesRegex(errors.UserError, 'no ledger'):
      tables.read(self.folder / 'none')
    self._write({'row': 'NS-T6-1'})
    with self.assertRaisesRegex(errors.UserError, 'lacks kind'):
      tables.read(self.folder)
    (self.folder / '0.json').write_text('{"row": ')
    with self.assertRaisesRegex(errors.UserError, 'cannot be read'):
      tables.read(self.folder)
    with self.assertRaisesRegex(errors.UserError, 'no result'):
      tables.table([], 'NS')


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
          '--batch=2+3',
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
          '--model=small_cnn',
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
    for words in step.ROWS.values():
      for word in words:
        if word.startswith('configs/'):
          self.assertEqual(
            step.of_config(word, _SETTING, own_batch=False).setting.labeled, 2
          )
        else:
          step.of_word(word, 'small_cnn', _SETTING, '').make(False)

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
      experiment,
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
    config = 'configs/digits_ns3l.py:smoke=true'
    folder = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder) / 'bench' / 'start.json'
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      bench.main(['--startup', f'--config={config}', f'--json={path}'])
    seconds = json.loads(path.read_text())['configs'][config]
    self.assertLess(seconds['warm_s'], seconds['cold_s'])
    self.assertGreater(seconds['warm_s'], 0.1)
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
