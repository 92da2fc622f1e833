"""Landmarks from the lists of MTFL to a result, by command."""

import contextlib
import json
import pathlib
import shutil
import tempfile

import command
import face_fixtures
import numpy as np
from absl.testing import absltest
from repository import ROOT

from nsl_jax import main
from nsl_jax.commands import data as data_command
from nsl_jax.data import split_file
from nsl_jax.training import metrics_log

_TRAIN, _TEST = 40, 12


def _start(*words):
  with contextlib.chdir(ROOT):
    return command.run(main.main, *words)


class AflwTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.folder = pathlib.Path(folder.name)
    cls.points = face_fixtures.write(
      cls.folder / 'data' / 'downloads' / 'manual' / 'aflw',
      {'training.txt': _TRAIN, 'testing.txt': _TEST},
    )
    cls.workdir = cls.folder / 'run'
    cls.words = (
      '--config=configs/aflw_l2i.py:labels=20,host=mt,variant=v2,smoke=true',
      f'--config.data.dir={cls.folder}/data',
      f'--workdir={cls.workdir}',
      '--config.devices=1',
      '--config.data.validation=8',
      '--config.steps=4',
      '--config.eval.every_steps=2',
      '--config.checkpoint.every=2',
      '--config.log_every=1',
      '--config.batch.labeled=4',
      '--config.batch.unlabeled=4',
      '--config.batch.holdout=4',
    )
    cls.first = _start(*cls.words)
    assert cls.first.status == 0, cls.first.err

  def lines(self, kind=None):
    """Lines of metrics without their times."""
    found = metrics_log.read(self.workdir / 'seed_0' / 'metrics.jsonl')
    return [
      {k: v for k, v in line.items() if k != 'seconds'}
      for line in found
      if kind in (None, line['kind'])
    ]

  def test_results(self):
    results = json.loads((self.workdir / 'results.json').read_text())
    self.assertEqual(results['config']['task'], 'regression')
    self.assertEqual(results['protocol'], 'best_validation')
    evaluations = self.lines('eval')
    self.assertLen(evaluations, 2)
    best = min(evaluations, key=lambda line: line['validation_error'])
    score = results['score']
    self.assertEqual(score['per_seed'], [best['test_error']])
    self.assertEqual((score['metric'], score['unit']), ('test_error', '%'))
    chosen = results['scores']['best_validation']
    for name in ('test_failure', 'validation_failure', 'validation_error'):
      self.assertEqual(chosen[name]['per_seed'], [best[name]])
    self.assertIn(f'test_error {score["mean"]:.2f} %', self.first.out)
    self.assertIn('%', self.first.err)  # the validation error on the bar

  def test_metrics(self):
    for line in self.lines('train'):
      for name in ('squared_error', 'soft_label', 'held', 'loss'):
        self.assertIn(name, line)
      self.assertNotIn('cross_entropy', line)
    for line in self.lines('eval'):
      self.assertNotIn('test_cross_entropy', line)
      wrong = line['test_failure'] / 100.0 * _TEST  # a number of images
      self.assertAlmostEqual(wrong, round(wrong), places=3)
      # Four steps are hardly better than the mean of the labeled points.
      self.assertBetween(
        line['test_error'], 0.5 * self.mean_error(), 2.0 * self.mean_error()
      )

  def mean_error(self):
    """Of always predicting where the labeled points are on average, in %."""
    split = split_file.load(self.workdir / 'seed_0' / 'split.npz')
    known = np.stack(self.points['training.txt'])[split.labeled] * 60
    mean, errors = known.mean(0), []
    for points in self.points['testing.txt']:
      eyes = np.hypot(*(60 * points[1] - 60 * points[0]))
      errors.append(np.hypot(*(60 * points - mean).T).mean() / eyes)
    return 100 * np.mean(errors)

  def test_split(self):
    split = split_file.load(self.workdir / 'seed_0' / 'split.npz')
    self.assertEqual([len(rows) for rows in split], [20, 12, 8, 0])
    np.testing.assert_array_equal(
      np.sort(np.concatenate(split)), np.arange(_TRAIN)
    )

  def test_resumed_is_the_same(self):
    """Without its last checkpoint the run goes on from the one before."""
    before, seed = self.lines(), self.workdir / 'seed_0'
    results = json.loads((self.workdir / 'results.json').read_text())
    shutil.rmtree(seed / 'checkpoints' / '4')
    (seed / 'result.json').unlink()
    (self.workdir / 'results.json').unlink()
    second = _start(*self.words)
    self.assertEqual(second.status, 0, second.err)
    self.assertEqual(second.out, self.first.out)
    self.assertEqual(self.lines(), before)
    after = json.loads((self.workdir / 'results.json').read_text())
    self.assertEqual(after['scores'], results['scores'])

  def test_wrong_line_is_one_line(self):
    data = self.folder / 'other'
    manual = data / 'downloads' / 'manual' / 'aflw'
    face_fixtures.write(manual, {'training.txt': 3, 'testing.txt': 2})
    (manual / 'training' / 'picture 2.png').unlink()
    done = command.run(
      data_command.main, '--prepare', 'aflw', '--data_dir', str(data)
    )
    self.assertEqual(done.status, 2)
    self.assertIn(f'{manual}/training.txt, line 3: ', done.err)
    self.assertNotIn('Traceback', done.err)


if __name__ == '__main__':
  absltest.main()
