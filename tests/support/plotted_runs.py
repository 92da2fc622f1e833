"""Two short runs with their logs, for the tests of plots."""

import json

import numpy as np
import temporary

from nsl_jax.reports import plots

PNG = b'\x89PNG\r\n\x1a\n'


def train_line(step, loss):
  return {'step': step, 'kind': 'train', 'loss': loss, 'seconds': 1.0}


def eval_line(step, validation, test):
  return {
    'step': step,
    'kind': 'eval',
    'validation_error': validation,
    'test_error': test,
    'seconds': 1.0,
  }


# By seed. The second seed of `one` stopped before the last lines of the first.
ONE = (
  [
    train_line(5, 4.0),
    train_line(10, 2.0),
    eval_line(10, 50.0, 60.0),
    train_line(15, 1.0),
    eval_line(20, 30.0, 40.0),
  ],
  [train_line(5, 6.0), train_line(10, 3.0), eval_line(10, 70.0, 64.0)],
)
# Nothing is held out, so that no validation error is measured.
TWO = (
  [train_line(4, 1.0), train_line(8, 0.5), eval_line(8, None, 20.0)],
  [train_line(4, 3.0), train_line(8, 1.5), eval_line(8, None, 10.0)],
)


class PlotsTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    self.one = self.run_of('one', ONE)
    self.two = self.run_of('two', TWO)

  def run_of(self, name, seeds):
    """The folder of a run with these lines by seed."""
    for seed, lines in enumerate(seeds):
      folder = self.folder / name / f'seed_{seed}'
      folder.mkdir(parents=True)
      text = ''.join(json.dumps(line) + '\n' for line in lines)
      (folder / 'metrics.jsonl').write_text(text)
    return self.folder / name

  def assert_curves(self, folder, wanted):
    found = plots.curves(folder)
    self.assertEqual(set(found), set(wanted))
    for name, (steps, values) in wanted.items():
      np.testing.assert_array_equal(found[name][0], steps, err_msg=name)
      np.testing.assert_array_equal(found[name][1], values, err_msg=name)
