"""What the README's first table says, trained anew; run by `pytest -m slow`."""

import pathlib
import tempfile

import pytest
from absl.testing import absltest

from nsl_jax.training import config as config_lib, experiment


class ClaimsTest(absltest.TestCase):
  @pytest.mark.slow
  def test_ns3l_is_better_than_supervised_on_digits(self):
    """The mean over five seeds, by a standard error of either."""
    errors = {}
    for name in ('digits_supervised', 'digits_ns3l'):
      config = config_lib.load(
        f'configs/{name}.py', [('devices', '1')], seeds=5
      )
      with tempfile.TemporaryDirectory() as folder:
        score = experiment.run(config, pathlib.Path(folder))['score']
      errors[name] = score['mean'], score['std'] / 5**0.5
    (supervised, spread), (ns3l, own) = errors.values()
    self.assertLess(ns3l + own, supervised - spread, errors)


if __name__ == '__main__':
  absltest.main()
