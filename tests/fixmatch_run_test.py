"""Runs of FixMatch and its successors, from a config to predictions."""

import json
import pathlib
import shutil
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

import nsl_jax
from nsl_jax import errors
from nsl_jax.data import sources
from nsl_jax.training import automatic, config as config_lib, experiment

STRONG = 'translate:1,randaugment:2,cutout:0.5'


def load(name='configs/digits_supervised.py', *, steps=4, **fields):
  fields = {
    'steps': steps,
    'eval.every_steps': steps,
    'checkpoint.every': steps,
    'log_every': 1,
    'batch.labeled': 8,
    'batch.unlabeled': 16,
    'devices': 1,
    **{name.replace('__', '.'): value for name, value in fields.items()},
  }
  return config_lib.load(name, [(k, str(v)) for k, v in fields.items()])


class RunTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(tempfile.mkdtemp())
    self.addCleanup(shutil.rmtree, self.folder)

  def test_flexmatch_trains_and_predicts(self):
    """Its table has a row per training image, which a predictor must know; also
    on a long tail, with a class that has no labels.
    """
    config = load(
      method__name='flexmatch',
      data__strong=STRONG,
      data__imbalance=8,
      data__imbalance_unlabeled=1,
      data__unknown_classes='3,7',
      data__validation=80,
      model__name='mlp',
    )
    result = experiment.run(config, self.folder, verbose=False)
    (report,) = result['reports']
    counts = report['labeled_by_class']
    self.assertEqual((len(counts), sum(counts)), (8, 50))
    self.assertGreater(counts[0], 4 * counts[-1])
    self.assertIn('no label of class 3, 7', result['data_note'])
    last = report['last']
    self.assertIsNotNone(last['test_balanced_error'])
    network = nsl_jax.load(self.folder)
    test = sources.load('digits').test
    self.assertEqual(network.predict_proba(test.images[:5]).shape, (5, 8))
    known = ~np.isin(test.labels, (3, 7))  # the others are left out
    wrong = network.predict(test.images[known]) != test.labels[known].astype(
      str
    )
    self.assertAlmostEqual(last['test_error'], 100 * wrong.mean(), places=3)
    lines = (self.folder / 'seed_0' / 'metrics.jsonl').read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    self.assertIn('confident', steps[0])

  @parameterized.parameters(
    ('data.strong', 'randaugment:2,cutot:0.5', "'cutot:0.5' is none of"),
    (
      'batch.unlabeled',
      '0',
      'batch.unlabeled=0, but config.method.name=fixmat',
    ),
    ('method.threshold', '1.5', r'threshold=1.5: must be in \[0, 1\]'),
    ('data.unknown_classes', '12', '12 is not a class of digits'),
    ('data.normalize', 'gcn_zca', 'randaugment and cutout require'),
  )
  def test_bad_input_is_one_line(self, field, value, message):
    fields = {'data.strong': STRONG, field: value}
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      config = load(
        method__name='fixmatch',
        **{k.replace('.', '__'): v for k, v in fields.items()},
      )
      experiment.run(config, self.folder, verbose=False)
    self.assertNotIn('\n', str(caught.exception))


class AutomaticTest(parameterized.TestCase):
  @parameterized.parameters(
    ('fixmatch', (8, 8, 1), f'translate:1,{STRONG[12:]}'),
    ('softmatch', (8, 8, 3), f'flip,translate:1,{STRONG[12:]}'),
    ('fixmatch', (1, 1, 5), ''),
    ('mixmatch', (8, 8, 3), ''),
  )
  def test_strong_view_of_a_folder(self, method, shape, strong):
    rng = np.random.default_rng(0)
    dtype = np.uint8 if shape[0] > 1 else np.float32
    images = rng.integers(0, 256, (40, *shape)).astype(dtype)
    labels = np.where(np.arange(40) < 20, np.arange(40) % 2, -1)
    arrays = sources.Arrays(images, labels.astype(np.int32))
    source = sources.Source('own', 2, arrays, arrays, '')
    config = config_lib.load(f'configs/folder.py:dir=x,method={method}')
    found, _ = automatic.resolve(config, source)
    self.assertEqual(found.data.strong, strong)


if __name__ == '__main__':
  absltest.main()
