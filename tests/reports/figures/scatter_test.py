"""DN-F8: accuracy of its cells against the times of one timing."""

import contextlib
import io
import json
from unittest import mock

import temporary
from absl.testing import absltest

from nsl_jax.benchmarks import table7
from nsl_jax.papers import rows
from nsl_jax.reports.figures import scatter
from nsl_jax.training import experiment, summary


def run(config, workdir):
  """`experiment.run` without training."""
  errors = {'mean_teacher': 12.0, 'dual_student': 9.0, 'dnll': 8.0}
  error = errors[config.method.name]
  seeds = list(range(config.seeds))
  line = {'step': config.steps, 'test_error': error, 'validation_error': 10.0}
  reports = [
    {
      'seed': s,
      'last': line,
      'best_validation': line,
      'median_last_20': {'test_error': error, 'evaluations': 1},
    }
    for s in seeds
  ]
  workdir.mkdir(parents=True, exist_ok=True)
  return {
    'row': config.row,
    'protocol': config.protocol,
    'seeds': seeds,
    'steps': config.steps,
    'full_steps': config.full_steps,
    'reduced': config.steps < config.full_steps,
    'reports': reports,
    'score': {'mean': error, 'std': 0.5 if len(seeds) > 1 else None},
    'scores': summary.scores(reports),
    'config': config.to_dict(),
    'device': 'd',
    'commit': 'abc',
    'versions': {'jax': '0'},
    'data_note': '',
    'wall_time_s': 1.0,
    'split_sha256': ['f'],
  }


def timed(*, reduced):
  """`timing.run` without measuring."""
  found = {}
  for row_id, base in zip(table7.ROWS, (100.0, 220.0, 180.0)):
    found[row_id] = {
      'training': {
        'ms': [base - 10.0, base, base + 20.0],
        'ratio': base / 100.0,
      }
    }
  return {'kind': 'timing', 'steps': reduced, 'methods': found}


class ScatterTest(temporary.FolderTestCase):
  def _draw(self, seeds=2, reduced=7):
    with (
      mock.patch.object(experiment, 'run', side_effect=run) as self.run,
      mock.patch.object(table7, 'run', side_effect=timed) as self.timed,
      contextlib.redirect_stderr(io.StringIO()),
    ):
      return scatter.draw(
        rows.find('DN-F8'), seeds=seeds, reduced=reduced, workdir=self.folder
      )

  def test_three_points(self):
    drawing = self._draw()
    self.assertEqual(drawing.png[:4], b'\x89PNG')
    self.assertEqual(
      drawing.lines[1],
      {
        'cell': 'dual_student',
        'seconds_per_step': 0.22,
        'min': 0.21,
        'max': 0.24,
        'ratio': 2.2,
        'accuracy': 91.0,
        'accuracy_std': 0.5,
        'seeds': 2,
        'steps': 7,
      },
    )
    self.assertEqual(
      [line['cell'] for line in drawing.lines],
      ['mean_teacher', 'dual_student', 'dnll'],
    )
    self.assertEqual(self.timed.call_args.kwargs, {'reduced': 7})
    json.dumps(drawing.content)
    self.assertIn('methods', drawing.content['timing'])

  def test_one_seed_has_no_bar(self):
    self.assertIsNone(self._draw(seeds=1).lines[0]['accuracy_std'])

  def test_cells_are_the_rows_that_are_timed(self):
    self._draw(reduced=0)
    for row_id, call in zip(table7.ROWS, self.run.call_args_list):
      config, _ = call.args
      self.assertEqual(config.data.labeled, 4000)
      self.assertEqual(config.model.name, 'cnn13')
      self.assertEqual(config.method.name, table7.configs()[row_id].method.name)
    self.assertEqual(
      self.timed.call_args.kwargs, {'reduced': table7.whole_steps()}
    )

  def test_times_are_taken_once(self):
    first = self._draw().lines
    self.assertEqual(self._draw().lines, first)
    self.timed.assert_not_called()


if __name__ == '__main__':
  absltest.main()
