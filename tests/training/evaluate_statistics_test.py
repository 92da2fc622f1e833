"""A short run is evaluated with statistics of the weights that it evaluates."""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import models
from nsl_jax.training import (
  assembly,
  checkpoint,
  config as config_lib,
  evaluate,
  experiment,
  feed,
  metrics_log,
  pipeline,
  train_step,
)


def config_of(argument, **changed):
  config = config_lib.load(argument, smoke='true')
  with config.unlocked():
    config.data.name = 'digits'
    config.devices = 1
    config.update_from_flattened_dict(changed)
  return config


def setting(config):
  """Parts, data, rows of training batches and the state at the start."""
  parts = assembly.prepare(config)
  split = pipeline.split_of(config, parts.source, 0)
  data = assembly.data_of(parts, split)
  rows = feed.rows_at(
    pipeline.index_iterators(config, split, 0), range(3), parts.mesh
  )
  state = train_step.initial_state(parts.method, 0, parts.mesh)
  return parts, data, rows, state


def networks(state):
  """Weights and statistics that predictions are made with, by name."""
  if 'teacher_stats' in state.slots:
    return {'': (state.slots['teacher'], state.slots['teacher_stats'])}
  params = state.slots.get('ema', state.params)
  if set(params) == {'a', 'b'}:
    return {n: (params[n], state.stats[n]) for n in 'ab'}
  return {'': (params, state.stats)}


class RecomputeTest(parameterized.TestCase):
  @parameterized.parameters(
    # With averaged weights, unless told otherwise.
    ('configs/fashion_mnist_ssl.py:method=supervised', {}),
    ('configs/fashion_mnist_ssl.py:method=mixmatch', {}),
    ('configs/fashion_mnist_ssl.py:method=supervised', {'ema_decay': 0.0}),
    (
      'configs/mnist_dnll.py',
      {'model': dict(name='small_cnn', batch_norm=True)},
    ),
    (
      'configs/usps_mnist.py:method=mean_teacher',
      {
        'model': dict(name='small_cnn', batch_norm=True),
        'data.labeled': 50,
        'data.rule': 'balanced',
      },
    ),
  )
  def test_mean_over_batches(self, argument, changed):
    """The first norm's statistics, from images gone through by hand."""
    config = config_of(
      argument,
      **{
        'data.augment': '',
        'data.strong': '',
        'data.normalize': 'unit',
        **changed,
      },
    )
    parts, data, rows, state = setting(config)
    shifted = lambda tree: jax.tree.map(lambda leaf: 1.25 * leaf, tree)
    state = state.replace(
      slots={  # other weights than the trained ones
        k: shifted(v) if k in ('ema', 'teacher') else v
        for k, v in state.slots.items()
      }
    )
    read = lambda data, rows: train_step.make_batch(parts.normalize, data, rows)
    after = evaluate.make_recompute(parts.method, read, parts.mesh)(
      state, data, rows
    )
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    for name in state.slots:
      if name != 'teacher_stats':
        jax.tree.map(
          np.testing.assert_array_equal, after.slots[name], state.slots[name]
        )
    for (params, _), (_, stats) in zip(
      networks(state).values(), networks(after).values()
    ):
      means, variances = [], []
      for step in range(3):
        index = np.concatenate([rows['labeled'][step], rows['unlabeled'][step]])
        images = parts.source.train.images[index].astype(np.float32) / 255
        layer = params['Conv_0']
        h = jax.lax.conv_general_dilated(
          images,
          layer['kernel'],
          (1, 1),
          'SAME',
          dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )
        h = np.asarray(h) + np.asarray(layer['bias'])[None, None, None]
        means.append(h.mean((0, 1, 2)))
        variances.append(h.var((0, 1, 2)))
      found = stats['BatchNorm_0']
      np.testing.assert_allclose(
        found['mean'], np.mean(means, 0), rtol=1e-4, atol=1e-5
      )
      np.testing.assert_allclose(
        found['var'], np.mean(variances, 0), rtol=1e-4, atol=1e-5
      )

  def test_tables_of_classes_are_left_alone(self):
    parts, data, rows, state = setting(
      config_of('configs/fashion_mnist_ssl.py:method=flexmatch')
    )
    after = parts.recompute(state, data, rows)
    jax.tree.map(
      lambda a, b: self.assertEqual(a.dtype, b.dtype), after.slots, state.slots
    )

  def test_does_not_depend_on_the_running_ones(self):
    config = config_of('configs/fashion_mnist_ssl.py:method=supervised')
    parts, data, rows, state = setting(config)
    other = state.replace(stats=jax.tree.map(lambda s: s + 7.0, state.stats))
    one, two = (parts.recompute(s, data, rows) for s in (state, other))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
      one.stats,
      two.stats,
    )

  def test_only_where_asked_for_and_of_use(self):
    for argument, changed, wanted in (
      ('configs/fashion_mnist_ssl.py:method=supervised', {}, True),
      (
        'configs/fashion_mnist_ssl.py:method=supervised',
        {'eval.batch_norm': 'running'},
        False,
      ),
      ('configs/digits_supervised.py', {}, False),  # has no norm
    ):
      parts = assembly.prepare(config_of(argument, **changed))
      self.assertEqual(parts.recompute is not None, wanted, argument)


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    ('configs/ns3l_table1.py:data=cifar10,method=ns3l', 'running'),
    ('configs/cifar10_mixmatch.py', 'running'),
    ('configs/cifar10_dnll.py', 'running'),
    ('configs/cifar10_l2i.py', 'running'),
    (
      'configs/ns3l_table1.py:data=cifar10,method=ns3l,reduced=3000',
      'recomputed',
    ),
    (
      'configs/ns3l_table1.py:data=cifar10,method=ns3l,quick=true',
      'recomputed',
    ),
    (
      'configs/ns3l_table1.py:data=cifar10,method=ns3l,smoke=true',
      'recomputed',
    ),
    ('configs/fashion_mnist_ssl.py', 'recomputed'),
    ('configs/digits_ns3l.py', 'recomputed'),
  )
  def test_full_protocols_are_the_papers(self, argument, expected):
    self.assertEqual(config_lib.load(argument).eval.batch_norm, expected)


class ShortRunTest(absltest.TestCase):
  def test_error_is_that_of_the_weights(self):
    """What is reported is what the same weights make with the statistics of
    the batch that they see; with the running ones it is another number.
    """
    config = config_of(
      'configs/digits_supervised.py:labels=200',
      **{
        'model': dict(name='small_cnn', batch_norm=True),
        'steps': 60,
        'scheduled_steps': 60,
        'data.labeled': 200,
        'log_every': 60,
        'batch.labeled': 50,
        'eval.every_steps': 60,
        'checkpoint.every': 60,
        'optimizer.lr': 3e-3,
        'data.limit': 0,
      },
    )
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    experiment.run(config, folder)
    line = metrics_log.read(folder / 'seed_0' / 'metrics.jsonl')[-1]
    parts, _, _, state = setting(config)

    store = checkpoint.Checkpoints(folder / 'seed_0' / 'checkpoints', keep=2)
    state, _ = store.restore(state)
    store.close()

    model = models.build(config.model.to_dict(), 10)
    images, labels = parts.source.test
    view = jnp.asarray(images, jnp.float32) / 255
    errors = {}
    for train_mode in (True, False):
      outputs, _ = jax.jit(
        lambda s: model.apply(s.params, s.stats, view, train=train_mode)
      )(state)
      errors[train_mode] = 100 * np.mean(outputs.logits.argmax(-1) != labels)
    self.assertLess(errors[True], 30.0)
    self.assertAlmostEqual(line['test_error'], errors[True], delta=3.0)


if __name__ == '__main__':
  absltest.main()
