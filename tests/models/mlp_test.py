"""The perceptron: values, dropout, precision, and the choice of a network."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from model_helpers import count, evaluate, initial, noisy, shapes, values

from nsl_jax import errors, models

SMALL = {'name': 'mlp', 'hidden': 8}


def features(batch, size, seed=0):
  """f32[B, 1, 1, size]."""
  x = np.random.default_rng(seed).normal(size=(batch, 1, 1, size))
  return x.astype(np.float32)


class MLPTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, (1, 1, 20), 20 * 256 + 256 + 256 * 256 + 256 + 256 * 3 + 3),
    ({'hidden': 8}, (1, 1, 20), 20 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3),
    ({'hidden': 8, 'layers': 1}, (1, 1, 20), 20 * 8 + 8 + 8 * 3 + 3),
    ({'hidden': 8, 'layers': 1}, (2, 5, 2), 20 * 8 + 8 + 8 * 3 + 3),
  )
  def test_parameters(self, fields, shape, expected):
    params, stats = shapes(models.build({'name': 'mlp', **fields}, 3), shape)
    self.assertEqual(count(params), expected)
    self.assertEqual(stats, {})

  def test_written_out(self):
    model = models.build(SMALL, 3)
    params, _ = values(model, (1, 1, 20))
    params = noisy(params, 1)
    x = features(4, 20)
    outputs = evaluate(model, params, {}, x)
    h = x.reshape(4, 20)
    for layer in ('Dense_0', 'Dense_1'):
      h = h @ params[layer]['kernel'] + params[layer]['bias'][None]
      h = np.maximum(h, 0)
    head = params['Dense_2']
    logits = h @ head['kernel'] + head['bias'][None]
    np.testing.assert_allclose(outputs.features, h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(outputs.consistency, outputs.logits)
    flat = x.reshape(4, 2, 5, 2)  # the pixels of an image, in order
    same = evaluate(model, params, {}, flat)
    np.testing.assert_array_equal(same.logits, outputs.logits)

  def test_initial_values(self):
    model = models.build({'name': 'mlp', 'hidden': 64}, 100)
    params = initial(model, (1, 1, 50), 'Dense_0', 'Dense_2')
    for name, variance in (('Dense_0', 2 / 50), ('Dense_2', 2 / 164)):
      kernel = params[name]['kernel']
      self.assertAlmostEqual(kernel.std() / variance**0.5, 1, delta=0.06)
      np.testing.assert_array_equal(params[name]['bias'], 0)

  def test_gradients_are_finite(self):
    model = models.build(SMALL, 3)
    params, _ = values(model, (1, 1, 20))
    x = features(4, 20)

    def loss(params, x):
      return (model.apply(params, {}, x, train=True)[0].logits ** 2).sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss, (0, 1)))(params, x)):
      self.assertTrue(np.isfinite(leaf).all())
      self.assertGreater(np.abs(leaf).max(), 0)

  def test_dropout_follows_the_key(self):
    model = models.build({**SMALL, 'dropout': 0.5}, 3)
    params, _ = values(model, (1, 1, 20))
    x = features(4, 20)
    train = lambda key: model.apply(params, {}, x, train=True, key=key)[0]
    first, again, other = (train(jax.random.key(n)) for n in (1, 1, 2))
    np.testing.assert_array_equal(first.logits, again.logits)
    self.assertGreater(np.abs(first.logits - other.logits).max(), 1e-3)
    # What is dropped is zero in the features; the head sees just these.
    self.assertGreater((np.asarray(first.features) == 0).mean(), 0.5)
    still = train(None)
    plain = model.apply(params, {}, x, train=False)[0]
    np.testing.assert_array_equal(still.logits, plain.logits)

  def test_bfloat16(self):
    params, _ = values(models.build(SMALL, 3), (1, 1, 20))
    x = features(4, 20)
    rough = evaluate(
      models.build(SMALL, 3, precision='bfloat16'), params, {}, x
    )
    fine = evaluate(models.build(SMALL, 3), params, {}, x)
    for leaf in rough:
      self.assertEqual(leaf.dtype, jnp.float32)
    difference = np.abs(rough.logits - fine.logits).max()
    self.assertGreater(difference, 0)
    self.assertLess(difference, 0.1 * np.abs(fine.logits).max())

  @parameterized.parameters(
    ({'hidden': 0}, 'mlp: hidden=0: must be >= 1'),
    ({'layers': 0}, 'mlp: layers=0: must be >= 1'),
    ({'dropout': 1.0}, r'mlp: dropout=1.0: must be in \[0, 1\)'),
  )
  def test_rejects(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      models.build({'name': 'mlp', **fields}, 3)
    module = models.NETWORKS['mlp'](num_classes=3, **fields)
    with self.assertRaisesRegex(errors.UserError, message):
      module.init(jax.random.key(0), features(1, 4), train=False)


class ChooseTest(parameterized.TestCase):
  @parameterized.parameters(
    ((1, 1, 784), 'mlp', {}),
    ((1, 100, 1), 'mlp', {}),
    ((3, 64, 3), 'mlp', {}),
    ((4, 4, 3), 'small_cnn', {}),
    ((8, 8, 1), 'small_cnn', {}),
    ((23, 64, 3), 'small_cnn', {}),
    ((28, 28, 1), 'small_cnn', {}),
    ((32, 32, 1), 'small_cnn', {}),
    ((24, 24, 3), 'wide_resnet', {}),
    ((32, 32, 3), 'wide_resnet', {}),
    ((33, 33, 1), 'wide_resnet', {}),
    ((48, 48, 3), 'wide_resnet', {}),
    ((49, 80, 3), 'wide_resnet', {'stages': 4}),
    ((64, 64, 1), 'wide_resnet', {'stages': 4}),
    ((64, 300, 3), 'wide_resnet', {'stages': 4}),
    ((65, 65, 3), 'resnet18', {'norm': 'batch'}),
    ((224, 224, 3), 'resnet18', {'norm': 'batch'}),
  )
  def test_names_the_network(self, shape, name, options):
    choice = models.choose(shape)
    self.assertEqual((choice.name, choice.options), (name, options))
    self.assertStartsWith(choice.reason, f'{name} ')
    self.assertNotIn('\n', choice.reason)

  @parameterized.parameters(
    ((1, 1, 20), 'mlp'),
    ((28, 28, 1), 'small_cnn'),
    ((32, 32, 3), 'small_cnn'),
    ((33, 64, 3), 'resnet18'),
    ((224, 224, 3), 'resnet18'),
  )
  def test_a_cpu_gets_a_narrow_network(self, shape, name):
    choice = models.choose(shape, accelerator=False)
    self.assertEqual(choice.name, name)
    if name == 'resnet18':
      self.assertEqual(choice.options, {'width': 0.25, 'norm': 'batch'})
      self.assertIn('on a CPU', choice.reason)

  @parameterized.parameters(
    ((1, 3, 1),), ((4, 4, 3),), ((24, 25, 3),), ((49, 50, 1),), ((65, 66, 3),)
  )
  def test_takes_them_at_the_least_size(self, shape):
    choice = models.choose(shape)
    model = models.build({'name': choice.name, **choice.options}, 3)
    params, _ = shapes(model, shape)
    self.assertLess(count(params), 12_000_000)


if __name__ == '__main__':
  absltest.main()
