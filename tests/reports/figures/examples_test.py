"""L2-F3: points of the last checkpoint of both cells, really trained."""

import contextlib
import io
import json
import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest

from nsl_jax.data import sources
from nsl_jax.papers import rows
from nsl_jax.reports.figures import examples
from nsl_jax.training import config as config_lib, experiment

STEPS, TEST = 3, 20
config_files_load = config_lib.load


def load(argument, **extra):
  """The config, on a few small images, with a network that compiles fast."""
  config = config_files_load(argument, **extra).unlock()
  config.data.update(labeled=8, validation=4)
  config.batch = {name: 2 for name in config.batch}
  config.model = dict(name='mlp', hidden=16, layers=1)
  config.devices = 1
  return config.lock()


def source(*args, **kwargs):
  """Noise, and points that are nowhere the same."""
  rng = np.random.default_rng(0)
  make = lambda size: sources.Arrays(
    rng.integers(0, 256, (size, 44, 44, 1)).astype(np.uint8),
    rng.uniform(0, 44, (size, 10)).astype(np.float32),
  )
  return sources.Source('aflw', 0, make(24), make(TEST), '')


class ExamplesTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.enterClassContext(mock.patch.object(config_lib, 'load', load))
    cls.enterClassContext(mock.patch.object(sources, 'load', source))
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    cls.row = rows.find('L2-F3')
    with (
      mock.patch.object(examples, 'SHOWN', TEST),
      contextlib.redirect_stderr(io.StringIO()),
    ):
      cls.drawing = examples.draw(
        cls.row, seeds=1, reduced=STEPS, workdir=cls.folder
      )

  def lines(self, cell):
    return [line for line in self.drawing.lines if line['cell'] == cell]

  def test_command(self):
    self.assertEqual(self.drawing.png[:4], b'\x89PNG')
    json.dumps(self.drawing.content)

  def test_both_show_the_same_images(self):
    one, two = self.lines('mean_teacher'), self.lines('v1')
    self.assertLen(one, 5 * TEST)
    same = ('image', 'point', 'true_x', 'true_y')
    for a, b in zip(one, two, strict=True):
      self.assertEqual([a[k] for k in same], [b[k] for k in same])
    self.assertTrue(any(a['x'] != b['x'] for a, b in zip(one, two)))
    _, labels = source().test
    line = one[5 * 7 + 2]
    np.testing.assert_allclose(
      [line['true_x'], line['true_y']], labels[line['image'], 4:6], atol=1e-3
    )

  def test_errors_are_those_that_were_logged(self):
    """All test images are shown here, so their mean is the test error."""
    for cell in self.drawing.content['cells']:
      lines = self.lines(cell['cell'])
      logged = cell['reports'][0]['last']['test_error']
      self.assertAlmostEqual(
        np.mean([line['image_error'] for line in lines]) / logged, 1.0, places=4
      )
      points = np.array([[line['x'], line['y']] for line in lines])
      true = np.array([[line['true_x'], line['true_y']] for line in lines])
      gaps = np.hypot(*(points - true).T).reshape(TEST, 5).mean(1)
      eyes = np.hypot(*(true[1::5] - true[::5]).T)
      np.testing.assert_allclose(
        100 * gaps / eyes,
        [line['image_error'] for line in lines[::5]],
        rtol=1e-3,
      )

  def test_the_real_config(self):
    with mock.patch.object(config_lib, 'load', config_files_load):
      teacher, v1 = examples.cells_of(self.row, seeds=3, reduced=0)
    self.assertEqual(teacher.config.row, 'L2-T1-17')
    self.assertEqual(v1.config.row, 'L2-T1-21')
    self.assertEqual(v1.config.seeds, 3)

  def test_a_second_call_trains_nothing(self):
    with (
      mock.patch.object(experiment.loop, 'run') as train,
      mock.patch.object(examples, 'SHOWN', 3),
      contextlib.redirect_stderr(io.StringIO()),
    ):
      second_pass = examples.draw(
        self.row, seeds=1, reduced=STEPS, workdir=self.folder
      )
    train.assert_not_called()
    self.assertEqual(second_pass.lines[:15], self.drawing.lines[:15])


if __name__ == '__main__':
  absltest.main()
