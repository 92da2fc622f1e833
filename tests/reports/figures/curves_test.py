"""DN-F4, F6, F7: the cells that are trained, and the curves of their logs."""

import contextlib
import io
import json
from unittest import mock

import numpy as np
import temporary
from absl.testing import absltest, parameterized

from nsl_jax import errors, main
from nsl_jax.commands import reproduce
from nsl_jax.data import split_file, splits
from nsl_jax.papers import rows
from nsl_jax.reports.figures import cells, curves
from nsl_jax.training import experiment, summary, workdir as workdir_lib

UNLABELED = 600
WHERE = {
  'device': '1 x cpu (cpu; host: 2 cores)',
  'commit': 'abc',
  'versions': {'jax': '0'},
  'data_note': '',
  'wall_time_s': 1.5,
  'split_sha256': ['f'],
}


def evaluation(config, step, seed):
  """One line of a log: test error 50 - step - seed; of two networks b is
  better by 1 and the ensemble by 2, but a is chosen."""
  error = 50.0 - step - seed
  line = {
    'kind': 'eval',
    'step': step,
    'test_error': error,
    'validation_error': error + 1 if config.data.validation else None,
  }
  if config.method.name in ('dnll', 'dual_student'):
    line |= {
      'submodel': 'a',
      'test_error_a': error,
      'test_error_b': error - 1,
      'test_error_ensemble': error - 2,
    }
  return line


def write_seed(config, seed, folder):
  folder.mkdir(parents=True)
  rows_of = np.arange(UNLABELED, dtype=np.int32)
  split_file.save(
    splits.Split(rows_of[:3], rows_of, rows_of[:0]), folder / 'split.npz'
  )
  lines = [{'kind': 'train', 'step': 1, 'loss': 1.0}] + [
    evaluation(config, step, seed) for step in (10, 20)
  ]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / 'metrics.jsonl').write_text(text)
  keep = {k: v for k, v in lines[-1].items() if k != 'kind'}
  return {
    'seed': seed,
    'last': keep,
    'best_validation': keep if config.data.validation else None,
    'median_last_20': {'test_error': 30.0, 'evaluations': 2},
  }


def run(config, workdir):
  """`experiment.run` without training."""
  workdir.mkdir(parents=True, exist_ok=True)
  workdir_lib.lock_workdir_to_config(workdir, config.to_dict())
  seeds = list(range(config.seeds))
  reports = [
    write_seed(config, seed, workdir / f'seed_{seed}') for seed in seeds
  ]
  mean = np.mean([one['last']['test_error'] for one in reports])
  return {
    'row': config.row,
    'protocol': config.protocol,
    'seeds': seeds,
    'steps': config.steps,
    'full_steps': config.full_steps,
    'reduced': config.steps < config.full_steps,
    'reports': reports,
    'score': {'mean': float(mean), 'std': 0.5},
    'config': config.to_dict(),
    'scores': summary.scores(reports),
    **WHERE,
  }


def by_main(argument):
  """The config that `python -m nsl_jax.main --config=argument` trains."""
  with mock.patch.object(experiment, 'run', return_value=None) as trains:
    main.main([f'--config={argument}', '--workdir=unused'])
  trains.assert_called_once()
  return trains.call_args.args[0]


class CurvesTest(temporary.FolderTestCase):
  def _draw(self, row_id, *, seeds=2, reduced=20):
    self.progress = io.StringIO()
    with (
      mock.patch.object(experiment, 'run', side_effect=run) as self.run,
      contextlib.redirect_stderr(self.progress),
    ):
      return curves.draw(
        rows.find(row_id),
        seeds=seeds,
        reduced=reduced,
        workdir=self.folder / 'runs',
      )

  @parameterized.parameters(
    ('DN-F4', ['labels_1000', 'labels_4000'], 'dnll'),
    (
      'DN-F6',
      [
        'dual_student',
        'dual_student_dnll',
        'mean_teacher',
        'mean_teacher_dnll',
      ],
      None,
    ),
    (
      'DN-F7',
      ['source', 'target', 'mean_teacher', 'dual_student', 'dnll'],
      None,
    ),
  )
  def test_cells_are_what_main_trains(self, row_id, names, method):
    drawing = self._draw(row_id)
    self.assertEqual(drawing.png[:4], b'\x89PNG')
    self.assertLen(self.run.call_args_list, len(names))
    for name, call in zip(names, self.run.call_args_list):
      config, folder = call.args
      self.assertEqual(folder, self.folder / 'runs' / name)
      self.assertEqual(config.steps, 20)
      self.assertIn(
        config.method.name, (method or name.split('_dnll')[0], 'supervised')
      )
      command = next(
        line
        for line in self.progress.getvalue().splitlines()
        if line.endswith(f'--workdir={folder}')
      )
      argument = command.partition('--config=')[2].split()[0]
      trained = by_main(argument)
      self.assertEqual(trained.to_dict(), config.to_dict())
      workdir_lib.lock_workdir_to_config(
        folder, trained.to_dict()
      )  # main may resume it
    with self.assertRaisesRegex(errors.UserError, 'another config'):
      workdir_lib.lock_workdir_to_config(
        folder, self.run.call_args_list[0].args[0].to_dict()
      )

  def test_all_steps(self):
    drawing = self._draw('DN-F4', seeds=1, reduced=0)
    self.assertIn('labels=1000,seeds=1 ', self.progress.getvalue())
    self.assertFalse(drawing.content['reduced'])
    self.assertEqual(drawing.content['steps'], 2**18)
    self.assertEqual(
      [c['config']['row'].split()[0] for c in drawing.content['cells']],
      ['DN-T2-1', 'DN-T5-EPM3'],
    )

  def test_lines_are_means_over_seeds(self):
    drawing = self._draw('DN-F6')
    self.assertLen(drawing.lines, 4 * 2)
    first, last = drawing.lines[0], drawing.lines[-1]
    self.assertEqual(
      first,
      {
        'cell': 'dual_student',
        'step': 10,
        'epoch': round(10 * 50 / 600, 4),
        'seeds': 2,
        'mean': 60.5,
        'std': 0.5**0.5,
        'ensemble_mean': 62.5,
        'ensemble_std': 0.5**0.5,
      },
    )
    self.assertEqual((last['cell'], last['mean']), ('mean_teacher_dnll', 70.5))
    self.assertIsNone(last['ensemble_mean'])

  def test_one_seed_has_no_band(self):
    self.assertIsNone(self._draw('DN-F6', seeds=1).lines[0]['std'])

  def test_cells_without_unlabeled_images_count_epochs_as_the_others(self):
    drawing = self._draw('DN-F7')
    epochs = {line['cell']: line['epoch'] for line in drawing.lines}
    self.assertEqual(set(epochs.values()), {round(20 * 224 / 600, 4)})
    self.assertIn('source', epochs)

  def test_ledger(self):
    content = self._draw('DN-F6').content
    self.assertEqual(content['wall_time_s'], 4 * 1.5)
    self.assertEqual(
      (content['seeds'], content['steps'], content['reduced']),
      ([0, 1], 20, True),
    )
    self.assertEqual(content['full_steps'], 88_000)
    pair, _, single, _ = content['cells']
    for protocol in ('last', 'best_validation'):
      found = pair['scores'][protocol]
      self.assertEqual(
        {name: one['mean'] for name, one in found.items()},
        {
          'test_error': 29.5,
          'validation_error': 30.5,
          'test_error_a': 29.5,
          'test_error_b': 28.5,
          'test_error_ensemble': 27.5,
        },
      )
      self.assertLen(found['test_error_b']['per_seed'], 2)
    self.assertNotIn('test_error_a', single['scores']['last'])
    self.assertLen(pair['reports'], 2)
    self.assertStartsWith(
      pair['argument'], 'configs/cifar10_dual_student.py:method=dual_student,'
    )
    json.dumps(content)  # as the ledger keeps it

  def test_nothing_held_out(self):
    content = self._draw('DN-F7').content
    found = content['cells'][0]['scores']
    self.assertNotIn('best_validation', found)
    self.assertNotIn('validation_error', found['last'])

  def test_by_command(self):
    printed = io.StringIO()
    with (
      mock.patch.object(experiment, 'run', side_effect=run),
      contextlib.redirect_stdout(printed),
      contextlib.redirect_stderr(io.StringIO()),
    ):
      reproduce.main(
        [
          '--row=DN-F4',
          '--seeds=3',
          '--reduced=20',
          f'--workdir={self.folder}/runs',
          f'--ledger={self.folder}/results',
        ]
      )
    results = self.folder / 'results'
    content = json.loads(
      (results / 'DN-F4-cpu-reduced20-seeds3.json').read_text()
    )
    self.assertEqual((content['row'], content['kind']), ('DN-F4', 'figure'))
    self.assertTrue(
      (self.folder / 'runs/DN-F4-reduced20/labels_4000/seed_2').is_dir()
    )
    for name in content['files']:
      self.assertIn(name, printed.getvalue())
      self.assertTrue((results / name).is_file())

  def test_a_wrong_length_is_refused_before_anything_is_trained(self):
    with self.assertRaisesRegex(errors.UserError, '262144 steps'):
      self._draw('DN-F4', reduced=2**18 + 1)
    self.run.assert_not_called()

  def test_title(self):
    argument = 'configs/usps_mnist.py:method=source'
    cell = cells.make('source', 'x', argument, seeds=1, reduced=20)
    self.assertEqual(cell.argument, f'{argument},seeds=1,reduced=20')
    one = cells.Trained(cell, self.folder, run(cell.config, self.folder / 'r'))
    self.assertEqual(
      cells.title(rows.find('DN-F7'), cells.content([one])),
      'DN-F7: usps_to_mnist@7,291, 1 seed, 20 steps (reduced from 26,700)',
    )


if __name__ == '__main__':
  absltest.main()
