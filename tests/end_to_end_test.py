"""SVHN, CIFAR-100, STL-10 and Tiny-ImageNet from files to a result."""

import contextlib
import io
import json
import pathlib
import statistics
import tempfile

import command
import numpy as np
import tfds_fixtures
from absl.testing import absltest
from repository import ROOT

from nsl_jax import main
from nsl_jax.data import split_file
from nsl_jax.reports import tables
from nsl_jax.training import config as config_lib, metrics_log

_STEPS = ('--config.steps=10', '--config.eval.every_steps=5')
# The config itself with a smaller network, as a user would write it.
_NARROW = """
import runpy

def get_config(arg=None):
  path, _, words = '{name}'.partition(':')
  words = ','.join(filter(None, [words, arg]))
  config = runpy.run_path('configs/' + path)['get_config'](words)
  config.model = {model}
  return config
"""
_DENSE = "dict(name='mlp', hidden=8, layers=1)"


def _pictures(
  count: int, side: int, num_classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Images of TFDS's size and labels as even as `count` lets them be."""
  shape = (side, side, 3)
  images, _ = tfds_fixtures.random_split(count, shape, 1, seed=seed)
  return images, np.arange(count, dtype=np.int32) % num_classes


class _Run:
  """A data set on disk, and the same command twice."""

  def __init__(
    self,
    config: str,
    tfds_name: str,
    splits: tfds_fixtures.Splits,
    *flags: str,
    encoding: str = 'png',
    model: str = _DENSE,
  ):
    self._folder = tempfile.TemporaryDirectory()
    folder = pathlib.Path(self._folder.name)
    tfds_fixtures.write_as_tfds(
      folder / 'data', tfds_name, splits, encoding=encoding
    )
    (folder / 'own').mkdir()
    path = folder / 'own' / 'narrow.py'
    path.write_text(_NARROW.format(name=config, model=model))
    self.workdir = folder / 'run'
    self.words = (
      f'--config={path}:smoke=true',
      f'--config.data.dir={folder}/data',
      f'--workdir={self.workdir}',
      '--config.devices=1',
      *flags,
    )
    self.labels = splits['train'][1]
    self.first = self._start()
    assert self.first.status == 0, self.first.err
    self.files = self.content()
    self.results = json.loads(self.files['results.json'])
    self.second = self._start()

  def _start(self) -> command.Done:
    with contextlib.chdir(ROOT):
      return command.run(main.main, *self.words)

  def content(self) -> dict[str, bytes]:
    """Every file of the run."""
    return {
      str(path.relative_to(self.workdir)): path.read_bytes()
      for path in self.workdir.rglob('*')
      if path.is_file()
    }

  def close(self) -> None:
    self._folder.cleanup()


class _RunTest(absltest.TestCase):
  """What holds of every run."""

  run_: _Run

  @classmethod
  def tearDownClass(cls):
    cls.run_.close()
    super().tearDownClass()

  def setUp(self):
    super().setUp()
    self.results = self.run_.results
    self.seed = self.run_.workdir / 'seed_0'
    self.split = split_file.load(self.seed / 'split.npz')

  def check_resumed(self):
    """The same command again finds everything done."""
    self.assertEqual(self.run_.second.status, 0, self.run_.second.err)
    for line in self.run_.second.err.splitlines():
      self.assertStartsWith(line, 'warning: ')  # as at the first start
      self.assertIn(line, self.run_.first.err)
    self.assertEqual(self.run_.second.out, self.run_.first.out)
    after = self.run_.content()
    self.assertEqual(after.keys(), self.run_.files.keys())
    results = json.loads(after.pop('results.json'))
    own = lambda found: {k: v for k, v in found.items() if k != 'commit'}
    self.assertEqual(own(results), own(self.results))
    for name, content in after.items():
      self.assertEqual(content, self.run_.files[name], name)

  def check_results(self, protocol: str, full_steps: int):
    """The reports follow from the metrics, and the score from a report."""
    results = self.results
    self.assertEqual(
      (results['kind'], results['row'], results['protocol']),
      ('run', '', protocol),
    )
    self.assertEqual(
      (results['steps'], results['full_steps']),
      (results['config']['steps'], full_steps),
    )
    self.assertTrue(results['reduced'])
    self.assertEqual(results['seeds'], [0])
    (found,) = results['reports']
    evaluations = [
      line
      for line in metrics_log.read(self.seed / 'metrics.jsonl')
      if line['kind'] == 'eval'
    ]
    self.assertLen(evaluations, 2)
    errors = [line['test_error'] for line in evaluations]
    self.assertEqual(found['last']['step'], results['steps'])
    self.assertEqual(found['last']['test_error'], errors[-1])
    self.assertEqual(found['median_last_20']['evaluations'], 2)
    self.assertEqual(
      found['median_last_20']['test_error'], statistics.median(errors)
    )
    if len(self.split.validation):
      held_out = [line['validation_error'] for line in evaluations]
      at = int(np.argmin(held_out))
      best = found['best_validation']
      self.assertEqual(best['validation_error'], held_out[at])
      self.assertEqual(best['test_error'], errors[at])
    else:
      self.assertIsNone(found['best_validation'])
      self.assertIsNone(found['last']['validation_error'])
    self.assertEqual(
      results['score']['per_seed'], [found[protocol]['test_error']]
    )
    self.assertIn(f'{results["score"]["mean"]:.2f} %', self.run_.first.out)
    self.assertIn(protocol, self.run_.first.out)

  def check_split(self, labeled: int, validation: int, total: int):
    """Every image has one use; labels are of labeled and held-out ones."""
    parts = self.split
    self.assertEqual(self.results['split_sha256'], [parts.sha256()])
    self.assertLen(parts.labeled, labeled)
    self.assertLen(parts.validation, validation)
    np.testing.assert_array_equal(
      np.sort(np.concatenate(parts)), np.arange(total)
    )
    known = len(self.run_.labels)
    self.assertLess(parts.labeled.max(), known)
    self.assertTrue((parts.validation < known).all())

  def classes_of(self, rows: np.ndarray, num_classes: int) -> list[int]:
    return np.bincount(self.run_.labels[rows], minlength=num_classes).tolist()


class SvhnTest(_RunTest):
  """Here a copy in JPEG, whose results must say so."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    splits = {
      'train': _pictures(450, 32, 10, 0),
      'test': _pictures(60, 32, 10, 1),
      'extra': _pictures(40, 32, 10, 2),  # never used
    }
    cls.run_ = _Run(
      'svhn_mixmatch_ns3l.py',
      'svhn_cropped',
      splits,
      '--config.batch.labeled=4',
      '--config.batch.unlabeled=4',
      encoding='jpeg',
    )

  def test_results(self):
    self.check_results('median_last_20', 300 * 1024)

  def test_split(self):
    self.check_split(200, 200, 450)
    validation = set(self.split.validation.tolist())
    rest = [row for row in range(450) if row not in validation]
    share = 200 * np.array(self.classes_of(rest, 10)) / 250
    found = np.array(self.classes_of(self.split.labeled, 10))
    self.assertLess(np.abs(found - share).max(), 1)  # proportional

  def test_digits_are_never_mirrored(self):
    data = self.results['config']['data']
    self.assertEqual(data['augment'], 'translate:4')
    self.assertNotIn('flip', data['strong'])

  def test_note_reaches_the_table(self):
    note = self.results['data_note']
    self.assertStartsWith(note, 'JPEG copy of svhn_cropped 3.1.0')
    table = tables.table([{**self.results, 'row': 'NS-T4-2'}], 'NS-T4-2')
    self.assertIn(f'svhn@250 ({note})', table)
    self.assertIn('20 (reduced from 307200)', table)

  def test_resumed(self):
    self.assertIn('decoding svhn_cropped train', self.run_.first.err)
    self.assertNotIn('extra', self.run_.first.err)
    self.check_resumed()


class Cifar100Test(_RunTest):
  """Of small images, since whitening takes the third power of the pixels."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    splits = {
      'train': _pictures(800, 12, 100, 0),
      'test': _pictures(100, 12, 100, 1),
    }
    cls.run_ = _Run(
      'ns3l_table1.py:data=cifar100,method=vat_ns3l',
      'cifar100',
      splits,
      *_STEPS,
      '--config.batch.labeled=4',
      '--config.batch.unlabeled=4',
    )

  def test_results(self):
    self.check_results('best_validation', 200_000)
    self.assertEqual(self.results['data_note'], '')

  def test_split(self):
    self.check_split(200, 200, 800)
    self.assertEqual(self.classes_of(self.split.labeled, 100), [2] * 100)

  def test_whitening_is_fitted_once(self):
    self.assertEqual(self.results['config']['data']['normalize'], 'gcn_zca')
    line = 'fitting the whitening matrix of 800 images, once ...'
    self.assertEqual(self.run_.first.err.count(line), 1)
    self.check_resumed()


class Stl10Test(_RunTest):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    images, labels = _pictures(30, 32, 10, 2)
    splits = {
      'train': _pictures(215, 32, 10, 0),
      'test': _pictures(20, 32, 10, 1),
      'unlabeled': (images, np.full_like(labels, -1)),
    }
    cls.run_ = _Run(
      'stl10_mixmatch_ns3l.py',
      'stl10',
      splits,
      *_STEPS,
      '--config.batch.labeled=2',
      '--config.batch.unlabeled=2',
    )

  def test_results(self):
    self.check_results('median_last_20', 100 * 1024)
    self.assertEqual(self.results['data_note'], '')
    whole = config_lib.load('configs/stl10_mixmatch_ns3l.py')
    self.assertEqual(whole.model.stages, 4)

  def test_split(self):
    self.check_split(200, 0, 245)
    # The 30 without a label follow the 215 with one.
    np.testing.assert_array_equal(
      self.split.unlabeled[-30:], np.arange(215, 245)
    )

  def test_resumed(self):
    self.assertIn('decoding stl10 unlabeled', self.run_.first.err)
    self.check_resumed()


class TinyImagenetTest(absltest.TestCase):
  """From its zip, made ready by the run itself, in this process."""

  def test_learns_to_impute(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    files = tfds_fixtures.tiny_imagenet(per_class=2, validation=40)
    tfds_fixtures.put_tiny_imagenet(folder / 'data', files)
    path = folder / 'narrow.py'
    path.write_text(_NARROW.format(name='tiny_imagenet_l2i.py', model=_DENSE))
    words = [
      f'--config={path}:smoke=true',
      f'--workdir={folder}/run',
      f'--config.data.dir={folder}/data',
      *_STEPS,
    ]
    with contextlib.redirect_stdout(io.StringIO()) as out:
      main.main(words)
    results = json.loads((folder / 'run' / 'results.json').read_text())
    self.assertIn(f'{results["score"]["mean"]:.2f} %', out.getvalue())
    self.assertEqual(results['protocol'], 'median_last_20')
    self.assertEqual((results['steps'], results['full_steps']), (10, 22_200))
    self.assertEqual(results['config']['method']['gradient'], 'last_layer')
    self.assertEqual(results['config']['batch']['holdout'], 16)
    lines = metrics_log.read(folder / 'run' / 'seed_0' / 'metrics.jsonl')
    trained = [line for line in lines if line['kind'] == 'train']
    self.assertLen(trained, 2)
    for line in trained:
      for metric in ('loss', 'held', 'params_norm'):
        self.assertTrue(np.isfinite(line[metric]), metric)
    split = split_file.load(folder / 'run' / 'seed_0' / 'split.npz')
    self.assertEqual(sorted(split.labeled % 200), list(range(200)))
    self.assertLen(split.unlabeled, 200)


if __name__ == '__main__':
  absltest.main()
