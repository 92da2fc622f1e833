"""NS-F3: twelve cells of one config, framed by validation error."""

import contextlib
import io
import json
from unittest import mock

import ml_collections
import temporary
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.papers import rows
from nsl_jax.reports.figures import grid
from nsl_jax.training import config as config_lib, experiment

WHERE = {
  'device': '1 x cpu (cpu; host: 2 cores)',
  'commit': 'abc',
  'versions': {'jax': '0'},
  'data_note': 'JPEG copy',
  'split_sha256': ['f'],
  'wall_time_s': 1.5,
}


def fields(config, row_id):
  """(T, lambda1) where the panel's config has them."""
  method = config.method
  ns3l = method if row_id == 'NS-F3-L' else method.terms.ns3l
  return ns3l.threshold, ns3l.weight


def training(row_id, calls):
  """`experiment.run` with validation 10 T + lambda1, and a test error that
  falls where the validation error rises; T = 0.08 fails for lambda1 > 1.5."""

  def run(config, workdir):
    threshold, weight = fields(config, row_id)
    calls.append((config, workdir))
    if threshold == 0.08 and weight > 1.5:
      raise errors.TrainingError('loss is nan at step 3')
    valid = 10 * threshold + weight
    seeds = list(range(config.seeds))
    for seed in seeds:
      folder = workdir / f'seed_{seed}'
      folder.mkdir(parents=True)
      line = {'kind': 'eval', 'step': 1, 'validation_error': valid}
      (folder / 'metrics.jsonl').write_text(json.dumps(line) + '\n')
    reports = [
      {
        'seed': seed,
        config.protocol: {'validation_error': valid, 'test_error': 50 - valid},
      }
      for seed in seeds
    ]
    return {
      'row': config.row,
      'protocol': config.protocol,
      'seeds': seeds,
      'steps': config.steps,
      'full_steps': config.full_steps,
      'reduced': config.steps < config.full_steps,
      'reports': reports,
      'score': {
        'per_seed': [50 - valid] * len(seeds),
        'mean': 50 - valid,
        'std': 0.25,
      },
      **WHERE,
    }

  return run


class GridTest(temporary.FolderTestCase):
  def _draw(self, row_id):
    calls = []
    self.progress = io.StringIO()
    with (
      mock.patch.object(experiment, 'run', training(row_id, calls)),
      contextlib.redirect_stderr(self.progress),
    ):
      drawing = grid.draw(
        rows.find(row_id), seeds=2, reduced=100, workdir=self.folder
      )
    return drawing, calls

  @parameterized.parameters(
    ('NS-F3-L', [0.5, 1.0, 2.0], 'cifar10', 4000),
    ('NS-F3-M', [0.1, 0.3, 1.0], 'cifar10', 4000),
    ('NS-F3-R', [1.0, 2.0, 5.0], 'svhn', 250),
  )
  def test_every_cell_is_a_run_of_the_panel(
    self, row_id, weights, data, labels
  ):
    drawing, calls = self._draw(row_id)
    wanted = [(t, w) for t in (0.02, 0.04, 0.06, 0.08) for w in weights]
    self.assertEqual([fields(c, row_id) for c, _ in calls], wanted)
    self.assertLen({workdir for _, workdir in calls}, 12)
    base = config_lib.load(rows.find(row_id).config, seeds=2, reduced=100)
    for config, workdir in calls:
      self.assertEqual(config.row, row_id)
      self.assertEqual((config.data.name, config.data.labeled), (data, labels))
      self.assertEqual((config.seeds, config.steps), (2, 100))
      self.assertEqual(workdir.parent, self.folder)
      self.assertLessEqual(differing(base, config) - {'row'}, varied(row_id))
    self.assertEqual(
      [(line['T'], line['lambda1']) for line in drawing.lines], wanted
    )
    self.assertIn('cell 3 of 12: ', self.progress.getvalue())
    self.assertEqual(drawing.png[:4], b'\x89PNG')

  def test_numbers_and_the_choice(self):
    drawing, _ = self._draw('NS-F3-L')
    first, last = drawing.lines[0], drawing.lines[-1]
    self.assertEqual(
      list(first),
      [
        'T',
        'lambda1',
        'validation_error',
        'test_error',
        'test_std',
        'seeds',
        'steps',
        'failure',
      ],
    )
    self.assertAlmostEqual(first['validation_error'], 0.7)
    self.assertAlmostEqual(first['test_error'], 49.3)
    self.assertEqual(first['test_std'], 0.25)
    self.assertEqual((first['seeds'], first['steps']), (2, 100))
    self.assertEqual(last['failure'], 'loss is nan at step 3')
    self.assertIsNone(last['test_error'])
    content = drawing.content
    # Its test error is the highest of all.
    self.assertEqual(content['chosen'], {'T': 0.02, 'lambda1': 0.5})
    self.assertEqual(content['wall_time_s'], 11 * 1.5)
    self.assertEqual(content['data_note'], 'JPEG copy')
    self.assertEqual(content['seeds'], [0, 1])
    self.assertTrue(content['reduced'])
    self.assertEqual(content['full_steps'], 200_000)
    self.assertIn('matplotlib', content['versions'])
    cell = content['cells'][0]
    self.assertEqual(
      cell['fields'], {'method.threshold': 0.02, 'method.weight': 0.5}
    )
    self.assertLen(cell['reports'], 2)
    self.assertIsNone(content['cells'][-1]['test'])
    json.dumps(content)  # as the ledger keeps it

  def test_where_every_cell_has_the_same_error(self):
    lines = [
      {
        'T': t,
        'lambda1': 1.0,
        'test_error': 5.0,
        'test_std': None,
        'failure': '',
      }
      for t in (0.1, 0.2)
    ]
    self.assertEqual(grid.picture(lines, lines[0], 'x')[:4], b'\x89PNG')

  def test_too_many_steps(self):
    with self.assertRaisesRegex(errors.UserError, '200000 steps'):
      grid.draw(
        rows.find('NS-F3-L'), seeds=1, reduced=200_001, workdir=self.folder
      )


def differing(one, other):
  """Names of the fields that differ."""

  def flat(config, prefix=''):
    for name, value in config.items():
      if isinstance(value, ml_collections.ConfigDict):
        yield from flat(value, f'{prefix}{name}.')
      else:
        yield prefix + name, value

  before = dict(flat(one))
  return {name for name, value in flat(other) if before[name] != value}


def varied(row_id):
  """The two fields that a panel varies."""
  section = 'method' if row_id == 'NS-F3-L' else 'method.terms.ns3l'
  return {f'{section}.threshold', f'{section}.weight'}


if __name__ == '__main__':
  absltest.main()
