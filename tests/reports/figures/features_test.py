"""DN-F5: features of the last checkpoint of both cells, really trained."""

import contextlib
import io
import json
import pathlib
import shutil
import tempfile
from unittest import mock

import numpy as np
import threadpoolctl
from absl.testing import absltest

from nsl_jax import errors, models
from nsl_jax.data import sources
from nsl_jax.papers import rows
from nsl_jax.reports.figures import cells, curves, features
from nsl_jax.training import assembly, config as config_lib, experiment

STEPS = 3
CONFIG = 'configs/mnist_dnll.py'


def load(argument, **extra):
  """The config on digits, with a network that compiles fast."""
  config = config_files_load(argument, **extra).unlock()
  config.data.update(name='digits', validation=40, normalize='unit')
  config.batch = {k: 4 * bool(size) for k, size in config.batch.items()}
  config.model = dict(name='mlp', hidden=16, layers=1)
  config.devices = 1
  return config.lock()


config_files_load = config_lib.load


class FeaturesTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # Threads of t-SNE that wait for one another take most of its time here.
    cls.enterClassContext(threadpoolctl.threadpool_limits(1))
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    cls.row = rows.find('DN-F5')
    cls.drawing = cls.draw()

  @classmethod
  def draw(cls):
    with (
      mock.patch.object(config_lib, 'load', load),
      mock.patch.object(features, 'IMAGES', 60),
      mock.patch.object(features, '_BATCH', 40),
      contextlib.redirect_stderr(io.StringIO()),
    ):
      return features.draw(cls.row, seeds=1, reduced=STEPS, workdir=cls.folder)

  def test_both_cells_show_the_same_images(self):
    self.assertEqual(self.drawing.png[:4], b'\x89PNG')
    panels = {
      name: [line for line in self.drawing.lines if line['panel'] == name]
      for name in ('dnll', 'supervised')
    }
    self.assertEqual(
      {name: len(every) for name, every in panels.items()},
      {'dnll': 60, 'supervised': 60},
    )
    labels = [[line['label'] for line in p] for p in panels.values()]
    self.assertEqual(*labels)
    self.assertGreater(len(set(labels[0])), 5)
    places = [[line['x'] for line in p] for p in panels.values()]
    self.assertNotEqual(*places)
    self.assertTrue(np.isfinite(places).all())

  def test_the_same_splits_and_steps(self):
    dnll, alone = self.drawing.content['cells']
    self.assertEqual(dnll['split_sha256'], alone['split_sha256'])
    self.assertEqual((dnll['steps'], alone['steps']), (STEPS, STEPS))
    self.assertEqual(dnll['config']['data'], alone['config']['data'])
    self.assertEqual(dnll['config']['optimizer'], alone['config']['optimizer'])
    self.assertEqual(
      alone['config']['method'],
      {'name': 'supervised', 'shared_batch_norm': True, 'terms': {}},
    )
    self.assertEqual(alone['config']['batch'], {'labeled': 4, 'unlabeled': 0})
    self.assertEqual(alone['config']['row'], '')
    self.assertEqual(dnll['config']['data']['labeled'], 20)

  def test_ledger(self):
    content = self.drawing.content
    json.dumps(content)
    dnll, alone = content['panels']
    submodel = content['cells'][0]['reports'][0]['last']['submodel']
    self.assertEqual((dnll['submodel'], alone['submodel']), (submodel, ''))
    for cell, one in zip(content['cells'], content['panels']):
      self.assertEqual(
        one['accuracy_of_all_images'],
        100.0 - cell['reports'][0]['last']['test_error'],
      )
      self.assertEqual(one['images'], 60)
      self.assertBetween(one['silhouette'], -1.0, 1.0)
    self.assertIn('scikit-learn', content['versions'])

  def test_features_are_those_of_the_network_that_was_trained(self):
    """Its head on them makes exactly the logged number of test errors."""
    cell, _ = self._cells()
    folder = self.folder / cell.name
    report = json.loads((folder / 'seed_0' / 'result.json').read_text())
    parts = assembly.prepare(cell.config)
    state = cells.last_state(parts, 0, folder / 'seed_0')
    self.assertEqual(int(state.step), STEPS)
    images, labels = sources.load('digits').test
    model = models.build(cell.config.model.to_dict(), 10)
    for name in 'ab':
      params, stats = features._network(state, name, False)
      view = parts.normalize(parts.fitted, images)
      outputs, _ = model.apply(params, stats, view, train=False)
      wrong = np.mean(np.argmax(outputs.logits, -1) != labels)
      self.assertAlmostEqual(
        100.0 * wrong, report['last'][f'test_error_{name}'], places=4
      )

  def _cells(self):
    with mock.patch.object(config_lib, 'load', load):
      return features.cells_of(self.row, seeds=1, reduced=STEPS)

  def test_a_second_call_trains_nothing_and_draws_the_same(self):
    with (
      mock.patch.object(experiment.loop, 'run') as train,
      mock.patch.object(features, 'IMAGES', 60),
      contextlib.redirect_stderr(io.StringIO()),
    ):
      second_pass = cells.train(self._cells(), self.folder)
      panel = features.panel_of(second_pass[1])
    train.assert_not_called()
    lines = [x for x in self.drawing.lines if x['panel'] == 'supervised']
    self.assertEqual(features.lines_of([panel]), lines)

  def test_curves_read_what_is_really_logged(self):
    with contextlib.redirect_stderr(io.StringIO()):
      trained = cells.train(self._cells(), self.folder)
    found = {line['cell']: line for line in curves.lines_of(trained)}
    for one in trained:
      line, report = found[one.cell.name], one.results['reports'][0]['last']
      self.assertEqual(line['step'], STEPS)
      self.assertAlmostEqual(line['mean'], 100.0 - report['test_error'])
      unlabeled = 1437 - 40 - 20
      self.assertAlmostEqual(line['epoch'], 4 * STEPS / unlabeled, places=4)
    self.assertAlmostEqual(
      found['dnll']['ensemble_mean'],
      100.0 - trained[0].results['reports'][0]['last']['test_error_ensemble'],
    )
    self.assertIsNone(found['supervised']['ensemble_mean'])

  def test_a_lost_checkpoint(self):
    cell, _ = self._cells()
    parts = assembly.prepare(cell.config)
    with tempfile.TemporaryDirectory() as folder:
      copy = pathlib.Path(folder) / 'seed_0'
      shutil.copytree(self.folder / 'dnll' / 'seed_0', copy)
      shutil.rmtree(copy / 'checkpoints')
      with self.assertRaisesRegex(errors.UserError, 'lost the checkpoint'):
        cells.last_state(parts, 0, copy)

  def test_the_real_config(self):
    dnll, alone = features.cells_of(self.row, seeds=3, reduced=0)
    self.assertEqual(dnll.argument, f'{CONFIG}:method=dnll,seeds=3')
    self.assertEqual(
      alone.config.batch.to_dict(), {'labeled': 128, 'unlabeled': 0}
    )
    self.assertEqual(alone.label, '20 labels alone')
    assembly.build_method(alone.config, 10, (28, 28, 1))


if __name__ == '__main__':
  absltest.main()
