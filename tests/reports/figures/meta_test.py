"""L2-F2, PTS-F2: what is trained for it, and the curves of its log."""

import contextlib
import io
import json
import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax.papers import rows
from nsl_jax.reports.figures import meta
from nsl_jax.training import experiment, summary


def line(step, seed):
  """Hold-out loss falls by 1 at each step; test loss rises on step 20."""
  better = 0.5 if step == 10 else -0.25
  return {
    'kind': 'train',
    'step': step,
    'loss': 1.0,
    'held_before': 3.0 + seed,
    'held_after': 2.0 + seed,
    'test_before': 2.0,
    'test_after': 2.0 - better,
    'virtual_before': 4.0,
    'virtual_after': 4.0 + (seed - 0.75) * step / 10,
  }


def run(config, workdir):
  """`experiment.run` without training."""
  reports = []
  for seed in range(config.seeds):
    folder = workdir / f'seed_{seed}'
    folder.mkdir(parents=True)
    lines = [line(step, seed) for step in (10, 20)] + [
      {'kind': 'eval', 'step': 20, 'test_error': 9.0}
    ]
    (folder / 'metrics.jsonl').write_text(
      ''.join(json.dumps(one) + '\n' for one in lines)
    )
    keep = {'step': 20, 'test_error': 9.0, 'validation_error': 8.0}
    reports.append(
      {
        'last': keep,
        'best_validation': keep,
        'median_last_20': {'test_error': 9.0, 'evaluations': 1},
      }
    )
  return {
    'row': config.row,
    'protocol': config.protocol,
    'seeds': list(range(config.seeds)),
    'steps': config.steps,
    'full_steps': config.full_steps,
    'reduced': True,
    'reports': reports,
    'score': {'mean': 9.0, 'std': 0.0},
    'config': config.to_dict(),
    'scores': summary.scores(reports),
    'device': '1 x cpu',
    'commit': 'abc',
    'versions': {'jax': '0'},
    'data_note': '',
    'wall_time_s': 1.5,
    'split_sha256': ['f'],
  }


class MetaTest(parameterized.TestCase):
  @parameterized.parameters(('L2-F2', 91), ('PTS-F2', 50))
  def test_drawing(self, name, labels):
    row = rows.find(name)
    folder = self.enter_context(tempfile.TemporaryDirectory())
    with (
      mock.patch.object(experiment, 'run', side_effect=run) as ran,
      contextlib.redirect_stderr(io.StringIO()),
    ):
      drawing = meta.draw(
        row, seeds=2, reduced=450, workdir=pathlib.Path(folder) / 'runs'
      )
    (config, _), _ = ran.call_args
    self.assertTrue(config.method.log_test_loss)
    self.assertEqual(config.method.variant, 'v1')
    self.assertEqual(config.data.labeled, labels)
    self.assertEqual(config.row, '')
    self.assertEqual((config.steps, config.log_every), (450, 3))
    self.assertEqual(drawing.png[:4], b'\x89PNG')
    self.assertEqual([one['step'] for one in drawing.lines], [10, 20])
    first, second = drawing.lines
    self.assertEqual(
      first,
      {
        'step': 10,
        'seeds': 2,
        'held_before': 3.5,
        'held_after': 2.5,
        'test_before': 2.0,
        'test_after': 1.5,
        'virtual_before': 4.0,
        'virtual_after': 3.75,
      },
    )
    self.assertEqual(second['test_after'], 2.25)
    self.assertEqual(drawing.content['lower_held'], 100.0)
    self.assertEqual(drawing.content['lower_test'], 50.0)
    self.assertEqual(drawing.content['lower_virtual'], 100.0)
    np.testing.assert_array_equal(drawing.content['seeds'], [0, 1])


if __name__ == '__main__':
  absltest.main()
