"""Parts of a run given as Python objects, such as those of a notebook."""

import functools
import linecache
import pathlib
import pickle
import sys
import tempfile
import types
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

import nsl_jax
from nsl_jax import errors, methods, models, references, terms
from nsl_jax.data import augment, of_arrays
from nsl_jax.training import metrics_log

CELL = """
import jax
import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import compose, methods, terms as terms_lib


def twice(components, *, terms, factor: float = 2.0):
  base = methods.supervised.supervised_loss(components)

  def loss(params, state, batch, key):
    value, aux = base(params, state, batch, key)
    return factor * value, aux

  loss = compose.add_terms(loss, terms_lib.from_config(terms))
  return compose.SingleNetworkMethod(loss)


def sure(*, power: float = 1.0):
  return lambda inputs, batch, key: (
    1.0 - jax.nn.softmax(inputs.logits_u).max(-1) ** power
  )


class Linear(nn.Module):
  num_classes: int
  scale: float = 1.0

  @nn.compact
  def __call__(self, images, *, train):
    flat = images.reshape(images.shape[0], -1)
    return nn.Dense(self.num_classes)(self.scale * flat)


def darker(images, key):
  return 0.5 * images


def no_method(components, *, terms):
  return 3


def no_term():
  return 3
"""
# A mistake in each part.
WRONG = """
import jax
import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import compose, methods


def by_class():
  return lambda inputs, batch, key: inputs.logits_u


def first_rows():
  return lambda inputs, batch, key: inputs.logits_u.max(-1)[:3]


def whole_numbers():
  return lambda inputs, batch, key: inputs.logits_u.argmax(-1)


def nothing():
  return lambda inputs, batch, key: None


def weighs_itself(*, weight: float = 2.0):
  return lambda inputs, batch, key: weight * inputs.logits_u.max(-1)


def other_rows(images, key):
  return images[::2]


def no_images(images, key):
  return None


class OneMore(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, images, train=False):
    return nn.Dense(self.num_classes + 1)(images.reshape(len(images), -1))


class Whole(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, images, train=False):
    logits = nn.Dense(self.num_classes)(images.reshape(len(images), -1))
    return logits.astype(jnp.int32)


class NoTrain(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, images):
    return nn.Dense(self.num_classes)(images.reshape(len(images), -1))


class Fixed(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, images, train=False):
    return images.reshape(len(images), -1)[:, :self.num_classes]


def _of(change):
  def make(components, *, terms):
    base = methods.supervised_loss(components)

    def loss(params, state, batch, key):
      return change(*base(params, state, batch, key))

    return compose.SingleNetworkMethod(loss)

  return make


def no_terms(components, *, terms):
  return _of(lambda value, aux: (value, aux))(components, terms=terms)


def no_aux(components, *, terms):
  return _of(lambda value, aux: value)(components, terms=terms)


def vector(components, *, terms):
  return _of(lambda value, aux: (value[None], aux))(components, terms=terms)


def vector_metric(components, *, terms):
  change = lambda value, aux: (
    value, aux._replace(metrics={'odd': jnp.zeros(3)}))
  return _of(change)(components, terms=terms)


def number_metric(components, *, terms, table: str = 'names.csv'):
  change = lambda value, aux: (
    value, aux._replace(metrics={'odd': 0.5}))
  return _of(change)(components, terms=terms)
"""


def _define(test, text):
  """Runs a cell of a notebook, whose module is `__main__`."""
  main = vars(sys.modules['__main__'])
  before = dict(main)
  name = f'<cell of {test.id()} {len(linecache.cache)}>'
  linecache.cache[name] = len(text), None, text.splitlines(True), name
  exec(compile(text, name, 'exec'), main)
  made = {k: v for k, v in main.items() if before.get(k) is not v}

  def forget():
    for key in made:
      main.pop(key, None)
    main.update(before)

  test.addCleanup(forget)
  return types.SimpleNamespace(**main)


def _digits():
  """A few digits as a data set."""
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (60, 8, 8), np.uint8)
  y = np.arange(60) % 3
  return of_arrays(
    (x[:40], np.where(np.arange(40) < 12, y[:40], -1)),
    test=(x[40:], y[40:]),
    name='noise',
  )


def _overrides(cell):
  return {
    'method.name': cell.twice,
    'method.factor': 3,
    'method.terms.sure.module': cell.sure,
    'method.terms.sure.power': 2.0,
    'model.name': cell.Linear,
    'model.scale': 0.5,
    'data.augment': ['flip', cell.darker],
    'steps': 4,
    'eval.every_steps': 4,
    'log_every': 4,
    'data.labeled': 12,
    'data.validation': 0,
    'batch.labeled': 6,
    'batch.unlabeled': 6,
    'protocol': 'last',
    'devices': 1,
  }


def _without_method(cell):
  return {
    k: v for k, v in _overrides(cell).items() if not k.startswith('method.')
  }


class ObjectsTest(parameterized.TestCase):
  """Parts given as Python objects, such as those of a notebook."""

  def test_an_object_of_a_module_is_its_name(self):
    config = nsl_jax.load_config(
      'configs/digits_ns3l.py',
      {'data.augment': augment.flip, 'model.name': models.MLP},
    )
    self.assertEqual(config.data.augment, 'nsl_jax.data.augment:flip')
    self.assertEqual(config.model.name, 'nsl_jax.models.mlp:MLP')
    self.assertEqual(config.model.hidden, 256)

  def test_values_are_those_of_their_words(self):
    as_values = {
      'method.threshold': 0.1,
      'data.unlabeled_includes_labeled': True,
      'optimizer.drop_steps': (3, 5),
      'steps': 7,
      'data.augment': ('flip', 'translate:1'),
    }
    as_words = [
      ('method.threshold', '0.1'),
      ('data.unlabeled_includes_labeled', 'true'),
      ('optimizer.drop_steps', '(3, 5)'),
      ('steps', '7'),
      ('data.augment', 'flip,translate:1'),
    ]
    file = 'configs/digits_ns3l.py'
    self.assertEqual(
      nsl_jax.load_config(file, as_values).to_dict(),
      nsl_jax.load_config(file, as_words).to_dict(),
    )
    as_lists = as_values | {'optimizer.drop_steps': [3, 5]}
    self.assertEqual(
      nsl_jax.load_config(file, as_lists).to_dict(),
      nsl_jax.load_config(file, as_words).to_dict(),
    )

  @parameterized.parameters(
    lambda: lambda images, key: images, lambda: functools.partial(max)
  )
  def test_what_has_no_name(self, make):
    with self.assertRaisesRegex(errors.UserError, 'define it by def or class'):
      nsl_jax.load_config('configs/digits_ns3l.py', {'method.name': make()})

  def test_l2i_by_name_has_held_out_batches(self):
    config = nsl_jax.load_config(
      'configs/digits_ns3l.py', {'method.name': 'l2i'}
    )
    self.assertEqual(config.batch.holdout, 50)

  def test_an_older_definition_is_refused(self):
    old = _define(self, CELL).twice
    _define(self, CELL)
    with self.assertRaisesRegex(errors.UserError, 'twice cannot be named'):
      references.name_of(old)

  def test_what_builds_no_part(self):
    cell = _define(self, CELL)
    name, of_term = map(references.name_of, (cell.no_method, cell.no_term))
    with self.assertRaisesRegex(errors.UserError, 'returns int: return a Meth'):
      methods.build({'name': name, 'terms': {}}, mock.MagicMock(task=None))
    with self.assertRaisesRegex(errors.UserError, 'returns int: return a func'):
      terms.build(of_term)

  def test_a_run_of_a_notebook(self):
    cell = _define(self, CELL)
    folder = self.enterContext(tempfile.TemporaryDirectory())
    config = nsl_jax.load_config('configs/digits_ns3l.py', _overrides(cell))
    source = _digits()
    results = nsl_jax.run(config, folder, source, verbose=False)

    with self.subTest('the stored config names the parts and has their source'):
      stored = results['config']
      self.assertEqual(stored['method']['name'], '__main__:twice')
      self.assertEqual(stored['method']['factor'], 3.0)
      self.assertEqual(stored['model']['name'], '__main__:Linear')
      self.assertEqual(stored['data']['augment'], 'flip,__main__:darker')
      self.assertEqual(stored['data']['name'], 'noise')
      self.assertEqual(results['row'], '')
      self.assertEqual(
        {*stored['objects']}, {'twice', 'sure', 'Linear', 'darker'}
      )
      for source_text in stored['objects'].values():
        self.assertIn(source_text.strip(), CELL)
    with self.subTest('and is trained as told'):
      lines = metrics_log.read(pathlib.Path(folder, 'seed_0/metrics.jsonl'))
      last = [line for line in lines if line['kind'] == 'train'][-1]
      expected = 3.0 * last['cross_entropy'] + last['sure'] / 2
      self.assertAlmostEqual(last['loss'], expected, places=4)
    with self.subTest('it predicts where its parts are'):
      network = nsl_jax.load(folder)
      probabilities = network.predict_proba(source.test.images)
      self.assertEqual(probabilities.shape, (20, 3))
      unpickled = pickle.loads(pickle.dumps(network))
      np.testing.assert_allclose(
        unpickled.predict_proba(source.test.images), probabilities, atol=1e-6
      )
    with self.subTest('and goes on there'):
      resumed = nsl_jax.run(config, folder, source, verbose=False)
      self.assertEqual(resumed['reports'], results['reports'])

    _define(self, CELL.replace('flat = ', 'flat = 2 * '))
    with self.subTest('not with another network of that name'):
      with self.assertRaisesRegex(errors.UserError, 'Linear is defined other'):
        nsl_jax.load(folder)
      with self.assertRaisesRegex(
        errors.UserError, 'begun with another definition of Linear: restore'
      ):
        nsl_jax.run(config, folder, source, verbose=False)
    del sys.modules['__main__'].Linear
    with self.subTest('nor without one'):
      message = "the part 'Linear' is defined in the notebook or script of"
      with self.assertRaisesRegex(errors.UserError, message):
        nsl_jax.load(folder)
      with self.assertRaisesRegex(errors.UserError, "the network 'Linear' is"):
        nsl_jax.run(config, folder, source, verbose=False)

  @parameterized.parameters(
    (
      'term',
      'by_class',
      r"term 'own' returns float32\[6, 3\]: return the loss",
    ),
    ('term', 'first_rows', r"'own' returns float32\[3\]: .* float32\[6\], or"),
    ('term', 'whole_numbers', r"'own' returns int32\[6\]"),
    ('term', 'nothing', "'own' returns None"),
    ('term', 'weighs_itself', "'own' has an option weight, which is one of"),
    (
      'view',
      'other_rows',
      r'other_rows returns float32\[\d, 8, 8, 1\]: return',
    ),
    ('view', 'no_images', 'no_images returns None: return images'),
    (
      'model',
      'OneMore',
      r'OneMore returns float32\[\d+, 4\] for \d+ images and',
    ),
    ('model', 'Whole', r'Whole returns int32\[\d+, 3\]'),
    ('model', 'NoTrain', 'NoTrain is called as .* no argument train'),
    ('model', 'Fixed', 'Fixed has no parameters'),
    (
      'method',
      'no_aux',
      r'loss of the method returns float32\[\]: return .*Aux',
    ),
    ('method', 'vector', r'the loss of the method is float32\[1\]: return its'),
    (
      'method',
      'vector_metric',
      r'metric odd has the shape \(3,\): give its mean',
    ),
    ('both', 'no_terms', 'no_terms does not use the terms own: add them'),
  )
  def test_a_wrong_part_is_named_before_anything_is_written(
    self, kind, name, message
  ):
    cell = _define(self, CELL + WRONG)
    part = getattr(cell, name)
    changes = {
      'term': {'method.terms.own.module': part},
      'view': {'data.augment': [part]},
      'model': {'model.name': part},
      'method': {'method.name': part},
      'both': {'method.name': part, 'method.terms.own.module': cell.sure},
    }[kind]
    own = {**_without_method(cell), 'method.name': 'supervised'}
    own.pop('model.scale')
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    with self.assertRaisesRegex(errors.UserError, message):
      nsl_jax.run(
        nsl_jax.load_config('configs/digits_ns3l.py', {**own, **changes}),
        folder / 'run',
        _digits(),
        verbose=False,
      )
    self.assertEmpty(list(folder.iterdir()))

  def test_a_metric_may_be_a_number(self):
    cell = _define(self, CELL + WRONG)
    own = {**_without_method(cell), 'method.name': cell.number_metric}
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    config = nsl_jax.load_config('configs/digits_ns3l.py', own)
    nsl_jax.run(config, folder, _digits(), verbose=False)
    lines = metrics_log.read(folder / 'seed_0' / 'metrics.jsonl')
    self.assertEqual([x['odd'] for x in lines if x['kind'] == 'train'], [0.5])

  def test_a_part_of_a_module_that_has_changed(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    module = types.ModuleType('changing_parts')
    self.enterContext(mock.patch.dict(sys.modules, changing_parts=module))
    cell = _define(self, CELL)
    sources_of = {'Linear': 'first'}
    self.enterContext(
      mock.patch.object(
        references, '_source', lambda part: sources_of[part.__name__]
      )
    )
    module.Linear = cell.Linear
    own = {
      **_without_method(cell),
      'model.name': 'changing_parts:Linear',
      'data.augment': '',
    }
    config = nsl_jax.load_config('configs/digits_ns3l.py', own)
    results = nsl_jax.run(config, folder / 'run', _digits(), verbose=False)
    self.assertEqual(
      results['config']['objects'], {'changing_parts:Linear': 'first'}
    )
    nsl_jax.load(folder / 'run')
    sources_of['Linear'] = 'second'
    with self.assertWarnsRegex(UserWarning, 'changing_parts:Linear is defined'):
      nsl_jax.load(folder / 'run')
    with self.assertRaisesRegex(
      errors.UserError, 'another definition of chang'
    ):
      nsl_jax.run(config, folder / 'run', _digits(), verbose=False)

  def test_a_classifier_of_objects(self):
    cell = _define(self, CELL)
    model = nsl_jax.SemiSupervisedClassifier(
      cell.twice,
      network=cell.Linear,
      terms={'sure': {'module': cell.sure, 'weight': 0.5}},
      steps=2,
      validation=0,
      batch_size=4,
    )
    source = _digits()
    model.fit(source.train.images, source.train.labels)
    self.assertEqual(model.config_['method']['name'], '__main__:twice')
    self.assertEqual(model.config_['method']['terms']['sure']['weight'], 0.5)
    self.assertLen(model.predict(source.test.images), 20)


if __name__ == '__main__':
  absltest.main()
