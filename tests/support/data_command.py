"""A separate data folder for each test of the data command."""

import os
from unittest import mock

import command
import h5py
import numpy as np
import temporary
import tfds_fixtures

from nsl_jax.commands import data


def run_command(*arguments: str) -> tuple[int, str, str]:
  """Exit status, stdout and stderr of the data command."""
  return command.run(data.main, *arguments)


class TempDirTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    self.data_dir = self.folder / 'data'
    self.manual = self.data_dir / 'downloads' / 'manual'
    self.manual.mkdir(parents=True)
    cache_dir = str(self.folder / 'cache')
    self.enter_context(mock.patch.dict(os.environ, NSL_JAX_CACHE=cache_dir))

  def write(self, tfds_name='svhn_cropped'):
    pair = tfds_fixtures.random_split(4, (8, 8, 3), 10)
    splits = {'train': pair, 'test': pair}
    return tfds_fixtures.write(self.data_dir, tfds_name, splits, 10)

  def write_usps(self, count=6, scale=1.0):
    """A usps.h5 of random images; returns (data f32[n, 256], target i32[n])."""
    rng = np.random.default_rng(0)
    data = rng.random((count, 256), np.float32) * scale
    target = rng.integers(0, 10, count).astype(np.int32)
    with h5py.File(self.manual / 'usps.h5', 'w') as file:
      for split in ('train', 'test'):
        file[f'{split}/data'], file[f'{split}/target'] = data, target
    return data, target
