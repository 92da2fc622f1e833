"""The first losses of real runs stay what they were.

A seed stands for a run: whatever draws one more random key, or draws it
elsewhere, gives every run of the ledger another course from its first step on
without being wrong anywhere else. Only here does it show.
"""

import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from nsl_jax import config_files
from nsl_jax import experiment
from nsl_jax import log

_MEANING = """
These are not the losses that this config and seed have always had: the runs of
the ledger (results/) no longer come out again. Either the mathematics changed,
or something draws other random numbers than before: the split, the order of
the rows, the initial weights, the views, the mixing or the negative labels. If
that is wanted, say so in the change, make the runs of the ledger anew, and
only then write the new losses here.
"""
# --config argument -> the losses of its first steps, on digits.
_LOSSES = {
    'configs/digits_supervised.py': [
        2.877514, 2.461965, 2.593423, 2.297427,
    ],
    'configs/digits_ns3l.py': [
        1.394131, 1.320805, 1.264507, 1.213659,
    ],
    'configs/fashion_mnist_table6.py:negatives=threshold03': [
        1.581276, 1.263462, 1.112493, 1.256153,
    ],
    'configs/fashion_mnist_table6.py:negatives=uniform3': [
        1.787696, 1.427411, 1.287996, 1.434436,
    ],
    'configs/fashion_mnist_ssl.py:method=mixmatch_ns3l': [
        5.596629, 7.160192, 6.404884, 9.530735,
    ],
}


def first_losses(argument):
  """Losses of steps 1, 2, ... of a config's first seed, small and on digits."""
  config = config_files.load(argument, smoke='true').unlock()
  config.data.name = 'digits'
  config.devices = 1
  config.steps = 4
  config.log_every = 1
  config.eval.batch_norm = 'running'
  parts = experiment.prepare(config.lock())
  unjudged = {'error': 0.0, 'cross_entropy': 0.0}
  parts = parts._replace(evaluate=lambda *_: unjudged)  # not to compile it
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    experiment.train_seed(config, parts, config.seed, folder, title='')
    lines = log.read(folder / 'metrics.jsonl')
  return [line['loss'] for line in lines if line['kind'] == 'train']


class PinnedTest(parameterized.TestCase):

  @parameterized.parameters(*_LOSSES)
  def test_first_losses(self, argument):
    np.testing.assert_allclose(
        first_losses(argument), _LOSSES[argument], rtol=1e-4, err_msg=_MEANING
    )


if __name__ == '__main__':
  absltest.main()
