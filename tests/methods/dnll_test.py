"""DNLL against loops: two networks that teach one another by negatives."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from two_heads import (
  DNLL,
  RAMP,
  SHAPE,
  STUDENT,
  K,
  Normed,
  Toy,
  batch_of,
  build,
  cross_entropies,
  forward,
  gradients,
  softmax,
  tools_of,
)

from nsl_jax import errors, schedules
from nsl_jax.compose import two_networks
from nsl_jax.methods import dnll


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
    """F-D20: half of the way to the batch trained on, then to the weak one."""
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


if __name__ == '__main__':
  absltest.main()
