"""Methods: what a step computes, what it may read, and that it learns."""

import functools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from every_method import (
  CONFIGS,
  NS3L,
  PSEUDO_LABEL,
  RAMP,
  SHAPE,
  K,
  normalize,
  read,
)
from scipy import special

from nsl_jax import errors, methods, models, options
from nsl_jax.compose import tasks
from nsl_jax.data import augment, sources, splits
from nsl_jax.methods import supervised
from nsl_jax.training import pipeline, train_step
from nsl_jax.types import Batch, Components, Data, Method, Model, Outputs


class Toy:
  """Softmax regression that keeps the views it is shown, in order.

  Its statistics are the mean of the last batch in train mode.
  """

  def __init__(self, noise=0.0):
    self.views, self.noise = [], noise

  def init(self, key, image_shape):
    weights = jax.random.normal(key, (math.prod(image_shape), K))
    return {'w': weights}, {'mean': jnp.zeros(())}

  def apply(self, params, stats, images, *, train, key=None):
    self.views.append(images)
    flat = images.reshape(images.shape[0], -1)
    logits = flat @ params['w']
    moved = {'mean': images.mean()} if train else stats
    return Outputs(logits, flat, logits), moved

  def augment(self, images, key):
    return images + self.noise * jax.random.normal(key, images.shape)

  def components(self, tx=None):
    return Components(
      model=Model(self.init, self.apply),
      tx=tx or optax.sgd(0.1),
      augment=self.augment,
      image_shape=SHAPE,
      num_images=40,
    )


def build(name, toy=None, tx=None, **fields):
  components = (toy or Toy()).components(tx)
  terms = {} if name == 'l2i' else {'terms': {}}  # the host has them
  return methods.build({'name': name, **terms, **fields}, components)


def weights(state):
  """All that is trained, as one vector."""
  return np.concatenate(
    [np.ravel(leaf) for leaf in jax.tree.leaves(state.params)]
  )


def start(method, step=0):
  return method.init(jax.random.key(0)).replace(step=jnp.array(step, jnp.int32))


def make_batch(labeled=5, unlabeled=7):
  rng = np.random.default_rng(0)
  draw = lambda n: jnp.asarray(rng.normal(size=(n, *SHAPE)), jnp.float32)
  return Batch(
    x=draw(labeled),
    y=jnp.arange(labeled) % K,
    u=draw(unlabeled),
    u_index=jnp.arange(unlabeled),
    per_image_tables={},
    num_unlabeled=jnp.asarray(30),
  )


def probabilities(view, params):
  flat = np.asarray(view, np.float64).reshape(len(view), -1)
  return special.softmax(flat @ np.asarray(params['w'], np.float64), axis=-1)


def sums_by_hand(views, params):
  """Sums over rows of cross-entropy, NS3L and Pseudo-Label, in numpy."""
  clean, last = (probabilities(v, params) for v in (views[0], views[-1]))
  labels = np.arange(5) % K
  ns3l = -np.log(1 - np.where(clean[5:] < 0.2, last[5:], 0.0).sum(-1))
  best = clean[5:].argmax(-1)
  target = special.softmax(10.0 * np.eye(K)[best], axis=-1)
  pseudo = (target * np.log(target / clean[5:])).sum(-1)
  pseudo = pseudo[clean[5:].max(-1) > 0.4]
  return -np.log(clean[np.arange(5), labels]).sum(), ns3l.sum(), pseudo.sum()


class StepTest(parameterized.TestCase):
  @parameterized.parameters(
    ('supervised', {}, 1),
    ('pseudo_label', PSEUDO_LABEL, 1),
    ('ns3l', NS3L, 1),
    ('ns3l', dict(NS3L, passes=2), 2),
  )
  def test_loss_by_hand(self, name, fields, passes):
    """Invariant 13: every row weighs 1 / 12 (F-N3); the ramp is at half.

    Also the number of passes, each over fresh views, and that the clean one
    alone moves the statistics (F-N2).
    """
    toy = Toy(noise=0.3)
    method = build(name, toy, **fields)
    state = start(method, step=10)
    moved, metrics = method.update(state, make_batch(), jax.random.key(1))
    self.assertLen(toy.views, passes)
    entropy, ns3l, pseudo = sums_by_hand(toy.views, state.params)
    extra = {'supervised': 0.0, 'ns3l': ns3l, 'pseudo_label': pseudo}[name]
    self.assertEqual(extra > 0.5, name != 'supervised')
    ramp = math.exp(-1.25)
    np.testing.assert_allclose(
      metrics['loss'], (entropy + ramp * extra) / 12, rtol=1e-5
    )
    np.testing.assert_allclose(
      metrics['cross_entropy'], entropy / 12, rtol=1e-5
    )
    if name != 'supervised':  # logged as the mean over its own rows
      np.testing.assert_allclose(metrics[name], extra / 7, rtol=1e-5)
    np.testing.assert_allclose(moved.stats['mean'], toy.views[0].mean())
    if passes == 2:
      self.assertGreater(np.abs(toy.views[0] - toy.views[1]).mean(), 0.1)

  def test_terms_go_on_any_method(self):
    """Pseudo-Label and NS3L together, in either order: the sum of both."""
    for name, fields, terms in (
      ('supervised', {}, {'pseudo_label': PSEUDO_LABEL, 'ns3l': NS3L}),
      ('pseudo_label', PSEUDO_LABEL, {'ns3l': NS3L}),
      ('ns3l', NS3L, {'pseudo_label': PSEUDO_LABEL}),
    ):
      toy = Toy()
      method = build(name, toy, terms=terms, **fields)
      state = start(method, step=20)
      _, metrics = method.update(state, make_batch(), jax.random.key(1))
      self.assertLen(toy.views, 1)
      sums = sums_by_hand(toy.views, state.params)
      np.testing.assert_allclose(metrics['loss'], sum(sums) / 12, rtol=1e-5)

  def test_target_is_constant(self):
    """Whatever a term makes of it, no gradient comes back."""
    loss = supervised.supervised_loss(Toy().components())
    state, batch = start(build('supervised')), make_batch()
    read = lambda params: (
      loss(params, state, batch, jax.random.key(1))[1]
      .inputs.target_probs[:, 0]
      .sum()
    )
    np.testing.assert_array_equal(jax.grad(read)(state.params)['w'], 0.0)

  def test_supervised_without_unlabeled_rows(self):
    toy = Toy()
    state = start(build('supervised', toy))
    moved, metrics = build('supervised', toy).update(
      state, make_batch(unlabeled=0), jax.random.key(1)
    )
    probs = probabilities(toy.views[0], state.params)
    mean = -np.log(probs[np.arange(5), np.arange(5) % K]).mean()
    np.testing.assert_allclose(metrics['loss'], mean, rtol=1e-5)
    self.assertGreater(
      np.abs(moved.params['w'] - state.params['w']).max(), 1e-3
    )

  @parameterized.parameters(('uniform', 4), ('oracle', 1))
  def test_negatives_are_redrawn_every_step(self, sampler, different):
    """F-N17, with a learning rate of 0; three wrong classes never vary."""
    method = build(
      'ns3l', tx=optax.sgd(0.0), sampler=sampler, passes=1, count=3, **RAMP
    )
    data, rows = small_data()
    data = data._replace(per_image_tables={'true_class': data.labels})
    step = jax.jit(train_step.one_step(method, read))
    state, values = start(method), []
    for _ in range(4):
      state, metrics = step(state, data, rows)
      values.append(float(metrics['ns3l']))
    self.assertLen(set(values), different)


def small_data():
  """40 random images; the first 12 are labeled."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (40, *SHAPE), np.uint8)
  labels = np.arange(40, dtype=np.int32) % K
  rows = {'labeled': np.arange(12), 'unlabeled': np.arange(12, 40)}
  parts = jnp.asarray(images), jnp.asarray(labels), {}, {}
  return Data(*parts, num_unlabeled=jnp.asarray(28)), rows


class HiddenLabelsTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(sampler='uniform', count=1),
    dict(sampler='furthest'),
    dict(sampler='exclude_nearest', exclude=1, count=1),
    dict(sampler='oracle', count=1),
  )
  def test_only_the_oracle_sees_them(self, **fields):
    """Other labels on unlabeled rows change nothing, bit for bit; of methods
    see `EveryMethodTest`."""
    method = build('ns3l', **RAMP, passes=1, **fields)
    step = jax.jit(train_step.one_step(method, read))
    data, rows = small_data()
    seen = {**rows, 'holdout': rows['labeled'][::2]}
    ends = []
    for shift in 0, 1:
      labels = np.array(data.labels)
      labels[rows['unlabeled']] = (labels[rows['unlabeled']] + shift) % K
      source = sources.Source(
        'toy', K, sources.Arrays(np.asarray(data.images), labels), None, ''
      )
      split = splits.Split(**rows, validation=np.arange(0))
      shown = data._replace(
        labels=jnp.asarray(labels),
        per_image_tables=pipeline.per_image_tables(
          method.per_image_tables, source, split
        ),
      )
      state = start(method, step=18)
      for _ in range(3):
        state, _ = step(state, shown, seen)
      ends.append(weights(state))
    sees = fields['sampler'] == 'oracle'
    self.assertEqual(not np.array_equal(*ends), sees)


@functools.cache
def digits():
  """The data and a split with five labeled images of every class."""
  source = sources.load('digits')
  return source, splits.make(
    source.train.labels,
    10,
    labeled=50,
    validation=0,
    rule='balanced',
    validation_rule='balanced',
    unlabeled_includes_labeled=False,
    seed=0,
  )


def one_of(predict):
  """Logits of the first network where there are several."""

  def logits(state, images):
    found = predict(state, images)
    return found['a'] if isinstance(found, dict) else found

  return logits


class EveryMethodTest(parameterized.TestCase):
  def test_all_are_here(self):
    """A new method needs an entry in CONFIGS, and with it these tests."""
    for_classes = lambda name: (
      tasks.CLASSIFICATION.name
      in getattr(
        sys.modules[methods.find(name).__module__],
        'TASKS',
        (tasks.CLASSIFICATION.name,),
      )
    )
    self.assertCountEqual(filter(for_classes, methods.names()), CONFIGS)

  @parameterized.parameters(
    *((name, 'float32') for name in CONFIGS),
    # A first and a second derivative inside of the step.
    *((name, 'bfloat16') for name in ('supervised', 'vat', 'l2i')),
  )
  def test_learns_digits(self, name, precision):
    """40 steps on 50 labels: most of the test digits are read. The run is one
    of its key, and not of the labels of unlabeled images.
    """
    source, split = digits()
    # With a perceptron these add more to the loss than it loses.
    network = {'name': 'mlp', 'layers': 1}
    if name in ('fixmatch', 'ns3l', 'softmatch'):
      network = {'name': 'small_cnn'}
    components = Components(
      model=models.build(network, 10, precision=precision),
      tx=optax.adam(3e-3),
      augment=augment.build('translate:1'),
      image_shape=(8, 8, 1),
      num_images=len(source.train.labels),
    )
    terms = {} if name == 'l2i' else {'terms': {}}
    method = methods.build({'name': name, **terms, **CONFIGS[name]}, components)
    step = jax.jit(train_step.one_step(method, read))
    predict = jax.jit(one_of(method.predict))
    images = normalize({}, jnp.asarray(source.test.images))
    error = lambda state: np.mean(
      predict(state, images).argmax(-1) != source.test.labels
    )
    data = Data(*(jnp.asarray(part) for part in source.train), {}, {})
    data = data._replace(num_unlabeled=jnp.asarray(len(split.unlabeled)))
    rng = np.random.default_rng(0)
    state, history, known = method.init(jax.random.key(0)), [], []
    self.assertGreater(error(state), 0.7)
    for _ in range(40):
      rows = {
        'labeled': split.labeled,
        'unlabeled': rng.choice(split.unlabeled, 50, replace=False),
        'holdout': rng.permutation(split.labeled),
      }
      state, metrics = step(state, data, rows)
      history.append(metrics['loss'])
      known.append(metrics.get('cross_entropy', metrics['loss']))
    self.assertLess(error(state), 0.3)
    if name in ('mixmatch', 'mixup'):  # mixed labels keep an entropy
      self.assertLess(known[-1], 0.7 * known[0])
    else:
      self.assertLess(history[-1], 0.5 * history[0])
    self._check_key_and_labels(step, state, data, rows)

  def _check_key_and_labels(self, step, state, data, rows):
    """One key gives one run, bit for bit; another key another; other labels on
    unlabeled rows the same."""
    before = weights(state)

    def run(key, shift=0):
      labels = np.array(data.labels)
      labels[rows['unlabeled']] = (labels[rows['unlabeled']] + shift) % 10
      shown = data._replace(labels=jnp.asarray(labels))
      moved = state.replace(key=jax.random.key(key))
      for _ in range(2):
        moved, _ = step(moved, shown, rows)
      return weights(moved)

    first = run(1)
    self.assertGreater(np.abs(first - before).max(), 1e-4)
    self.assertGreater(np.abs(first - run(2)).max(), 1e-6)
    np.testing.assert_array_equal(first, run(1))
    np.testing.assert_array_equal(first, run(1, shift=3))


class BuildTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, "the method has no 'name'"),
    (dict(name='ns3', terms={}), "unknown method 'ns3': did you mean 'ns3l'"),
    (dict(name='supervised'), "method 'supervised': .*missing.*'terms'"),
    (
      dict(name='supervised', terms={}, weight=1.0),
      "method 'supervised': .*unexpected.*'weight'",
    ),
    (dict(name='ns3l', **NS3L), "method 'ns3l': .*missing.*'terms'"),
    (dict(name='ns3l', terms={}, tau=1.0, **NS3L), "'tau'"),
    (
      dict(name='pseudo_label', terms={}, threshold=1.5),
      r'threshold=1.5: must be in \[0, 1\]',
    ),
    (dict(name='ict', terms={}, alpha=0.0), 'ict alpha=0.0: must be > 0'),
    (dict(name='mixmatch', terms={}, views=0), 'views=0: must be >= 1'),
    (
      dict(name='dnll', terms={}, unsupervised='bath'),
      "dnll unsupervised='bath': did you mean 'both'",
    ),
    (
      dict(name='l2i', host=CONFIGS['l2i']['host'], variant='v3'),
      "l2i variant='v3': known: v1, v2",
    ),
    (
      dict(name='l2i', host={'name': 'mixmach', 'terms': {}}),
      "l2i host 'mixmach': did you mean 'mixmatch'",
    ),
    (dict(name='pseudo_label', terms={}, count=1, **PSEUDO_LABEL), "'count'"),
    (
      dict(name='supervised', terms={'ns3k': RAMP}),
      "unknown term 'ns3k': did you mean 'ns3l'",
    ),
  )
  def test_errors_are_one_clear_line(self, config, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      methods.build(config, Toy().components())
    self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(*(name for name in CONFIGS if name != 'l2i'))
  def test_every_option_has_a_default(self, name):
    """And each default is a value that the method accepts."""
    self.assertIsInstance(build(name), Method)
    known = options.of(methods.find(name))
    given = {k: option.default for k, option in known.items()}
    self.assertIsInstance(build(name, **given), Method)

  @parameterized.parameters(
    ('ns3l', 1.0), ('pi', 20.0), ('pseudo_label', 1.0), ('vat', 0.3)
  )
  def test_a_term_alone(self, name, weight):
    """The method of a term has the defaults of the term."""
    method = build(name)
    update = functools.partial(
      jax.eval_shape, method.update, batch=make_batch(), key=jax.random.key(1)
    )
    self.assertContainsSubset(
      {'loss', 'cross_entropy', name}, update(start(method))[1]
    )
    for step, part in ((0, 0.006738), (25_000, 0.286505), (50_000, 1.0)):
      _, metrics = method.update(
        start(method, step), make_batch(), jax.random.key(1)
      )
      np.testing.assert_allclose(
        metrics[f'{name}_weight'], weight * part, rtol=1e-4
      )

  def test_a_term_alone_cannot_be_added_again(self):
    with self.assertRaisesRegex(errors.UserError, 'has the term vat already'):
      build('vat', terms={'vat': {}})

  def test_side_tables_are_asked_for(self):
    furthest = dict(sampler='furthest', passes=1, **RAMP)
    self.assertEqual(build('ns3l', **NS3L).per_image_tables, ())
    on_top = build('pseudo_label', terms={'ns3l': furthest}, **PSEUDO_LABEL)
    self.assertEqual(on_top.per_image_tables, ('class_distance',))


if __name__ == '__main__':
  absltest.main()
