"""The numbers of every method, term and view stay what they were.

A seed stands for a run: whatever draws one more random key, or draws it
elsewhere, gives every run of the ledger another course from its first step on
without being wrong anywhere else. Only here does it show.

golden.json holds the numbers. The suite looks at some, and allows for the
rounding of another machine; `python tests/golden_test.py` compares all (6
minutes) to the last bit, which must be equal on the machine that wrote them,
and `--write` writes them anew.
"""

import hashlib
import json
import os
import pathlib
import sys

if __name__ == '__main__':
  import conftest  # noqa: F401 - the flags of the suite, before JAX starts

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import models
from nsl_jax.data import augment, sources, splits
from nsl_jax.data.datasets import points
from nsl_jax.training import (
  assembly,
  config as config_lib,
  feed,
  pipeline,
  train_step,
)

_FILE = pathlib.Path(__file__).with_name('golden.json')
_STEPS = 5
_MEANING = """
These are not the numbers that this config and seed have always had: the runs of
the ledger (results/) no longer come out again. Either the mathematics changed,
or something draws other random numbers than before: the split, the order of
the rows, the initial weights, the views, the mixing or the negative labels. If
that is wanted, say so in the change, make the runs of the ledger anew, and only
then write the new numbers: python tests/golden_test.py --write
"""
_SSL = 'configs/fashion_mnist_ssl.py:method='
_L2I = 'configs/fashion_mnist_l2i.py:host='
_TABLE_6 = 'configs/fashion_mnist_table6.py:negatives='
_PAIR = 'configs/cifar10_dual_student.py:method='
_ADAPT = 'configs/usps_mnist.py:method='
_DNLL = 'configs/mnist_dnll.py:labels=20'
# Name -> the argument of --config, and what is set in it.
_RUNS = (
  {
    argument: (argument, {})
    for argument in (
      'configs/digits_supervised.py',
      'configs/digits_ns3l.py',
      *[
        f'configs/digits_supervised.py:terms={name}'
        for name in ('ns3l', 'pseudo_label', 'entropy', 'pi', 'vat')
      ],
      *[
        _SSL + name
        for name in (
          'supervised',
          'pi',
          'mean_teacher',
          'vat',
          'vat_ns3l',
          'mixmatch',
          'mixmatch_ns3l',
          'ns3l',
          'pi_ns3l',
          'fixmatch',
          'flexmatch',
          'freematch',
          'softmatch',
          'fixmatch_ns3l',
          'fixmatch_pair',
        )
      ],
      *[
        f'{_L2I}{host},variant={variant}'
        for host in ('pl', 'mt', 'mm')
        for variant in ('none', 'v1', 'v2')
      ],
      f'{_L2I}mt,variant=still',
      *[
        _TABLE_6 + name
        for name in (
          'uniform3',
          'exclude_4_nearest',
          'furthest',
          'threshold03',
          'oracle1',
        )
      ],
      *[
        _PAIR + name
        for name in (
          'dual_student',
          'dual_student_dnll',
          'mean_teacher',
          'mean_teacher_dnll',
        )
      ],
      *[_ADAPT + name for name in ('mean_teacher', 'dual_student', 'dnll')],
      _DNLL,
      f'{_DNLL},selection=ep',
      f'{_DNLL},unsupervised=self',
      'configs/ns3l_table1.py:data=cifar10,method=pseudo_label',
      'configs/ns3l_table1.py:data=cifar10,method=vat_entmin',
    )
  }
  | {
    'ict': (
      _SSL + 'mixmatch',
      {
        'method': ml_collections.ConfigDict(
          dict(
            name='ict',
            weight=10.0,
            ramp='none',
            ramp_steps=0,
            alpha=0.75,
            decay=0.99,
            terms={},
          )
        )
      },
    ),
    'mixup': (
      _SSL + 'mixmatch',
      {
        'method': ml_collections.ConfigDict(
          dict(name='mixup', alpha=0.75, terms={})
        )
      },
    ),
    'vat by finite differences': (
      _SSL + 'vat',
      {'method.mode': 'finite_difference'},
    ),
    'averaged and decayed': (
      _SSL + 'mixmatch_ns3l',
      dict(ema_decay=0.9, weight_decay=0.02),
    ),
  }
  | {
    f'points {host} {variant}': (
      f'configs/mnist_points.py:host={host},variant={variant}',
      {},
    )
    for host, variant in (
      ('sl', 'none'),
      ('pl', 'none'),
      ('pl', 'v1'),
      ('pl', 'v2'),
      ('mt', 'v1'),
      ('mt', 'v2'),
    )
  }
)
_OF_DIGITS = 'points pl v1 of digits'
_RUNS[_OF_DIGITS] = ('configs/mnist_points.py:host=pl,variant=v1', {})
# The suite runs these on a perceptron, which compiles in a tenth of the time.
_PERCEPTRON = ml_collections.ConfigDict(dict(name='mlp', hidden=16, layers=1))
_ON_PERCEPTRON = (
  'configs/digits_supervised.py',
  'configs/digits_ns3l.py',
  _TABLE_6 + 'uniform3',
  _TABLE_6 + 'threshold03',
  _SSL + 'vat_ns3l',
  _L2I + 'mt,variant=v2',
  _PAIR + 'dual_student_dnll',
  _DNLL,
  _OF_DIGITS,
)
_SMALL_RUNS = {
  f'{name} on a perceptron': (_RUNS[name][0], {'model': _PERCEPTRON})
  for name in _ON_PERCEPTRON
}
_RUNS |= _SMALL_RUNS
_VIEWS = (
  'flip',
  'translate:2',
  'translate_x:2',
  'noise:0.15',
  'jitter:0.4:0.4:0.4:0.1',
  'flip,translate:2,noise:0.15',
)
_NETWORKS = {
  name: dict(name=name, **fields)
  for name, fields in (
    ('small_cnn', dict(batch_norm=True)),
    ('cnn3', {}),
    ('cnn13', dict(width=1 / 16)),
    ('wide_resnet', dict(depth=10, width=1)),
    ('resnet26', dict(width=1 / 8, blocks=1)),
    ('tcdcn', {}),
    ('resnet18', dict(width=1 / 16, stem='small')),
    ('mlp', dict(hidden=16)),
  )
}


def needs_data(name):
  """Whether a run is on points of real pictures, which must be there."""
  return name.startswith('points') and not name.startswith(_OF_DIGITS)


def points_of_digits():
  """scikit-learn's digits in place of MNIST's, which take long to decode."""
  source = sources.load('digits')
  drawn = []
  for seed, (images, _) in enumerate((source.train, source.test)):
    large = images.repeat(3, axis=1).repeat(3, axis=2)
    frame = np.pad(large, [(0, 0), (2, 2), (2, 2), (0, 0)])
    drawn.append(sources.Arrays(*points.scatter(frame, seed=seed)))
  return sources.Source('mnist_points', 0, *drawn, '')


def numbers_of_run(name):
  """Loss and norm of the parameters at every step, f64[_STEPS, 2]."""
  argument, changes = _RUNS[name]
  config = config_lib.load(argument, smoke='true').unlock()
  if not name.startswith('points'):
    config.data.name = 'digits'
    if config.model.name != 'small_cnn':  # which takes images this small
      config.model = dict(name='small_cnn', batch_norm=True)
  config.devices = 1
  for field, value in changes.items():
    config.update_from_flattened_dict({field: value})
  source = points_of_digits() if name.startswith(_OF_DIGITS) else None
  parts = assembly.prepare(config.lock(), source=source)
  split = pipeline.split_of(config, parts.source, config.seed)
  data = assembly.data_of(parts, split)
  streams = pipeline.index_iterators(config, split, config.seed)
  state = train_step.initial_state(parts.method, config.seed, parts.mesh)
  found = []
  for step in range(_STEPS):
    rows = feed.rows_at(streams, range(step, step + 1), parts.mesh)
    state, metrics = parts.chunk(state, data, rows)
    found.append([float(metrics[n][0]) for n in ('loss', 'params_norm')])
  return np.array(found)


def numbers_of_view(words):
  """Sums over the pixels of random views, by image, f64[4]."""
  images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
  same = lambda images: images
  view = augment.build(words, pixels=lambda: augment.Pixels(same, same))(
    jnp.asarray(images), jax.random.key(1)
  )
  weights = np.random.default_rng(1).random(images.shape)
  return (np.asarray(view, np.float64) * weights).sum((1, 2, 3))


def numbers_of_network(name):
  """Logits of two random images by the initial weights, flat."""
  model = models.build(_NETWORKS[name], 4)
  shape = {'tcdcn': (44, 44, 3), 'cnn3': (28, 28, 3)}.get(name, (16, 16, 3))
  images = np.random.default_rng(0).random((2, *shape), np.float32)

  def logits(key):
    params, stats = model.init(key, shape)
    return model.apply(params, stats, images, train=False)[0].logits

  return np.asarray(jax.jit(logits)(jax.random.key(0)), np.float64).ravel()


def hash_of_splits():
  """Of the rows of splits by every rule, for three seeds."""
  labels = sources.load('digits').train.labels
  digest = hashlib.sha256()
  for rule in splits.RULES:
    for seed in range(3):
      digest.update(
        splits.make(
          labels,
          10,
          labeled=43,
          validation=101,
          rule=rule,
          holdout=20,
          validation_rule=rule,
          unlabeled_includes_labeled=seed == 1,
          seed=seed,
        )
        .sha256()
        .encode()
      )
  return digest.hexdigest()


_KINDS = {
  'run': (_RUNS, numbers_of_run),
  'view': (_VIEWS, numbers_of_view),
  'network': (_NETWORKS, numbers_of_network),
}
_NAMES = [(kind, name) for kind in _KINDS for name in _KINDS[kind][0]]
# Runs that the suite looks at.
_IN_SUITE = (_SSL + 'mixmatch_ns3l', *_SMALL_RUNS)


def known():
  """What golden.json holds."""
  return json.loads(_FILE.read_text())


class GoldenTest(parameterized.TestCase):
  @parameterized.parameters(
    *[
      (kind, name)
      for kind, name in _NAMES
      if kind != 'run' or name in _IN_SUITE
    ]
  )
  def test_numbers(self, kind, name):
    if needs_data(name) and 'TFDS_DATA_DIR' not in os.environ:
      self.skipTest('TFDS_DATA_DIR is not set: no pictures for points')
    want = np.vectorize(float.fromhex)(known()[kind][name])
    np.testing.assert_allclose(
      _KINDS[kind][1](name), want, rtol=1e-4, atol=1e-5, err_msg=_MEANING
    )

  def test_splits(self):
    self.assertEqual(hash_of_splits(), known()['splits'], _MEANING)

  def test_nothing_is_left_over(self):
    for kind, (names, _) in _KINDS.items():
      self.assertCountEqual(known()[kind], names)


def main():
  """Compares to the last bit, or writes; the status is 1 where they differ."""
  found = {kind: {} for kind in _KINDS}
  for kind, name in _NAMES:
    found[kind][name] = np.vectorize(float.hex)(_KINDS[kind][1](name)).tolist()
    same = '--write' not in sys.argv and found[kind][name] == known()[kind].get(
      name
    )
    print('equal' if same else '-----', kind, name, flush=True)
    jax.clear_caches()
  found['splits'] = hash_of_splits()
  if '--write' in sys.argv:
    _FILE.write_text(json.dumps(found, indent=1) + '\n')
    return 0
  differ = [
    f'{kind} {name}'
    for kind, name in _NAMES
    if found[kind][name] != known()[kind].get(name)
  ]
  differ += ['splits'] * (found['splits'] != known()['splits'])
  print(f'{len(differ)} of {len(_NAMES) + 1} differ {differ}')
  return int(bool(differ))


if __name__ == '__main__':
  sys.exit(main()) if sys.argv[1:] in ([], ['--write']) else absltest.main()
