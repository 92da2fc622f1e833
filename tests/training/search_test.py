"""A search tries every cell and ranks by validation error alone."""

import contextlib
import csv
import io
import json
import pathlib
import tempfile
from unittest import mock

import folders
import temporary
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.commands import search
from nsl_jax.training import config as config_lib, experiment, search as grid

DIGITS = 'configs/digits_ns3l.py'


def result(config, validation, test, protocol='last'):
  """What `experiment.run` gives, one seed a pair of errors."""
  reports = [
    {'seed': seed, protocol: {'validation_error': v, 'test_error': t}}
    for seed, (v, t) in enumerate(zip(validation, test))
  ]
  mean = sum(test) / len(test)
  return {
    'protocol': protocol,
    'reports': reports,
    'steps': config.steps,
    'score': {'per_seed': test, 'mean': mean, 'std': None},
  }


class GridTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.config = config_lib.load(DIGITS)

  @parameterized.parameters(
    ('optimizer.lr=3e-4,6e-4', (0.0003, 0.0006)),
    ('batch.labeled=10', (10,)),
    ('data.rule=balanced,uniform', ('balanced', 'uniform')),
    ('data.unlabeled_includes_labeled=false,True', (False, True)),
    ('method.threshold=1', (1.0,)),
    ('data.validation=100', (100,)),
    ('model.batch_norm=true', (True,)),  # no field of the config's file
    ('optimizer.drop_factor=1', (1.0,)),
    ('data.augment=flip;flip,translate:1', ('flip', 'flip,translate:1')),
    ('data.augment=flip,translate:1;', ('flip,translate:1',)),
  )
  def test_values_take_the_type_of_the_field(self, text, expected):
    axis = grid.parse_axis(text, self.config)
    self.assertEqual(axis.values, expected)
    self.assertEqual(
      [type(v) for v in axis.values], [type(v) for v in expected]
    )

  @parameterized.parameters(
    ('optimizer.rl=1', "did you mean 'optimizer.lr'"),
    ('optimizer=1', 'no such config field'),
    ('optimizer.lr', 'optimizer.lr=: must be float'),
    ('optimizer.lr=1e-3,', 'must be float'),
    ('optimizer.lr=1e-3,x', 'x: must be float'),
    ('batch.labeled=1.5', 'must be int'),
    ('data.unlabeled_includes_labeled=1', 'must be true or false'),
    ('optimizer.lr=1e-3,0.001', 'repeated'),
    ('steps=10,20', 'use --seeds and --reduced'),
    ('seeds=2', 'use --seeds and --reduced'),
    ('data.validation=10,20', 'not comparable'),
    ('protocol=last,best_validation', 'not comparable'),
    ('data.dir=a,b', 'not comparable'),
    ('eval.every_steps=2,100', 'not comparable'),
    ('data.augment=flip,translate:1', 'separate them by semicolons'),
  )
  def test_refused_in_one_line(self, text, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      grid.parse_axis(text, self.config)
    self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(
    (DIGITS, 'model.top_bn=True,None', (True, None)),
    (
      'configs/tiny_imagenet_l2i.py',
      'optimizer.drop_steps=10,20',
      ((10,), (20,)),
    ),
  )
  def test_fields_that_hold_none_or_a_tuple(self, name, text, expected):
    config = config_lib.load(name, [('model.name', 'cnn13')])
    axis = grid.parse_axis(text, config)
    self.assertEqual(axis.values, expected)
    section, _, last = axis.field.partition('.')
    for value in expected:
      found = grid.with_fields(config, {axis.field: value})
      self.assertEqual(found[section][last], value)
    with self.assertRaisesRegex(errors.UserError, '=x: must be (a number|tup)'):
      grid.parse_axis(f'{axis.field}=x', config)

  def test_cells_are_all_combinations(self):
    axes = [grid.Axis('a', (1, 2)), grid.Axis('b', ('x', 'y'))]
    self.assertEqual(
      grid.cells_of(axes),
      [
        {'a': 1, 'b': 'x'},
        {'a': 1, 'b': 'y'},
        {'a': 2, 'b': 'x'},
        {'a': 2, 'b': 'y'},
      ],
    )
    with self.assertRaisesRegex(errors.UserError, 'twice'):
      grid.cells_of([axes[0], axes[0]])

  def test_fields_are_set_in_a_copy(self):
    before = self.config.to_dict()
    config = grid.with_fields(
      self.config, {'optimizer.lr': 0.5, 'method.threshold': 0.25}
    )
    self.assertEqual(
      (config.optimizer.lr, config.method.threshold), (0.5, 0.25)
    )
    self.assertTrue(config.is_locked)
    self.assertEqual(self.config.to_dict(), before)

  def test_a_long_name_is_that_of_a_folder(self):
    cell = {f'method.terms.vat.field{n}': 1e-3 for n in range(20)}
    names = {grid.name_of(cell), grid.name_of({**cell, 'steps': 1})}
    self.assertLen(names, 2)
    self.assertLess(max(map(len, names)), 220)

  def test_the_name_does_not_depend_on_the_order_of_fields(self):
    name = grid.name_of({'b': 'x/y', 'a': 1})
    self.assertEqual(name, 'a=1,b=x_y')
    self.assertEqual(name, grid.name_of({'a': 1, 'b': 'x/y'}))


class ValidationTest(parameterized.TestCase):
  @parameterized.parameters('last', 'best_validation')
  def test_of_the_protocol(self, protocol):
    config = config_lib.load(DIGITS)
    found = grid.validation_errors(
      result(config, [3.0, 5.0], [1.0, 2.0], protocol), pathlib.Path()
    )
    self.assertEqual(found, [3.0, 5.0])

  def test_median_of_the_last_20_evaluations(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    (folder / 'seed_3').mkdir()
    every = [90.0] * 5 + [float(i) for i in range(20)]  # 0 ... 19: 9.5
    lines = [{'kind': 'train', 'step': 1, 'loss': 1.0}] + [
      {'kind': 'eval', 'step': i, 'validation_error': value}
      for i, value in enumerate(every)
    ]
    (folder / 'seed_3' / 'metrics.jsonl').write_text(
      ''.join(json.dumps(line) + '\n' for line in lines)
    )
    content = {
      'protocol': 'median_last_20',
      'reports': [{'seed': 3, 'median_last_20': {'test_error': 1.0}}],
    }
    self.assertEqual(grid.validation_errors(content, folder), [9.5])


class SearchTest(temporary.FolderTestCase):
  def _run(self, outcome, *words):
    """The command with `outcome(config)` in place of training."""
    out = self.folder / 'tables' / 'out.csv'
    printed, progress = io.StringIO(), io.StringIO()
    run = mock.Mock(side_effect=lambda config, workdir: outcome(config))
    with (
      mock.patch.object(experiment, 'run', run),
      contextlib.redirect_stdout(printed),
      contextlib.redirect_stderr(progress),
    ):
      search.main(
        [
          f'--config={DIGITS}',
          f'--out={out}',
          f'--workdir={self.folder}',
          *words,
        ]
      )
    with out.open() as file:
      lines = list(csv.DictReader(file))
    return lines, printed.getvalue(), progress.getvalue(), run

  def test_test_errors_neither_choose_nor_show(self):
    # The lower the validation error, the higher the test error.
    validation = {0.1: 7.5, 0.2: 4.5, 0.3: 6.5}
    outcome = lambda config: result(
      config,
      [validation[config.optimizer.lr] + s for s in (-0.5, 0.5)],
      [81.0 - validation[config.optimizer.lr]] * 2,
    )
    lines, printed, progress, run = self._run(
      outcome, '--grid=optimizer.lr=0.1,0.2,0.3', '--seeds=2', '--reduced=100'
    )
    self.assertEqual(
      [line['optimizer.lr'] for line in lines], ['0.2', '0.3', '0.1']
    )
    self.assertEqual(
      [line['validation_error'] for line in lines], ['4.5', '6.5', '7.5']
    )
    self.assertEqual(
      {(line['seeds'], line['steps'], line['full_steps']) for line in lines},
      {('2', '100', '2000')},
    )
    self.assertIn('4.50 ± 0.71', printed)
    self.assertIn('lowest: --config.optimizer.lr=0.2\n', printed)
    self.assertNotIn('test', ''.join(lines[0]) + printed)
    for hidden in ('73.5', '74.5', '76.5'):
      self.assertNotIn(hidden, printed)
    self.assertIn('cell 3 of 3: optimizer.lr=0.3', progress)
    for call in run.call_args_list:
      config, workdir = call.args
      self.assertEqual((config.seeds, config.steps, config.row), (2, 100, ''))
      self.assertEqual(workdir.name, f'optimizer.lr={config.optimizer.lr}')

  def test_a_cell_that_diverges_comes_last(self):
    def outcome(config):
      if config.optimizer.lr > 1.0:
        raise errors.TrainingError('loss is nan at step 3')
      return result(config, [50.0], [1.0])

    lines, printed, progress, _ = self._run(
      outcome, '--grid=optimizer.lr=9.0,0.1'
    )
    self.assertEqual([line['optimizer.lr'] for line in lines], ['0.1', '9.0'])
    self.assertEqual(lines[1]['validation_error'], '')
    self.assertEqual(lines[1]['failure'], 'loss is nan at step 3')
    self.assertRegex(printed, r'failed +optimizer.lr=9.0')
    self.assertIn('nan', progress)
    with self.assertRaisesRegex(errors.TrainingError, 'every cell failed'):
      self._run(outcome, '--grid=optimizer.lr=9.0')

  def test_a_wrong_cell_is_told_before_any_is_trained(self):
    run = mock.Mock()
    with mock.patch.object(experiment, 'run', run):
      for words, message in (
        (['--grid=optimizer.lr=0.1,-1'], r'optimizer\.lr=-1\.0'),
        (['--grid=method.threshold=0.1,1.5'], r'method\.threshold=1\.5'),
        (['--grid=batch.labeled=8,0'], r'batch\.labeled=0'),
        (['--grid=optimizer.lr=0.1', '--reduced=0'], 'reduced=0: must be at'),
        (['--grid=optimizer.lr=0.1', f'--out={self.folder}'], 'is a folder'),
      ):
        with self.assertRaisesRegex(errors.UserError, message):
          search.main(
            [f'--config={DIGITS}', f'--workdir={self.folder}', *words]
          )
    run.assert_not_called()

  def test_the_table_is_there_after_each_cell(self):
    def outcome(config):
      if config.optimizer.lr == 0.2:
        lines = list(csv.DictReader((self.folder / 'tables/out.csv').open()))
        self.assertEqual([line['optimizer.lr'] for line in lines], ['0.1'])
      return {
        **result(config, [5.0], [1.0]),
        'steps': round(30 / config.optimizer.lr),
      }

    _, printed, *_ = self._run(outcome, '--grid=optimizer.lr=0.1,0.2')
    self.assertIn('1 seeds, 150 to 300, by the cell, steps', printed)

  def test_the_earlier_of_equals(self):
    lines, *_ = self._run(
      lambda config: result(config, [5.0], [config.optimizer.lr]),
      '--grid=optimizer.lr=0.2,0.1',
    )
    self.assertEqual([line['optimizer.lr'] for line in lines], ['0.2', '0.1'])

  def test_nothing_to_choose_by(self):
    run = mock.Mock()
    with mock.patch.object(experiment, 'run', run):
      for words, message in (
        (['--grid=optimizer.lr=1.0'], 'not test data.*--grid'),
        (['--grid=optimizer.lr=1.0', '--grid=optimizer.lr=2.0'], 'twice'),
      ):
        with self.assertRaisesRegex(errors.UserError, message):
          search.main(
            [
              '--config=configs/fashion_mnist_table6.py',
              f'--workdir={self.folder}',
              *words,
            ]
          )
    run.assert_not_called()

  def test_an_open_config_is_resolved_first(self):
    """Its data hold out nothing, or give the true number of steps."""
    photos = folders.make(self.folder / 'photos', labeled=3)
    base = f'--config=configs/folder.py:dir={photos},method=supervised'
    words = ['--grid=optimizer.lr=0.1,0.2', f'--workdir={self.folder}/runs']
    run = mock.Mock()
    with mock.patch.object(experiment, 'run', run):
      with self.assertRaisesRegex(errors.UserError, 'needs validation images'):
        search.main([base, *words])
    run.assert_not_called()
    lines, printed, *_ = self._run(
      lambda config: {**result(config, [5.0], [1.0]), 'steps': 70},
      '--grid=optimizer.lr=0.2,0.1',
    )
    self.assertEqual({line['steps'] for line in lines}, {'70'})
    self.assertIn('1 seeds, 70 steps', printed)

  def test_validation_images_can_be_set(self):
    outcome = lambda config: result(config, [config.data.validation], [0.0])
    lines, *_ = self._run(
      outcome, '--grid=data.validation=77', '--grid=optimizer.lr=0.1,0.2'
    )
    self.assertEqual(
      [line['validation_error'] for line in lines], ['77.0', '77.0']
    )

  def test_a_place_that_cannot_be_written_is_known_before_training(self):
    (self.folder / 'file').write_text('')
    run = mock.Mock()
    with mock.patch.object(experiment, 'run', run):
      with self.assertRaisesRegex(errors.UserError, 'choose another'):
        search.main(
          [
            f'--config={DIGITS}',
            '--grid=optimizer.lr=0.1',
            f'--out={self.folder / "file" / "x.csv"}',
          ]
        )
    run.assert_not_called()

  @parameterized.parameters(
    (DIGITS, None, 'digits_ns3l'),
    (f'{DIGITS}:seeds=3', 50, 'digits_ns3l,reduced=50'),
    (f'{DIGITS}:labels=20,seeds=2', None, 'digits_ns3l,labels=20'),
  )
  def test_default_workdir(self, argument, reduced, name):
    self.assertEqual(
      search.default_workdir(argument, reduced),
      pathlib.Path('runs') / 'search' / name,
    )

  def test_real_cells_are_resumed(self):
    """One rate, then a second: the first is not trained again."""
    words = [
      '--config=configs/digits_supervised.py',
      '--reduced=4',
      f'--workdir={self.folder}',
      '--grid=data.limit=300',
      '--grid=data.validation=20',
      '--grid=data.labeled=20',
      '--grid=batch.labeled=4',
      '--grid=devices=1',
    ]
    files = lambda: {
      path: path.read_bytes()
      for path in sorted(self.folder.glob('*/seed_0/metrics.jsonl'))
    }
    with contextlib.redirect_stdout(io.StringIO()):
      search.main([*words, '--grid=optimizer.lr=1e-3'])
      first = files()
      search.main([*words, '--grid=optimizer.lr=1e-3,1e-6'])
    self.assertLen(first, 1)
    self.assertLen(files(), 2)
    self.assertEqual({path: files()[path] for path in first}, first)
    with (self.folder / 'search.csv').open() as file:
      lines = list(csv.DictReader(file))
    self.assertLen(lines, 2)
    for line in lines:
      (folder,) = self.folder.glob(f'*optimizer.lr={line["optimizer.lr"]}')
      content = json.loads((folder / 'results.json').read_text())
      report = content['reports'][0][content['protocol']]
      self.assertEqual(
        float(line['validation_error']), report['validation_error']
      )
      self.assertEqual(content['config']['steps'], 4)


if __name__ == '__main__':
  absltest.main()
