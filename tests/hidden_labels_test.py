"""Labels of unlabeled images reach nothing that training reads."""

from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax.data import sources
from nsl_jax.training import (
  assembly,
  config as config_lib,
  feed,
  pipeline,
  train_step,
)


def _source(task, count=60, side=44):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (count, side, side, 1), np.uint8)
  if task == 'regression':
    labels = rng.uniform(5.0, side - 5.0, (count, 10)).astype(np.float32)
    name, classes = 'mnist_points', 0
  else:
    labels = np.arange(count, dtype=np.int32) % 5
    name, classes = 'digits', 5
  arrays = sources.Arrays(images, labels)
  return sources.Source(name, classes, arrays, arrays, '')


class HiddenLabelsTest(parameterized.TestCase):
  @parameterized.parameters(
    ('configs/mnist_points.py:host=pl,variant=none', 'regression'),
    ('configs/digits_ns3l.py', 'classification'),
  )
  def test_other_labels_of_unlabeled_images_change_no_step(self, name, task):
    config = config_lib.load(name, smoke='true').unlock()
    config.data.labeled, config.data.validation, config.data.limit = 20, 10, 0
    config.batch.labeled = config.batch.unlabeled = 4
    config.model = dict(name='mlp', hidden=16, layers=1)
    config.devices = 1
    config.lock()
    source = _source(task)
    split = pipeline.split_of(config, source, 0)
    hidden = np.setdiff1d(
      np.arange(len(source.train.labels)),
      np.concatenate([split.labeled, split.validation]),
    )
    wrong = source.train.labels.copy()
    wrong[hidden] = (wrong[hidden] + 3) % (
      5 if task == 'classification' else 44
    )
    self.assertFalse(np.array_equal(wrong, source.train.labels))
    other = source._replace(train=source.train._replace(labels=wrong))
    results = []
    for one in (source, other):
      with mock.patch.object(pipeline, 'load_source', lambda config: one):
        parts = assembly.prepare(config)
      data = assembly.data_of(parts, split)
      streams = pipeline.index_iterators(config, split, 0)
      state = train_step.initial_state(parts.method, 0, parts.mesh)
      for step in range(2):
        rows = feed.rows_at(streams, range(step, step + 1), parts.mesh)
        state, metrics = parts.chunk(state, data, rows)
      results.append((state.params, metrics, data.normalization))
    jax.tree.map(np.testing.assert_array_equal, *results)


if __name__ == '__main__':
  absltest.main()
