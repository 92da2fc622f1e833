"""Every config's own network, method and data set take two steps."""

import functools
import pathlib
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from nsl_jax import config_files
from nsl_jax import experiment, feed
from nsl_jax import mesh as mesh_lib
from nsl_jax import rows
from nsl_jax.data import sources
from nsl_jax.types import Data

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = sorted(
    f'configs/{path.name}' for path in (ROOT / 'configs').glob('*.py')
    if 'def get_config' in path.read_text()
)
# Name of a data set -> image shape, number of classes, of training images.
DATA = {
    'digits': ((8, 8, 1), 10, 1437), 'mnist': ((28, 28, 1), 10, 60_000),
    'fashion_mnist': ((28, 28, 1), 10, 60_000),
    'usps': ((16, 16, 1), 10, 7291), 'svhn': ((32, 32, 3), 10, 73_257),
    'svhn_extra': ((32, 32, 3), 10, 604_388),
    'cifar10': ((32, 32, 3), 10, 50_000),
    'cifar100': ((32, 32, 3), 100, 50_000),
    'stl10': ((96, 96, 3), 10, 105_000),
}
# Whitening 3,072 values takes longer than all else here, so these are small.
WHITENED = (12, 12, 3)
TINY = {
    'small_cnn': {}, 'wide_resnet': {'width': 1, 'depth': 10},
    'cnn13': {'width': 1 / 32},
}


def setUpModule():
  # Compiling takes most of the time of these tests.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def rows_of_papers():
  """--config arguments of the rows, but for those that take none."""
  found = {row.config for row in rows.read().values() if row.config}
  return sorted(found - set(NAMES))


def source_of(name, shape, classes):
  """Random images, eight of each class for training."""
  rng = np.random.default_rng(0)
  make = lambda size: sources.Arrays(
      rng.integers(0, 256, (size, *shape)).astype(np.uint8),
      (np.arange(size) % classes).astype(np.int32),
  )
  return sources.Source(name, classes, make(8 * classes), make(10), '')


def prepare(config):
  """A config of the same parts as small as they go, and the parts."""
  config = config.copy_and_resolve_references().unlock()
  shape, classes, _ = DATA[config.data.name]
  if config.data.normalise == 'gcn_zca':
    shape = WHITENED
  config.model.update(TINY[config.model.name])
  config.data.labelled = 2 * classes
  config.data.validation = min(config.data.validation, classes)
  for name, size in config.batch.items():
    config.batch[name] = 4 * bool(size)
  config.devices = 1
  source = source_of(config.data.name, shape, classes)
  with mock.patch.object(sources, 'load', return_value=source) as load:
    parts = experiment.prepare(config)
  load.assert_called_once()
  return config, parts


def data_and_rows(config, parts):
  """The data on the devices, and the rows of the first two calls."""
  split = feed.split_of(config, parts.source, seed=0)
  tables = feed.side_tables(parts.method.side, parts.source, split)
  data = Data(
      images=parts.images, labels=parts.labels, normaliser=parts.fitted,
      side=mesh_lib.put(tables, mesh_lib.everywhere(parts.mesh)),
  )
  streams = feed.streams_of(config, split, seed=0)
  calls = [
      {name: np.stack([stream(step)] * parts.plan.steps_per_call)
       for name, stream in streams.items()}
      for step in range(2)
  ]
  return data, mesh_lib.put(calls, mesh_lib.split(parts.mesh, axis=1))


class RunTest(parameterized.TestCase):

  @parameterized.parameters(*NAMES)
  def test_two_steps(self, name):
    config, parts = prepare(config_files.load(name))
    data, calls = data_and_rows(config, parts)
    state = experiment.initial_state(parts.method, 0, parts.mesh)
    before = jax.device_get(state.params)
    for call in calls:
      state, metrics = parts.chunk(state, data, call, 1)
      self.assertIn('loss', metrics)
      for metric, values in metrics.items():
        self.assertTrue(np.isfinite(values[0]), metric)
    self.assertEqual(int(state.step), 2)
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), before, jax.device_get(state.params)
    )
    self.assertTrue(any(jax.tree.leaves(moved)))
    images = parts.normalise(parts.fitted, parts.images[:4])
    logits = jax.jit(parts.method.predict)(state, images)
    self.assertEqual(logits.shape, (4, parts.source.num_classes))
    self.assertTrue(np.isfinite(logits).all())

  @parameterized.parameters(*rows_of_papers())
  def test_rows_of_papers_trace(self, argument):
    config, parts = prepare(config_files.load(argument))
    data, (call, _) = data_and_rows(config, parts)
    state = jax.eval_shape(parts.method.init, jax.random.key(0))
    after, metrics = jax.eval_shape(
        functools.partial(parts.chunk, count=1), state, data, call
    )
    self.assertEqual(jax.tree.structure(after), jax.tree.structure(state))
    expected = {'loss'} | ({'ns3l'} if config.method.name == 'ns3l' else set())
    self.assertContainsSubset(expected, set(metrics))

  @parameterized.parameters(*sorted({*NAMES, *rows_of_papers()}))
  def test_real_sizes_can_be_split(self, argument):
    config = config_files.load(argument)
    _, classes, count = DATA[config.data.name]
    labels = np.arange(count, dtype=np.int32) % classes
    if config.data.name == 'stl10':
      labels[5000:] = -1
    train = sources.Arrays(labels, labels)
    source = sources.Source(config.data.name, classes, train, train, '')
    split = feed.split_of(config, source, seed=0)
    self.assertLen(split.labelled, config.data.labelled)
    streams = feed.streams_of(config, split, seed=0)
    for name, size in config.batch.items():
      self.assertLen(streams[name](0), size)


if __name__ == '__main__':
  absltest.main()
