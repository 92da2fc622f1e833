"""Two networks side by side: DNLL and Dual Student against loops."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from two_heads import (
  SHAPE,
  STUDENT,
  WEIGHT,
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
from nsl_jax.methods import dual_student


def brighter(images, key):
  """One number is added to all images of a call."""
  return images + jax.random.uniform(key)


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
        np.testing.assert_allclose(metrics[f'negatives_{n}'], extra, rtol=1e-4)
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


if __name__ == '__main__':
  absltest.main()
