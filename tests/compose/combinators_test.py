"""Combinators: losses add, updates follow one another, averages move."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from flax import linen as nn
from linear_toy import make_batch, make_state, make_tools
from model_helpers import TINY, quick_jit, values

from nsl_jax import errors, models
from nsl_jax.compose import combinators
from nsl_jax.models import layers
from nsl_jax.types import Aux, Components, State, TermInputs


def quadratic(params, state, batch, key):
  """A loss with gradient w - 1 that moves statistics, a slot and a metric."""
  value = 0.5 * ((params['w'] - 1.0) ** 2).sum()
  inputs = TermInputs(
    batch.u.reshape(batch.u.shape[0], -1) @ params['w'],
    target_probs=jnp.zeros((batch.u.shape[0], 3)),
    normalizer=10,
  )
  aux = Aux(
    inputs,
    stats={'passes': state.stats['passes'] + 1},
    slots={**state.slots, 'seen': batch.u_index},
    metrics={'half': value / 2},
  )
  return value, aux


class AddTermsTest(absltest.TestCase):
  def test_without_terms_it_is_the_loss(self):
    self.assertIs(combinators.add_terms(quadratic, {}), quadratic)

  def test_names_of_metrics_are_not_taken_twice(self):
    state, batch = make_state(), make_batch()
    ones = lambda inputs, batch, key: jnp.ones(batch.u.shape[0])
    for name in ('half', 'loss'):
      loss = combinators.add_terms(quadratic, {name: (lambda step: 1.0, ones)})
      with self.assertRaisesRegex(errors.UserError, f'like the term .{name}.'):
        loss(state.params, state, batch, jax.random.key(0))

  def test_base_plus_weighted_terms(self):
    """Invariant 13: the rows of a term are summed and divided by the total."""
    terms = {
      'first': (
        lambda step: 3.0,
        lambda inputs, batch, key: inputs.logits_u[:, 0],
      ),
      'second': (
        lambda step: 0.5 * step,
        lambda inputs, batch, key: jnp.ones(batch.u.shape[0]),
      ),
    }
    loss = combinators.add_terms(quadratic, terms)
    state, batch = make_state(), make_batch()
    state = state.replace(step=jnp.array(4))
    base, before = quadratic(state.params, state, batch, jax.random.key(0))
    value, aux = loss(state.params, state, batch, jax.random.key(0))
    first = before.inputs.logits_u[:, 0].sum() / 10
    # Logged as means over a term's own rows.
    np.testing.assert_allclose(aux.metrics['first'], first * 10 / 3, rtol=1e-6)
    np.testing.assert_allclose(aux.metrics['second'], 1.0, rtol=1e-6)
    np.testing.assert_allclose(aux.metrics['first_weight'], 3.0)
    np.testing.assert_allclose(value, base + 3.0 * first + 2.0 * 0.3, rtol=1e-6)
    np.testing.assert_array_equal(aux.metrics['half'], before.metrics['half'])
    self.assertNotIn('first', before.metrics)
    self.assertEqual(aux.stats, before.stats)

  def test_each_part_has_its_own_key(self):
    keys = []

    def remember(inputs, batch, key):
      keys.append(jax.random.key_data(key).tolist())
      return jnp.zeros(3)

    def loss(params, state, batch, key):
      keys.append(jax.random.key_data(key).tolist())
      return quadratic(params, state, batch, key)

    total = combinators.add_terms(
      loss, {name: (lambda step: 1.0, remember) for name in 'ab'}
    )
    state = make_state()
    total(state.params, state, make_batch(), jax.random.key(0))
    self.assertLen({tuple(key) for key in keys}, 3)


class DescendTest(parameterized.TestCase):
  def test_against_the_gradient(self):
    state, batch = make_state(), make_batch()
    update = combinators.gradient_step(quadratic, optax.sgd(0.25))
    moved, metrics = update(state, batch, jax.random.key(0))
    before = np.asarray(state.params['w'])
    np.testing.assert_allclose(
      moved.params['w'], before - 0.25 * (before - 1.0), rtol=1e-5
    )
    np.testing.assert_allclose(
      metrics['loss'], 0.5 * ((before - 1.0) ** 2).sum(), rtol=1e-6
    )
    np.testing.assert_allclose(metrics['half'], metrics['loss'] / 2)
    self.assertEqual(moved.stats['passes'], 1)
    np.testing.assert_array_equal(moved.slots['seen'], batch.u_index)
    self.assertEqual(moved.step, state.step)  # the loop's business
    self.assertEqual(moved.key, state.key)

  def test_optimizer_remembers(self):
    """Two steps of momentum: g, then g' + 0.5 g."""
    components = make_tools(optax.sgd(0.1, momentum=0.5))
    state, batch = make_state(components), make_batch()
    update = combinators.gradient_step(quadratic, components.tx)
    w = np.asarray(state.params['w'])
    trace = 0.0
    for seed in range(2):
      state, _ = update(state, batch, jax.random.key(seed))
      trace = (w - 1.0) + 0.5 * trace
      w = w - 0.1 * trace
    np.testing.assert_allclose(state.params['w'], w, rtol=1e-5)

  @parameterized.parameters(0.5, 100.0)
  def test_adam_ignores_the_scale_of_the_loss(self, scale):
    """Invariant 13: the common factor of family O is immaterial (F-N3)."""
    components = make_tools(optax.adam(0.01))

    def scaled(*args):
      value, aux = quadratic(*args)
      return scale * value, aux

    ends = []
    for loss in quadratic, scaled:
      state, update = (
        make_state(components),
        combinators.gradient_step(loss, components.tx),
      )
      for seed in range(3):
        state, _ = update(state, make_batch(), jax.random.key(seed))
      ends.append(np.asarray(state.params['w']))
    self.assertGreater(np.abs(ends[0] - make_state().params['w']).min(), 0.02)
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-6)


class FollowTest(parameterized.TestCase):
  @parameterized.parameters(0.9, 0.999, 0.0)
  def test_closed_form(self, decay):
    """Invariant 11: a^n old + (1 - a^n) new while the weights rest."""
    state = make_state()
    old = jnp.full_like(state.params['w'], 2.0)
    state = state.replace(
      slots={'teacher': {'w': old}, 'other': jnp.array(7.0)}
    )
    update = combinators.ema_update('teacher', decay)
    for seed in range(5):
      state, metrics = update(state, make_batch(), jax.random.key(seed))
      self.assertEqual(metrics, {})
    share = decay**5
    np.testing.assert_allclose(
      state.slots['teacher']['w'],
      share * old + (1 - share) * state.params['w'],
      rtol=1e-5,
      atol=1e-6,
    )
    self.assertEqual(state.slots['other'], 7.0)
    np.testing.assert_array_equal(state.params['w'], make_state().params['w'])


class ShrinkTest(parameterized.TestCase):
  @parameterized.parameters(*TINY)
  def test_every_weight_if_asked(self, name):
    """F-L21: as L2I's code has it."""
    params, _ = values(models.build(TINY[name], 4), (12, 12, 3))
    rate = optax.constant_schedule(2e-3)
    state = make_state().replace(params=params)
    after, _ = combinators.decoupled_weight_decay(0.02, rate, on='all')(
      state, make_batch(), jax.random.key(0)
    )
    factor = np.float32(1 - 4e-5)
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(after.params)):
      np.testing.assert_array_equal(new, factor * old)

  @parameterized.parameters(*TINY)
  def test_without_gradients(self, name):
    """Invariant 18: kernels times exactly 1 - 4e-5; biases, batch norm and
    the average, which has moved before, stay as they are.
    """
    model = models.build(TINY[name], 4)
    params, stats = values(model, (12, 12, 3))
    components = make_tools(
      optax.adam(2e-3),
      ema_decay=0.5,
      weight_decay=0.02,
      learning_rate=optax.constant_schedule(2e-3),
    )
    state = make_state().replace(
      params=params,
      stats=stats,
      opt=components.tx.init(params),
      slots={combinators.EMA: params},
    )

    def flat(params, state, batch, key):
      aux = quadratic({'w': jnp.ones((4, 3))}, state, batch, key)[1]
      return jnp.zeros(()), aux._replace(stats=state.stats, slots=state.slots)

    state = state.replace(stats={'passes': jnp.zeros(())})
    after, _ = quick_jit(combinators.train_on(flat, components))(
      state, make_batch(), jax.random.key(0)
    )
    shrunk = []
    for (path, old), new, average in zip(
      jax.tree_util.tree_leaves_with_path(params),
      jax.tree.leaves(after.params),
      jax.tree.leaves(after.slots[combinators.EMA]),
    ):
      kernel = path[-1].key in ('kernel', 'v')
      self.assertEqual(kernel, old.ndim > 1, path)
      factor = np.float32(1 - 4e-5) if kernel else np.float32(1)
      np.testing.assert_array_equal(new, factor * old)
      np.testing.assert_array_equal(average, old)
      shrunk.append(kernel)
    self.assertGreater(sum(shrunk), 2)
    self.assertGreater(len(shrunk) - sum(shrunk), 2)


class SequenceTest(absltest.TestCase):
  def test_order_keys_and_metrics(self):
    keys = []

    def part(name, factor, offset):
      def update(state, batch, key):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        moved = jax.tree.map(lambda w: factor * w + offset, state.params)
        return state.replace(params=moved), {name: factor, 'last': name}

      return update

    state = make_state()
    update = combinators.sequence(part('a', 2.0, 0.0), part('b', 1.0, 5.0))
    moved, metrics = update(state, make_batch(), jax.random.key(0))
    np.testing.assert_allclose(
      moved.params['w'], 2.0 * state.params['w'] + 5.0, rtol=1e-6
    )
    self.assertEqual(metrics, {'a': 2.0, 'b': 1.0, 'last': 'b'})
    self.assertLen(set(keys), 2)


class StockTest(absltest.TestCase):
  def test_initial_state(self):
    components = make_tools(optax.adam(0.1), ema_decay=0.9)
    state = make_state(components)
    self.assertIsInstance(state, State)
    self.assertEqual((state.step, state.step.dtype), (0, jnp.int32))
    np.testing.assert_array_equal(
      state.slots[combinators.EMA]['w'], state.params['w']
    )
    self.assertEqual(make_state().slots, {})
    other = make_state(components, seed=1)
    self.assertGreater(
      np.abs(other.params['w'] - state.params['w']).max(), 0.01
    )
    self.assertFalse((other.key == state.key).any())

  def test_average_moves_after_the_step(self):
    components = make_tools(ema_decay=0.75)
    state = make_state(components)
    moved, metrics = combinators.train_on(quadratic, components)(
      state, make_batch(), jax.random.key(0)
    )
    before = np.asarray(state.params['w'])
    after = before - 0.1 * (before - 1.0)
    np.testing.assert_allclose(moved.params['w'], after, rtol=1e-5)
    np.testing.assert_allclose(
      moved.slots[combinators.EMA]['w'], 0.75 * before + 0.25 * after, rtol=1e-5
    )
    self.assertIn('loss', metrics)
    self.assertEqual(moved.stats['passes'], 1)

  def test_state_can_be_donated(self):
    """The average starts as a copy: no buffer is there twice."""
    components = make_tools(ema_decay=0.75)

    def loss(*args):
      value, aux = quadratic(*args)
      return value, aux._replace(slots=args[1].slots)

    update = jax.jit(combinators.train_on(loss, components), donate_argnums=0)
    moved, _ = update(make_state(components), make_batch(), jax.random.key(0))
    self.assertTrue(np.isfinite(moved.slots[combinators.EMA]['w']).all())

  def test_predicts_with_the_average_if_there_is_one(self):
    images = make_batch().x
    flat = images.reshape(4, -1)
    for decay in 0.0, 0.5:
      components = make_tools(ema_decay=decay)
      state = make_state(components)
      average = {'w': jnp.ones((4, 3))}
      state = state.replace(slots={combinators.EMA: average})
      logits = combinators.predict_with_ema(components)(state, images)
      evaluated = average if decay else state.params
      np.testing.assert_allclose(logits, flat @ evaluated['w'], rtol=1e-5)


class OtherNorm(nn.Module):
  """A network with two norms of flax beside one of this library."""

  num_classes: int
  momentum: float = 0.99

  @nn.compact
  def __call__(self, x, train):
    norm = nn.BatchNorm(use_running_average=not train, momentum=self.momentum)
    x = layers.BatchNorm(0.9, 1e-5)(norm(x), train=train)
    x = x.reshape(x.shape[0], -1)
    dense = nn.SpectralNorm(nn.Dense(self.num_classes))
    return dense(x, update_stats=train)


class BatchStatisticsTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.5, 0.99, 0.999)
  def test_of_a_norm_from_elsewhere(self, momentum):
    """Those of the batch, whatever the momentum and the statistics so far."""
    model = models.build(
      {'name': f'{__name__}:OtherNorm', 'momentum': momentum}, 3
    )
    images = 5.0 + 7.0 * jax.random.normal(jax.random.key(0), (32, 4, 4, 2))
    components = Components(
      model=model,
      tx=optax.sgd(0.1),
      augment=lambda images, key: images,
      image_shape=(4, 4, 2),
    )
    params, stats = model.init(jax.random.key(1), (4, 4, 2))
    found = combinators.batch_statistics(
      components, params, stats, images, jax.random.key(2)
    )
    spectral = found.pop('SpectralNorm_0')
    for name, value in spectral.items():
      self.assertGreater(np.abs(value).max(), 0.0, name)
    for norm in found.values():
      wanted = (images.mean((0, 1, 2)), images.var((0, 1, 2)))
      if 'count' in norm:
        wanted = jnp.zeros(2), jnp.ones(2)
      for value, want in zip((norm['mean'], norm['var']), wanted, strict=True):
        np.testing.assert_allclose(value, want, rtol=2e-3, atol=1e-4)
    self.assertLen(found, 2)


if __name__ == '__main__':
  absltest.main()
