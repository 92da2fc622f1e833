"""A small run on digits in one process, and copies of it when it is done."""

import pathlib
import shutil
import tempfile

from absl.testing import parameterized

from nsl_jax.training import config as config_lib, experiment, metrics_log

QUICK = {'name': 'mlp', 'hidden': 16, 'layers': 1}


def make_config(
  name: str = 'digits_ns3l', words: str = '', network=QUICK, **changes
):
  config = config_lib.load(f'configs/{name}.py:{words}', smoke=True)
  with config.unlocked():
    config.devices = 1
    config.model = dict(network)
    config.update_from_flattened_dict(changes)
  return config


class DigitsRunTestCase(parameterized.TestCase):
  """`once` is the folder of a finished run, `folder` an empty one."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.once = pathlib.Path(folder) / 'once'
    cls.results = experiment.run(make_config(), cls.once)

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def finished(self):
    """A copy of the folder of the finished run."""
    shutil.copytree(self.once, self.folder / 'run')
    return self.folder / 'run'

  def metrics(self, workdir):
    """Lines of seed 0 but for how long they took."""
    lines = metrics_log.read(workdir / 'seed_0' / 'metrics.jsonl')
    return [{k: v for k, v in line.items() if k != 'seconds'} for line in lines]
