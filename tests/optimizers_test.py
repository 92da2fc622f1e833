"""Optimizers: by hand over several steps, and refused in one line."""

import runpy
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl.testing import absltest, parameterized

from nsl_jax import errors, optimizers
from nsl_jax.training import config as config_lib

common = types.SimpleNamespace(
  **runpy.run_path(str(config_lib.root() / 'configs' / 'common.py'))
)
SGD = dict(
  name='sgd',
  lr=0.03,
  momentum=0.9,
  nesterov=True,
  weight_decay=5e-4,
  cosine_steps=0,
)


class AdamTest(absltest.TestCase):
  def test_by_hand_with_a_drop(self):
    """Betas (0.9, 0.999), epsilon 1e-8 outside the root, rate by step."""
    tx = optimizers.build(
      {'name': 'adam', 'lr': 0.1, 'drop_steps': 2, 'drop_factor': 0.2}
    )
    params = jnp.array([5.0, -5.0])  # would show a decay of the weights
    state = tx.init(params)
    m = v = np.zeros(2)
    grads = [np.array(g) for g in ([1, 1e-8], [-2, 1e-8], [3, 0], [0.5, 0])]
    for t, (grad, rate) in enumerate(zip(grads, (0.1, 0.1, 0.02, 0.02)), 1):
      m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
      root = np.sqrt(v / (1 - 0.999**t))
      expected = -rate * m / (1 - 0.9**t) / (root + 1e-8)
      change, state = tx.update(jnp.asarray(grad, jnp.float32), state, params)
      np.testing.assert_allclose(change, expected, rtol=1e-4)


class KernelsTest(parameterized.TestCase):
  @parameterized.parameters(('kernels', 0.0), ('all', 0.02))
  def test_what_decays(self, where, moved):
    """Without a gradient p falls by rate * decay * (1 + momentum) p."""
    tx = optimizers.build(
      dict(SGD, lr=0.1, weight_decay=0.2, nesterov=False, weight_decay_on=where)
    )
    params = {'Conv_0': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}}
    params['BatchNorm_0'] = {'scale': jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    change, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(change['Conv_0']['kernel'], -0.02)
    for leaf in (change['Conv_0']['bias'], change['BatchNorm_0']['scale']):
      np.testing.assert_allclose(leaf, -moved)


class SgdTest(parameterized.TestCase):
  def gradient_step(self, config, curvature, start, steps):
    """The way down curvature * p^2 / 2, as p after each step."""
    tx = optimizers.build(config)
    params = {
      'kernel': jnp.asarray(start, jnp.float32),
      'bias': jnp.asarray(-start, jnp.float32),
    }
    state, found = tx.init(params), []
    step = jax.jit(
      lambda params, state: tx.update(
        jax.tree.map(lambda p: curvature.astype(np.float32) * p, params),
        state,
        params,
      )
    )
    for _ in range(steps):
      change, state = step(params, state)
      params = optax.apply_updates(params, change)
      found.append(np.concatenate([params['kernel'], params['bias']]))
    return np.stack(found)

  @parameterized.product(
    nesterov=(True, False),
    momentum=(0.9, 0.0),
    decay=(0.0, 0.1),
    cosine=(0, 12),
  )
  def test_by_hand(self, nesterov, momentum, decay, cosine):
    """torch's SGD: the decay joins the gradient before the momentum."""
    curvature, start = np.array([1.0, 3.0, 0.0]), np.array([2.0, -1.0, 4.0])
    p, v, expected = np.concatenate([start, -start]), np.zeros(6), []
    for t in range(15):
      grad = np.tile(curvature, 2) * p + decay * p
      v = momentum * v + grad
      rate = 0.1
      if cosine:
        rate *= (1 + np.cos(np.pi * min(t, cosine) / cosine)) / 2
      p = p - rate * (grad + momentum * v if nesterov else v)
      expected.append(p)
    config = dict(
      SGD,
      lr=0.1,
      momentum=momentum,
      nesterov=nesterov,
      weight_decay=decay,
      cosine_steps=cosine,
    )
    found = self.gradient_step(config, curvature, start, 15)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if cosine:
      np.testing.assert_array_equal(found[12:], found[[11, 11, 11]])

  def test_drops_like_any_other(self):
    config = dict(
      SGD, momentum=0.0, weight_decay=0.0, lr=0.1, drop_steps=2, drop_factor=0.1
    )
    found = self.gradient_step(config, np.ones(1), np.ones(1), 3)[:, 0]
    np.testing.assert_allclose(found, [0.9, 0.81, 0.81 * 0.99], rtol=1e-5)

  def test_from_a_config(self):
    config = common.base('digits', steps=640)
    common.sgd(config, lr=0.03, weight_decay=5e-4)
    self.assertEqual(config.optimizer.to_dict(), dict(SGD, cosine_steps=640))
    config.lock()
    optimizers.build(config.optimizer)
    common.sgd(
      config,
      lr=0.1,
      weight_decay=0.0,
      nesterov=False,
      momentum=0.5,
      cosine_steps=0,
    )
    self.assertEqual(
      config.optimizer.to_dict(),
      dict(SGD, lr=0.1, weight_decay=0.0, nesterov=False, momentum=0.5),
    )

  def test_a_shorter_run_ends_its_cosine(self):
    arg = common.parse('reduced=77')
    config = common.base('digits', steps=640)
    common.sgd(config, lr=0.03, weight_decay=5e-4)
    config = common.finish(config, arg)
    self.assertEqual((config.steps, config.optimizer.cosine_steps), (77, 77))


class DefaultsTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'name': 'adam'}, {'name': 'adam', 'lr': 1e-3}),
    (
      {'name': 'sgd', 'drop_steps': 2},
      dict(
        name='sgd',
        lr=1e-3,
        momentum=0.9,
        nesterov=True,
        weight_decay=0.0,
        drop_steps=2,
        drop_factor=0.2,
      ),
    ),
  )
  def test_missing_fields(self, config, complete):
    """They have the values that `options_of` tells."""
    known = optimizers.options_of(config['name'])
    for name, value in complete.items():
      if name not in config:
        self.assertEqual(known[name].default, value)
    grad, params = jnp.array([1.0, -3.0]), jnp.array([5.0, -5.0])
    for tx in map(optimizers.build, (config, complete)):
      state, found = tx.init(params), []
      for _ in range(4):
        change, state = tx.update(grad, state, params)
        found.append(change)
      if config['name'] == 'adam':
        np.testing.assert_allclose(found[0], [-1e-3, 1e-3], rtol=1e-4)
      else:  # 1.9, 2.71, then a fifth of 3.439 and 4.0951
        np.testing.assert_allclose(
          np.stack(found)[:, 0],
          [-1.9e-3, -2.71e-3, -6.878e-4, -8.1902e-4],
          rtol=1e-5,
        )

  def test_options_are_those_of_the_rate_and_of_the_optimizer(self):
    rate = [
      'cosine',
      'cosine_lag_steps',
      'cosine_steps',
      'drop_factor',
      'drop_steps',
      'lr',
    ]
    self.assertCountEqual(optimizers.options_of('adam'), rate)
    self.assertCountEqual(
      optimizers.options_of('sgd'),
      [*rate, 'momentum', 'nesterov', 'weight_decay', 'weight_decay_on'],
    )


class RefusalTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'name': 'adm'}, "unknown optimizer 'adm': did you mean 'adam'"),
    ({'name': 'sgdd'}, "unknown optimizer 'sgdd': did you mean 'sgd'"),
    (
      {'name': 'adam', 'lr': 0.1, 'drop_step': 5},
      "optimizer.drop_step is not an option: did you mean 'drop_steps'",
    ),
    (
      {'name': 'adam', 'lr': 0.1, 'momentum': 0.9},
      'optimizer.momentum is not an option: known: cosine, .*, lr$',
    ),
    (dict(SGD, moment=0.1), "moment is not an option: did you mean 'momentum'"),
    (dict(SGD, nesterov=1), 'optimizer.nesterov=1: must be true or false'),
    (dict(SGD, lr='fast'), "optimizer.lr='fast': must be a number"),
    (dict(SGD, cosine_steps=2.5), 'cosine_steps=2.5: must be a whole number'),
    (dict(SGD, lr=float('nan')), 'optimizer.lr=nan: must be >= 0'),
    (dict(SGD, lr=-0.1), 'optimizer.lr=-0.1: must be >= 0'),
    (dict(SGD, momentum=1.0), r'momentum=1.0: must be in \[0, 1\)'),
    (dict(SGD, momentum=-0.1), 'momentum=-0.1: must be in'),
    (dict(SGD, weight_decay=-1.0), 'weight_decay=-1.0: must be >= 0'),
    (
      dict(SGD, drop_steps=(3, -2), drop_factor=0.1),
      r'drop_steps=\(3, -2\): must be a step or a tuple',
    ),
    (dict(SGD, cosine_steps=-1), 'cosine_steps=-1: must be >= 0'),
    (dict(SGD, cosine_lag_steps=5), 'cosine_lag_steps=5 shifts a cosine'),
    (
      dict(SGD, cosine_steps=9, cosine_lag_steps=-1),
      'cosine_lag_steps=-1: must be >= 0',
    ),
    (
      dict(SGD, cosine_steps=9, drop_steps=3, drop_factor=0.1),
      'drop_steps=3 and cosine_steps=9: set one of them to 0',
    ),
  )
  def test_in_one_line(self, config, message):
    for same in (config, ml_collections.ConfigDict(config)):
      with self.assertRaisesRegex(errors.UserError, message) as e:
        optimizers.build(same)
      self.assertNotIn('\n', str(e.exception))


if __name__ == '__main__':
  absltest.main()
