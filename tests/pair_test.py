"""Two networks side by side: DNLL and Dual Student against loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from nsl_jax import errors, methods, schedules
from nsl_jax.compose import two_networks
from nsl_jax.methods import dnll, dual_student
from nsl_jax.types import Batch, Components, Model, Outputs

SHAPE, K, RATE = (2, 2, 1), 4, 0.1
WEIGHT = dict(weight=2.0, ramp='none', ramp_steps=0)
RAMP = dict(ramp='none', ramp_steps=0)
DNLL = dict(
  selection='ep', count=K - 1, unsupervised='both', terms={}, **WEIGHT
)
STUDENT = dict(
  consistency=3.0, stabilization=5.0, tie=0.5, threshold=0.5, terms={}, **RAMP
)


class Toy:
  """Softmax regression of two heads that keeps what it is shown.

  Its statistics are the mean of the last batch in train mode.
  """

  def __init__(self):
    self.seen = []

  def init(self, key, image_shape):
    one, two = jax.random.split(key)
    shape = (math.prod(image_shape), K)
    params = {
      'w': 2.0 * jax.random.normal(one, shape),
      's': 2.0 * jax.random.normal(two, shape),
    }
    return params, {'mean': jnp.zeros(())}

  def apply(self, params, stats, images, *, train, key=None):
    self.seen.append(images.shape)
    flat = images.reshape(images.shape[0], -1)
    logits = flat @ params['w']
    moved = {'mean': images.mean()} if train else stats
    return Outputs(logits, flat, flat @ params['s']), moved


class Normed(Toy):
  """Logits of images less the mean of their batch, and statistics that go half
  of the way to it.
  """

  def apply(self, params, stats, images, *, train, key=None):
    center = images.mean() if train else stats['mean']
    outputs, _ = super().apply(params, stats, images - center, train=train)
    moved = {'mean': 0.5 * stats['mean'] + 0.5 * center}
    return outputs, moved if train else stats


def brighter(images, key):
  """One number is added to all images of a call."""
  return images + jax.random.uniform(key)


def tools_of(network=None, augment=lambda images, key: images, strong=None):
  network = network or Toy()
  return Components(
    model=Model(network.init, network.apply),
    tx=optax.sgd(RATE),
    augment=augment,
    image_shape=SHAPE,
    strong=strong,
  )


def build(name, components, **fields):
  return methods.build({'name': name, **fields}, components)


def batch_of(labeled=6, unlabeled=8, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda count: jnp.asarray(
    rng.normal(size=(count, *SHAPE)).astype(np.float32)
  )
  return Batch(
    x=draw(labeled),
    y=jnp.asarray(rng.integers(0, K, labeled)),
    u=draw(unlabeled),
    u_index=jnp.arange(unlabeled),
    per_image_tables={},
  )


def softmax(z):
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def forward(params, images):
  flat = np.asarray(images, np.float64).reshape(len(images), -1)
  return (
    flat @ np.asarray(params['w'], np.float64),
    flat @ np.asarray(params['s'], np.float64),
  )


def cross_entropies(logits, labels):
  return -np.log(softmax(logits)[np.arange(len(labels)), labels])


def dnll_by_loop(params, batch, names, parts):
  """Losses with all classes negative but the predicted one."""
  rows = len(batch.x) + len(batch.u)
  found = {}
  for n in names:
    total = cross_entropies(forward(params[n], batch.x)[0], batch.y).sum()
    total /= rows
    for part in parts:
      teacher = n if part == 'self' else two_networks.other(n)
      guesses = forward(params[teacher], batch.u)[0].argmax(-1)
      p = softmax(forward(params[n], batch.u)[0])
      each = []
      for row, guess in zip(p, guesses):
        each.append(
          np.mean([-np.log(1 - row[k]) for k in range(K) if k != guess])
        )
      total += 2.0 * np.mean(each)
    found[n] = total
  return found


def gradients(loss, state, batch):
  """Of the loss of a and of b, in the parameters of both."""
  of = lambda n: lambda p: loss(p, state, batch, jax.random.key(1))[0][n]
  return {n: jax.grad(of(n))(state.params) for n in two_networks.NAMES}


def dnll_loss(components, **fields):
  return dnll.dnll_loss(
    components,
    **{
      **dict(
        weight=schedules.ramped(weight=2.0),
        selection='ep',
        count=K - 1,
        parts=('cross', 'self'),
        decay=0.9,
      ),
      **fields,
    },
  )


class DNLLTest(parameterized.TestCase):
  @parameterized.parameters(
    ('both', ('cross', 'self')), ('cross', ('cross',)), ('self', ('self',))
  )
  def test_against_a_loop(self, unsupervised, parts):
    method = build('dnll', tools_of(), **{**DNLL, 'unsupervised': unsupervised})
    state, batch = method.init(jax.random.key(0)), batch_of()
    _, metrics = method.update(state, batch, jax.random.key(1))
    expected = dnll_by_loop(state.params, batch, two_networks.NAMES, parts)
    for n in two_networks.NAMES:
      np.testing.assert_allclose(metrics[f'loss_{n}'], expected[n], rtol=1e-5)
    self.assertGreater(abs(expected['a'] - expected['b']), 0.01)

  def test_gradients_do_not_cross(self):
    """Invariant 22."""
    components = tools_of()
    state = two_networks.init(components)(jax.random.key(0))
    loss = dnll_loss(components)
    for n, grads in gradients(loss, state, batch_of()).items():
      own, others = grads[n]['w'], grads[two_networks.other(n)]['w']
      self.assertGreater(jnp.abs(own).max(), 1e-3)
      np.testing.assert_array_equal(others, 0)

  def test_both_is_cross_plus_self(self):
    """Invariant 22: the gradients add where negatives are the same."""
    components = tools_of()
    state, batch = two_networks.init(components)(jax.random.key(0)), batch_of()
    parts = {
      name: gradients(dnll_loss(components, parts=words), state, batch)['a'][
        'a'
      ]['w']
      for name, words in (
        ('both', ('cross', 'self')),
        ('cross', ('cross',)),
        ('self', ('self',)),
        ('none', ()),
      )
    }
    np.testing.assert_allclose(
      parts['both'] - parts['none'],
      parts['cross'] + parts['self'] - 2 * parts['none'],
      atol=1e-6,
    )
    self.assertGreater(jnp.abs(parts['cross'] - parts['self']).max(), 1e-3)

  def test_weak_view_teaches_strong_view_learns(self):
    """The strong view is shared, and its class is not the teacher's."""
    dark = lambda images, key: -images
    network = Toy()
    method = build(
      'dnll', tools_of(network, strong=dark), **{**DNLL, 'unsupervised': 'self'}
    )
    state, batch = method.init(jax.random.key(0)), batch_of()
    network.seen.clear()
    _, metrics = method.update(state, batch, jax.random.key(1))
    self.assertEqual(network.seen, [(14, *SHAPE)] * 2 + [(8, *SHAPE)] * 2)
    for n in two_networks.NAMES:
      guesses = forward(state.params[n], batch.u)[0].argmax(-1)
      p = softmax(forward(state.params[n], -batch.u)[0])
      each = [
        np.mean([-np.log(1 - row[k]) for k in range(K) if k != guess])
        for row, guess in zip(p, guesses)
      ]
      np.testing.assert_allclose(metrics[f'self_{n}'], np.mean(each), rtol=1e-5)

  def test_what_teaches_moves_the_statistics_after_what_learns(self):
    """F-D20: half of the way to the batch learnt on, then to the weak one."""
    method = build(
      'dnll',
      tools_of(Normed(), strong=lambda images, key: 3.0 * images),
      **DNLL,
    )
    batch = batch_of()
    state, _ = method.update(
      method.init(jax.random.key(0)), batch, jax.random.key(1)
    )
    student_view = np.concatenate([batch.x, 3.0 * batch.u]).mean()
    expected = 0.25 * student_view + 0.5 * np.mean(batch.u)
    self.assertGreater(abs(expected - 0.5 * student_view), 0.01)
    for n in two_networks.NAMES:
      np.testing.assert_allclose(state.stats[n]['mean'], expected, rtol=1e-4)

  def test_tables_follow_the_mistakes_on_labeled_images(self):
    method = build(
      'dnll', tools_of(), **{**DNLL, 'selection': 'epm', 'decay': 0.9}
    )
    state, batch = method.init(jax.random.key(0)), batch_of(30)
    np.testing.assert_array_equal(state.slots['mistakes_a'], 0)
    after, _ = method.update(state, batch, jax.random.key(1))
    for n in two_networks.NAMES:
      expected = np.zeros((K, K))
      probs = softmax(forward(state.params[n], batch.x)[0])
      for p, label in zip(probs, np.asarray(batch.y)):
        if p.argmax() != label:
          expected[label, p.argmax()] += 0.1 * p.max()
      np.testing.assert_allclose(
        after.slots[f'mistakes_{n}'], expected, atol=1e-6
      )

  def test_drawn_by_the_mistakes_of_the_learner(self):
    """F-D6: with one negative, a's is its own commonest mistake."""
    components = tools_of()
    state, batch = two_networks.init(components)(jax.random.key(0)), batch_of()
    table = lambda k: jnp.zeros((K, K)).at[:, k].set(1e4)
    state = state.replace(
      slots={'mistakes_a': table(1), 'mistakes_b': table(2)}
    )
    loss = dnll_loss(components, selection='epm', count=1, parts=('cross',))
    _, aux = loss(state.params, state, batch, jax.random.key(1))
    for n, often in (('a', 1), ('b', 2)):
      guesses = forward(state.params[two_networks.other(n)], batch.u)[0].argmax(
        -1
      )
      p = softmax(forward(state.params[n], batch.u)[0])
      free = guesses != often  # elsewhere the negative is a random one
      least = -np.log(1 - p[free, often]).sum() / len(guesses)
      rest = (-np.log(1 - p[~free])).max(-1).sum() / len(guesses)
      self.assertGreater(free.sum(), 2)
      self.assertGreaterEqual(aux[n].metrics['cross'], least - 1e-5)
      self.assertLessEqual(aux[n].metrics['cross'], least + rest + 1e-5)

  def test_terms_on_either_network(self):
    term = dict(
      ns3l=dict(
        sampler='threshold', threshold=0.2, passes=1, weight=1.5, **RAMP
      )
    )
    method = build('dnll', tools_of(), **{**DNLL, 'terms': term})
    state, batch = method.init(jax.random.key(0)), batch_of()
    _, metrics = method.update(state, batch, jax.random.key(1))
    base = dnll_by_loop(
      state.params, batch, two_networks.NAMES, ('cross', 'self')
    )
    for n in two_networks.NAMES:
      p = softmax(forward(state.params[n], batch.u)[0])
      expected = np.mean([-np.log(1 - row[row < 0.2].sum()) for row in p])
      np.testing.assert_allclose(metrics[f'ns3l_{n}'], expected, rtol=1e-4)
      np.testing.assert_allclose(
        metrics[f'loss_{n}'], base[n] + 1.5 * expected, rtol=1e-4
      )

  @parameterized.parameters(
    (dict(selection='epmm'), "did you mean 'epm'"),
    (dict(unsupervised='crss'), "did you mean 'cross'"),
    (dict(decay=1.0), r'must be in \[0, 1\)'),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      build('dnll', tools_of(), **{**DNLL, **fields})

  @parameterized.parameters(('dnll', DNLL), ('dual_student', STUDENT))
  def test_needs_unlabeled_images(self, name, fields):
    method = build(name, tools_of(), **fields)
    state = method.init(jax.random.key(0))
    with self.assertRaisesRegex(errors.UserError, 'batch.unlabeled'):
      method.update(state, batch_of(6, 0), jax.random.key(1))


class InitTest(absltest.TestCase):
  def test_independent_networks_of_one_key(self):
    components = tools_of()._replace(ema_decay=0.9, tx=optax.sgd(0.1, 0.9))
    state = two_networks.init(components)(jax.random.key(0))
    gap = state.params['a']['w'] - state.params['b']['w']
    self.assertGreater(jnp.abs(gap).max(), 0.5)
    self.assertEqual(set(state.opt), {'a', 'b'})
    np.testing.assert_array_equal(
      state.slots['ema']['b']['w'], state.params['b']['w']
    )
    second_pass = two_networks.init(components)(jax.random.key(0))
    np.testing.assert_array_equal(
      second_pass.params['b']['w'], state.params['b']['w']
    )

  def test_each_has_its_own_momentum(self):
    components = tools_of()._replace(tx=optax.sgd(0.1, 0.9))
    method = build('dnll', components, **DNLL)
    state, batch = method.init(jax.random.key(0)), batch_of()
    state, _ = method.update(state, batch, jax.random.key(1))
    moments = {n: jax.tree.leaves(state.opt[n])[-1] for n in two_networks.NAMES}
    self.assertGreater(jnp.abs(moments['a'] - moments['b']).max(), 1e-3)


class StabilityTest(parameterized.TestCase):
  @parameterized.parameters(
    # here, there, stable at 0.6
    ([2.0, 0.0], [0.1, 0.0], True),
    ([0.1, 0.0], [2.0, 0.0], True),
    ([0.1, 0.0], [0.2, 0.0], False),
    ([2.0, 0.0], [0.0, 2.0], False),
  )
  def test_same_class_and_confident_once(self, here, there, stable):
    found = dual_student.stability(
      jnp.array([here]),
      jnp.array([[3.0, 0.0]]),
      jnp.array([there]),
      threshold=0.6,
    )
    self.assertEqual(bool(found.stable[0]), stable)
    drift = np.mean(
      (softmax(np.array([3.0, 0.0])) - softmax(np.array(there))) ** 2
    )
    np.testing.assert_allclose(found.drift[0], drift, rtol=1e-5)

  @parameterized.parameters(
    # own stable, own drift, other's stable, other's drift, learns
    (False, 0.1, False, 0.2, False),
    (False, 0.1, True, 0.2, True),
    (True, 0.1, False, 0.0, False),
    (True, 0.1, True, 0.2, False),
    (True, 0.2, True, 0.1, True),
    (True, 0.1, True, 0.1, True),
  )
  def test_who_learns(self, own, own_drift, others, other_drift, learns):
    state = lambda stable, drift: dual_student.Stability(
      jnp.array([stable]), jnp.array([drift])
    )
    found = dual_student.learns_from(
      state(own, own_drift), state(others, other_drift)
    )
    self.assertEqual(bool(found[0]), learns)


def student_by_loop(params, batch, views, name):
  """The loss of one network; `views` are what a and b learn on."""
  rival = two_networks.other(name)
  cut, rows = len(batch.x), len(views['a'])
  heads = {n: forward(params[n], views[n]) for n in two_networks.NAMES}
  away = {
    n: softmax(forward(params[n], views[two_networks.other(n)])[0])
    for n in two_networks.NAMES
  }
  here = {n: softmax(heads[n][0]) for n in two_networks.NAMES}
  second = {n: softmax(heads[n][1]) for n in two_networks.NAMES}
  total = cross_entropies(heads[name][0][:cut], batch.y).sum() / rows
  total += 0.5 * np.mean((heads[name][0] - heads[name][1]) ** 2)
  total += 3.0 * np.mean((second[name] - away[name]) ** 2)
  network_loss, untaught = 0.0, []
  for i in range(cut, rows):
    stable, drift = {}, {}
    for n in two_networks.NAMES:
      confident = max(here[n][i].max(), away[n][i].max()) > 0.5
      stable[n] = here[n][i].argmax() == away[n][i].argmax() and confident
      drift[n] = np.mean((second[n][i] - away[n][i]) ** 2)
    if stable[rival] and (not stable[name] or drift[rival] <= drift[name]):
      network_loss += np.mean((second[name][i] - here[rival][i]) ** 2)
    else:
      guess = away[rival][i].argmax()
      untaught.append(
        np.mean(
          [-np.log(1 - second[name][i][k]) for k in range(K) if k != guess]
        )
      )
  total += 5.0 * network_loss / rows
  return total, np.mean(untaught), len(untaught), rows - cut - len(untaught)


class DualStudentTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_against_a_loop(self, negatives):
    shown = []

    def view(images, key):
      shown.append(np.asarray(brighter(images, key)))
      return jnp.asarray(shown[-1])

    fields = dict(STUDENT)
    if negatives:
      fields['negatives'] = dict(count=K - 1, **WEIGHT)
    method = build('dual_student', tools_of(augment=view), **fields)
    state, batch = method.init(jax.random.key(0)), batch_of(6, 40)
    _, metrics = method.update(state, batch, jax.random.key(1))
    views = dict(zip(two_networks.NAMES, shown))
    for n in two_networks.NAMES:
      base, extra, untaught, network_loss = student_by_loop(
        state.params, batch, views, n
      )
      self.assertGreater(min(untaught, network_loss), 5)
      if negatives:
        np.testing.assert_allclose(metrics[f'dnll_{n}'], extra, rtol=1e-4)
      np.testing.assert_allclose(
        metrics[f'loss_{n}'], base + 2.0 * extra * negatives, rtol=1e-4
      )

  def test_both_passes_move_the_statistics_in_turn(self):
    """F-D20: a network's own view first, then that of the other."""
    shown = []

    def view(images, key):
      shown.append(np.asarray(brighter(images, key)))
      return jnp.asarray(shown[-1])

    method = build('dual_student', tools_of(Normed(), augment=view), **STUDENT)
    state, _ = method.update(
      method.init(jax.random.key(0)), batch_of(), jax.random.key(1)
    )
    one, two = (images.mean() for images in shown)
    self.assertGreater(abs(one - two), 0.05)
    for n, own, others in (('a', one, two), ('b', two, one)):
      np.testing.assert_allclose(
        state.stats[n]['mean'], 0.25 * own + 0.5 * others, rtol=1e-4
      )

  def test_twins_have_nothing_to_say(self):
    """Invariant 23: one network twice, one view, tied heads."""
    method = build('dual_student', tools_of(), **{**STUDENT, 'threshold': 0.3})
    state = method.init(jax.random.key(0))
    one = {**state.params['a'], 's': state.params['a']['w']}
    state = state.replace(params=dict.fromkeys(two_networks.NAMES, one))
    _, metrics = method.update(state, batch_of(), jax.random.key(1))
    for n in two_networks.NAMES:
      for name in ('consistency', 'stabilization', 'tie'):
        np.testing.assert_allclose(metrics[f'{name}_{n}'], 0, atol=1e-12)

  def test_labeled_rows_are_never_taught(self):
    method = build('dual_student', tools_of(), **STUDENT)
    state, batch = method.init(jax.random.key(0)), batch_of(6, 40)
    other = batch._replace(x=batch_of(6, 40, seed=5).x)
    values = [
      method.update(state, b, jax.random.key(1))[1] for b in (batch, other)
    ]
    self.assertGreater(values[0]['stabilization_a'], 1e-3)
    np.testing.assert_array_equal(
      values[0]['stabilization_a'], values[1]['stabilization_a']
    )

  def test_gradients_do_not_cross(self):
    components = tools_of(augment=brighter)
    weight = schedules.ramped(weight=2.0)
    loss = dual_student.dual_student_loss(
      components,
      consistency=weight,
      stabilization=weight,
      tie=0.1,
      threshold=0.5,
      negatives=dual_student._Negatives(2, weight),
    )
    state = two_networks.init(components)(jax.random.key(0))
    for n, grads in gradients(loss, state, batch_of(6, 40)).items():
      np.testing.assert_array_equal(grads[two_networks.other(n)]['w'], 0)
      self.assertGreater(jnp.abs(grads[n]['s']).max(), 1e-4)

  def test_four_passes(self):
    network = Toy()
    method = build('dual_student', tools_of(network), **STUDENT)
    state = method.init(jax.random.key(0))
    network.seen.clear()
    method.update(state, batch_of(), jax.random.key(1))
    self.assertEqual(network.seen, [(14, *SHAPE)] * 4)

  @parameterized.parameters(
    (dict(threshold=1.5), r'must be in \[0, 1\]'),
    (dict(tie=-1.0), 'tie=-1.0'),
    (dict(negatives=dict(count=0)), r'negatives\.count=0: must be >= 1'),
    (dict(negatives=dict(weigth=1.0)), r'negatives\.weigth is not an option'),
    (dict(negatives=dict(ramp='sigmod')), "did you mean 'sigmoid'"),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      build('dual_student', tools_of(), **{**STUDENT, **fields})


class CombinationTest(absltest.TestCase):
  """DNLL on Mean Teacher: the second head learns, the first is asked."""

  def test_against_a_loop(self):
    method = build(
      'mean_teacher',
      tools_of(),
      weight=10.0,
      decay=0.9,
      tie=0.5,
      **RAMP,
      terms=dict(dnll=dict(count=K - 1, **WEIGHT)),
    )
    state, batch = method.init(jax.random.key(0)), batch_of()
    teacher = {k: 0.5 * v for k, v in state.params.items()}
    state = state.replace(slots={**state.slots, 'teacher': teacher})
    _, metrics = method.update(state, batch, jax.random.key(1))
    first, second = forward(state.params, batch.u)
    p, q = softmax(second), softmax(forward(teacher, batch.u)[0])
    np.testing.assert_allclose(
      metrics['mean_teacher'], np.mean((p - q) ** 2), rtol=1e-4
    )
    each = [
      np.mean([-np.log(1 - row[k]) for k in range(K) if k != guess])
      for row, guess in zip(p, first.argmax(-1))
    ]
    np.testing.assert_allclose(metrics['dnll'], np.mean(each), rtol=1e-4)
    images = np.concatenate([batch.x, batch.u])
    one, two = forward(state.params, images)
    np.testing.assert_allclose(
      metrics['tie'], np.mean((one - two) ** 2), rtol=1e-4
    )

  def test_as_released(self):
    """Teacher and asked student see the unlabeled images alone, a term is a
    mean over these, the rest is divided by all; the asked student's pass moves
    its statistics after the first one's (F-D11)."""
    method = build(
      'mean_teacher',
      tools_of(Normed()),
      weight=10.0,
      decay=0.9,
      tie=0.01,
      second_pass_rows='unlabeled',
      **RAMP,
      terms=dict(dnll=dict(count=K - 1, **WEIGHT)),
    )
    state, batch = method.init(jax.random.key(0)), batch_of(6, 8)
    teacher = {k: 0.5 * v for k, v in state.params.items()}
    state = state.replace(slots={**state.slots, 'teacher': teacher})
    after, metrics = method.update(state, batch, jax.random.key(1))
    images = np.concatenate([batch.x, batch.u])
    alone = batch.u - np.mean(batch.u)
    first, second = forward(state.params, images - images.mean())
    p, q = softmax(second[6:]), softmax(forward(teacher, alone)[0])
    guesses = forward(state.params, alone)[0].argmax(-1)
    known = cross_entropies(first[:6], batch.y).sum() / 14
    follows = np.mean((p - q) ** 2)
    each = np.mean(
      [
        [-np.log(1 - row[k]) for k in range(K) if k != guess]
        for row, guess in zip(p, guesses)
      ]
    )
    tie = np.mean((first - second) ** 2)
    np.testing.assert_allclose(metrics['mean_teacher'], follows, rtol=1e-4)
    np.testing.assert_allclose(metrics['dnll'], each, rtol=1e-4)
    np.testing.assert_allclose(
      metrics['loss'],
      known + 0.01 * tie + 10.0 * follows + 2.0 * each,
      rtol=1e-4,
    )
    joint = softmax(forward(teacher, images - images.mean())[0])[6:]
    self.assertGreater(np.abs(joint - q).max(), 0.01)
    np.testing.assert_allclose(
      after.stats['mean'],
      0.25 * images.mean() + 0.5 * np.mean(batch.u),
      rtol=1e-4,
    )

  def test_a_teacher_that_is_asked_moves_no_statistics(self):
    term = dict(count=1, source='teacher', **WEIGHT)
    method = build(
      'mean_teacher',
      tools_of(Normed()),
      weight=10.0,
      decay=0.9,
      second_pass_rows='unlabeled',
      terms=dict(dnll=term),
      **RAMP,
    )
    batch = batch_of()
    after, _ = method.update(
      method.init(jax.random.key(0)), batch, jax.random.key(1)
    )
    np.testing.assert_allclose(
      after.stats['mean'],
      0.5 * np.concatenate([batch.x, batch.u]).mean(),
      rtol=1e-4,
    )

  def test_the_teacher_may_be_asked(self):
    fields = dict(weight=10.0, decay=0.9, **RAMP)
    term = dict(count=K - 1, source='teacher', **WEIGHT)
    method = build('mean_teacher', tools_of(), terms=dict(dnll=term), **fields)
    state, batch = method.init(jax.random.key(0)), batch_of()
    teacher = {k: -v for k, v in state.params.items()}
    state = state.replace(slots={**state.slots, 'teacher': teacher})
    _, metrics = method.update(state, batch, jax.random.key(1))
    p = softmax(forward(state.params, batch.u)[1])
    guesses = forward(teacher, batch.u)[0].argmax(-1)
    each = [
      np.mean([-np.log(1 - row[k]) for k in range(K) if k != guess])
      for row, guess in zip(p, guesses)
    ]
    np.testing.assert_allclose(metrics['dnll'], np.mean(each), rtol=1e-4)

  def test_no_teacher_to_ask(self):
    term = dict(count=1, source='teacher', **WEIGHT)
    method = build('supervised', tools_of(), terms=dict(dnll=term))
    state = method.init(jax.random.key(0))
    with self.assertRaisesRegex(errors.UserError, 'needs the method mean_t'):
      method.update(state, batch_of(), jax.random.key(1))


if __name__ == '__main__':
  absltest.main()
