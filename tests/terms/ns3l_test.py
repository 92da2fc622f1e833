"""NS3L as a term: negatives by target probabilities, gradients, passes."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from term_inputs import LOGITS, NEGATIVE, PROBS, THRESHOLD, rows, shared

from nsl_jax import errors, losses, terms
from nsl_jax.terms import negative_samplers


class NS3LTest(parameterized.TestCase):
  def test_one_pass(self):
    """Algorithm 1: negatives and probabilities from the same pass."""
    term = terms.build('ns3l', passes=1, **THRESHOLD)
    refused = lambda key: self.fail('one pass must not run a second one')
    value = term(shared(second_pass=refused), rows(), jax.random.key(0))
    np.testing.assert_allclose(
      value, losses.negative_sampling_loss(LOGITS, NEGATIVE), rtol=1e-6
    )

  def test_two_passes(self):
    """F-N2: negatives from the first pass, probabilities from another one."""
    views = []

    def second_pass(key):
      views.append(key)
      return LOGITS + jax.random.normal(key, LOGITS.shape)

    term = terms.build('ns3l', passes=2, **THRESHOLD)
    value = term(shared(second_pass=second_pass), rows(), jax.random.key(0))
    self.assertLen(views, 1)
    second = LOGITS + jax.random.normal(jax.random.clone(views[0]), (2, 4))
    np.testing.assert_allclose(
      value, losses.negative_sampling_loss(second, NEGATIVE), rtol=1e-6
    )
    term(shared(second_pass=second_pass), rows(), jax.random.key(1))
    self.assertNotEqual(*(jax.random.key_data(k).tolist() for k in views))

  @parameterized.parameters(1, 2)
  def test_gradient(self, passes):
    """Invariant 6: through the pass that gives p, not through the targets."""
    term = terms.build('ns3l', passes=passes, **THRESHOLD)

    def total(first, second, target_probs):
      aux = shared(first, target_probs, lambda key: second)
      return term(aux, rows(), jax.random.key(0)).sum()

    found = jax.grad(total, (0, 1, 2))(LOGITS, LOGITS, PROBS)
    expected = jax.grad(
      lambda z: losses.negative_sampling_loss(z, NEGATIVE).sum()
    )(LOGITS)
    for grad, used in zip(found, (passes == 1, passes == 2, False)):
      np.testing.assert_allclose(grad, used * expected, rtol=1e-6, atol=1e-7)

  def test_second_pass_without_one(self):
    term = terms.build('ns3l', passes=2, **THRESHOLD)
    with self.assertRaisesRegex(errors.UserError, 'set terms.ns3l.passes=1'):
      term(shared(), rows(), jax.random.key(0))

  @parameterized.parameters(
    (0, r'passes=0: must be in \[1, 2\]'),
    (3, r'passes=3: must be in \[1, 2\]'),
    ('1', "passes='1': must be a whole number"),
    (1.5, 'passes=1.5: must be a whole number'),
  )
  def test_number_of_passes(self, passes, message):
    with self.assertRaisesRegex(errors.UserError, f'ns3l {message}'):
      terms.build('ns3l', passes=passes, **THRESHOLD)

  def test_sampler_sees_the_side_tables(self):
    distance = jnp.array([[1.0, 2.0, 9.0, 3.0], [8.0, 0.0, 1.0, 2.0]])
    term = terms.build('ns3l', sampler='furthest', passes=1)
    value = term(
      shared(), rows({negative_samplers.DISTANCE: distance}), jax.random.key(0)
    )
    probs = jax.nn.softmax(LOGITS)
    expected = -np.log1p(-np.array([probs[0, 2], probs[1, 0]]))
    np.testing.assert_allclose(value, expected, rtol=1e-5)

  def test_negatives_are_drawn_anew_with_each_key(self):
    """F-N17: the drawn class shows in the value, -log(1 - p_j)."""
    term = jax.jit(
      lambda key: terms.build('ns3l', sampler='uniform', count=1, passes=1)(
        shared(), rows(), key
      )
    )
    values = np.stack([term(jax.random.key(seed)) for seed in range(60)])
    expected = -np.log1p(-np.asarray(jax.nn.softmax(LOGITS), np.float64))
    for row in range(2):
      gap = np.abs(values[:, row, None] - expected[row])
      self.assertLess(gap.min(axis=1).max(), 1e-5)
      self.assertEqual(set(gap.argmin(axis=1)), {0, 1, 2, 3})

  def test_without_options(self):
    """Two passes, and classes less probable than 0.4 / 4."""
    views = []

    def second_pass(key):
      views.append(key)
      return LOGITS

    value = terms.build('ns3l')(
      shared(second_pass=second_pass), rows(), jax.random.key(0)
    )
    self.assertLen(views, 1)
    negative = np.asarray(PROBS < 0.1)
    self.assertTrue(negative.any() and not negative.all())
    np.testing.assert_allclose(
      value, losses.negative_sampling_loss(LOGITS, negative)
    )


if __name__ == '__main__':
  absltest.main()
