"""Every config's network takes its images, and its method makes a step.

Compiling takes most of the time, so a few configs that between them have every
network take two steps; all others are built and traced.
"""

import functools
import json
from collections.abc import Mapping
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from config_files import NAMES

from nsl_jax.data import sources
from nsl_jax.papers import rows
from nsl_jax.training import (
  assembly,
  config as config_lib,
  pipeline,
  sharding as mesh_lib,
)

# --config arguments: every file, and every row of the papers it runs.
_CIFAR = 'configs/cifar_fixmatch.py:'
_SETTINGS = (
  'labels=250,method=flexmatch',
  'labels=4000,method=freematch,ns3l=all',
  'data=cifar100,labels=400,method=softmatch,ns3l=unconfident',
  'data=cifar100,labels=2500,smoke=true',
)
ARGUMENTS = sorted(
  {
    *NAMES,
    *(row.config for row in rows.read().values() if row.config),
    *(_CIFAR + setting for setting in _SETTINGS),
    'configs/usps_mnist.py:method=source',  # the cheapest on its network
  }
)
# Name of a data set -> image shape, number of classes (0 where there are five
# points), of training images, of those with a label.
DATA = {
  'digits': ((8, 8, 1), 10, 1437, 1437),
  'mnist': ((28, 28, 1), 10, 60_000, 60_000),
  'fashion_mnist': ((28, 28, 1), 10, 60_000, 60_000),
  'usps': ((16, 16, 1), 10, 7291, 7291),
  'usps_to_mnist': ((28, 28, 1), 10, 67_291, 7291),
  'svhn': ((32, 32, 3), 10, 73_257, 73_257),
  'svhn_extra': ((32, 32, 3), 10, 604_388, 604_388),
  'cifar10': ((32, 32, 3), 10, 50_000, 50_000),
  'cifar100': ((32, 32, 3), 100, 50_000, 50_000),
  'stl10': ((96, 96, 3), 10, 105_000, 5000),
  'aflw': ((60, 60, 1), 0, 10_122, 10_122),
  'mnist_points': ((44, 44, 1), 0, 60_000, 60_000),
  'tiny_imagenet': ((64, 64, 3), 200, 100_000, 100_000),
}
# Whitening 3,072 values takes longer than all else here, so these are small.
WHITENED = (12, 12, 3)
# Name of a network -> its smallest size, and what compiling it costs.
TINY = {
  'small_cnn': ({}, 1),
  'cnn3': ({}, 2),
  'cnn13': ({'width': 1 / 32}, 3),
  'tcdcn': ({}, 2),
  'wide_resnet': ({'width': 1, 'depth': 10}, 3),
  'resnet26': ({'width': 1 / 16, 'blocks': 1}, 2),
}
FEW_PASSES = ('supervised', 'mean_label')  # all others make several


# Of this file, which changes none of them.
loaded = functools.cache(config_lib.load)


def labels_of(count, classes):
  """Every class in turn; or five points, not twice at the same place."""
  if classes:
    return (np.arange(count) % classes).astype(np.int32)
  points = np.random.default_rng(1).uniform(0, 60, (count, 10))
  return points.astype(np.float32)


def tearDownModule():
  for function in (loaded, source_of, prepare, traced, predicted):
    function.cache_clear()


@functools.lru_cache(4)
def source_of(name, shape, classes):
  """Random images, eight of each class for training."""
  rng = np.random.default_rng(0)
  make = lambda size: sources.Arrays(
    rng.integers(0, 256, (size, *shape)).astype(np.uint8),
    labels_of(size, classes),
  )
  return sources.Source(name, classes, make(8 * classes or 20), make(10), '')


@functools.lru_cache(8)  # they hold images
def prepare(argument, network=True):
  """A config of the same parts as small as they go, and the parts; without its
  `network` a perceptron stands for it.
  """
  config = loaded(argument)
  config = config.copy_and_resolve_references().unlock()
  shape, classes, _, _ = DATA[config.data.name]
  if config.data.normalize == 'gcn_zca':
    shape = WHITENED
  if network:
    config.model.update(TINY[config.model.name][0])
  else:
    config.model = {'name': 'mlp', 'hidden': 8, 'layers': 1}
  config.data.labeled = 2 * classes or 5
  config.data.validation = min(config.data.validation, classes or 5)
  config.data.holdout = min(config.data.holdout, classes // 2)
  for name, size in config.batch.items():
    config.batch[name] = 4 * bool(size)
  config.devices = 1
  source = source_of(config.data.name, shape, classes)
  with mock.patch.object(sources, 'load', return_value=source) as load:
    parts = assembly.prepare(config)
  load.assert_called_once()
  return config, parts


def data_and_rows(config, parts):
  """The data on the devices, and the rows of the first two calls."""
  split = pipeline.split_of(config, parts.source, seed=0)
  data = assembly.data_of(parts, split)
  streams = pipeline.index_iterators(config, split, seed=0)
  calls = [
    {
      name: np.stack([stream(step)] * parts.plan.steps_per_call)
      for name, stream in streams.items()
    }
    for step in range(2)
  ]
  return data, mesh_lib.put(calls, mesh_lib.batch_sharding(parts.mesh, axis=1))


def outline(config):
  """What decides over the program of a step on the smallest network: not the
  data, weights, lengths."""

  def outlined(value):
    if isinstance(value, Mapping):
      return {key: outlined(one) for key, one in value.items()}
    if isinstance(value, float):
      return bool(value)
    return min(value, 2) if type(value) is int else value  # 2 is several

  whole = config.to_dict()
  names = 'method', 'optimizer', 'ema_decay', 'weight_decay', 'batch'
  fields = [outlined(whole[name]) for name in names]
  views = bool(config.data.augment), bool(config.data.strong)
  fields += [whole['precision'], whole['task'], views]
  return json.dumps(fields, sort_keys=True)


def network_on_images(config):
  """What decides over whether the network can take the images."""
  model = json.dumps(config.model.to_dict(), sort_keys=True)
  unknown = tuple(config.data.unknown_classes)
  return model, config.data.name, unknown, config.data.normalize


def data_and_batch(config):
  """What decides over which rows are drawn."""
  parts = config.data.to_dict(), config.batch.to_dict()
  return json.dumps((*parts, config.seed, config.task), sort_keys=True)


def views_of(config):
  return config.data.augment, config.data.strong


@functools.cache
def same(*keys):
  """--config argument -> the first one of which these keys are the same."""
  first = {}
  key = lambda config: tuple(one(config) for one in keys)
  return {
    argument: first.setdefault(key(loaded(argument)), argument)
    for argument in ARGUMENTS
  }


@functools.cache
def traced(argument, network=True):
  """The initialization and the step, not yet compiled."""
  config, parts = prepare(argument, network)
  data, calls = data_and_rows(config, parts)
  init = jax.jit(parts.method.init).trace(jax.random.key(0))
  return init, parts.chunk.trace(init.out_info, data, calls[0])


@functools.cache
def predicted(argument):
  """Logits of three images; as shapes."""
  _, parts = prepare(argument)
  state = jax.eval_shape(parts.method.init, jax.random.key(0))
  images = jax.eval_shape(parts.normalize, parts.fitted, parts.images[:3])
  return jax.tree.leaves(jax.eval_shape(parts.method.predict, state, images))


def network_name(config):
  return config.model.name


def learner(config):
  """What has a method's terms: itself, or its host."""
  return config.method.get('host', config.method)


def traits(config):
  """What decides over how a config is built; that every method runs is shown
  on digits by methods/methods_test."""
  return {('model', config.model.name), ('task', config.task)}


def cost(config):
  """Of compiling a step, roughly, which grows with the passes in it."""
  passes = 1 if config.method.name in FEW_PASSES else 4
  return passes * TINY[config.model.name][1]


@functools.cache
def covering():
  """Few --config arguments that have every trait of any, cheap ones first."""
  first = sorted(set(same(outline, network_name).values()))
  configs = {argument: loaded(argument) for argument in first}
  has = {argument: traits(config) for argument, config in configs.items()}
  missing, chosen = set().union(*has.values()), []
  while missing:
    chosen.append(
      max(
        first,
        key=lambda argument: (
          len(has[argument] & missing) / cost(configs[argument])
        ),
      )
    )
    missing -= has[chosen[-1]]
  for argument in tuple(chosen):  # later ones may have what it was chosen for
    others = (has[other] for other in chosen if other != argument)
    if has[argument] <= set().union(*others):
      chosen.remove(argument)
  return sorted(chosen)


class CoveringTest(parameterized.TestCase):
  def test_every_network_runs(self):
    networks = lambda arguments: {
      loaded(argument).model.name for argument in arguments
    }
    self.assertEqual(networks(covering()), networks(ARGUMENTS))

  @parameterized.parameters(
    ('data.labeled', 20, True),
    ('method.weight', 5.0, True),
    ('data.name', 'mnist', True),
    ('method.ramp_steps', 3, True),
    ('method.weight', 0.0, False),
    ('method.passes', 1, False),
    ('method.sampler', 'uniform', False),
    ('ema_decay', 0.9, False),
    ('batch.unlabeled', 0, False),
    ('model.name', 'cnn13', True),
  )
  def test_what_makes_another_program(self, field, value, same_program):
    config = config_lib.load('configs/digits_ns3l.py').unlock()
    before = outline(config)
    config.update_from_flattened_dict({field: value})
    self.assertEqual(outline(config) == before, same_program)


class RunTest(parameterized.TestCase):
  @parameterized.parameters(*covering())
  def test_two_steps(self, argument):
    data, calls = data_and_rows(*prepare(argument))
    init, step = (p.lower().compile() for p in traced(argument))
    state = init(jax.random.key(0))
    before = jax.tree.map(np.array, state.params)  # `state` is donated
    for call in calls:
      state, metrics = step(state, data, call)
      for metric, values in metrics.items():  # params_norm is one
        self.assertTrue(np.isfinite(values[0]), metric)
    self.assertEqual(int(state.step), 2)
    moved = jax.tree.map(
      lambda a, b: bool((a != b).any()), before, state.params
    )
    learns = argument.partition('host=mean')[1] == ''
    self.assertEqual(any(jax.tree.leaves(moved)), learns)


class TraceTest(parameterized.TestCase):
  @parameterized.parameters(*sorted(set(same(outline).values())))
  def test_step(self, argument):
    init, step = traced(argument, network=False)
    state, metrics = step.out_info
    kind = lambda leaf: (leaf.shape, str(leaf.dtype), leaf.weak_type)
    self.assertEqual(  # or the second step would be another program
      jax.tree.map(kind, init.out_info), jax.tree.map(kind, state)
    )
    self.assertIn('loss', metrics)
    method = learner(loaded(argument))
    for name in {*method.terms, 'ns3l'} & {method.name, *method.terms}:
      self.assertTrue(any(metric.startswith(name) for metric in metrics), name)

  @parameterized.parameters(
    *sorted(set(same(network_on_images, views_of).values()))
  )
  def test_network(self, argument):
    """It takes the images in all views that a config names."""
    _, parts = prepare(argument)
    for logits in predicted(same(network_on_images)[argument]):
      self.assertEqual(logits.shape, (3, parts.source.outputs))


class SizeTest(parameterized.TestCase):
  def test_real_sizes_can_be_split(self):
    for argument in sorted(set(same(data_and_batch).values())):
      with self.subTest(argument):
        self.check(argument)

  def check(self, argument):
    config = loaded(argument)
    _, classes, count, known = DATA[config.data.name]
    labels = labels_of(count, classes)
    labels[known:] = -1
    train = sources.Arrays(labels, labels)
    source = sources.Source(config.data.name, classes, train, train, '')
    source = pipeline.selected(source, config)
    split = pipeline.split_of(config, source, seed=0)
    self.assertLen(split.labeled, config.data.labeled)
    streams = pipeline.index_iterators(config, split, seed=0)
    for name, size in config.batch.items():
      self.assertLen(streams[name](0), size)


if __name__ == '__main__':
  absltest.main()
