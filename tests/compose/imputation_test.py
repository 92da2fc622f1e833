"""Imputed labels: updates by hand, finite slopes, repeated passes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from l2i_toy import STUDENT, Toy, batch_of, tools_of

from nsl_jax import methods
from nsl_jax.compose import imputation
from nsl_jax.types import Model, Outputs, Views

SMALLER = 1 / (1 + math.exp(0.5))  # of two whose logits differ by 0.5


class ImputationTest(parameterized.TestCase):
  @parameterized.parameters(
    ('points', [0.5, 0.3, 0.2], [1.0, 0.0, -1.0], [-0.5, 0.3, 1.2]),
    # -0.5 is cut to 0, and the sum 1.5 made 1; then one of 0.75.
    ('labels', [0.5, 0.3, 0.2], [1.0, 0.0, -1.0], [0.0, 0.2, 0.8]),
    ('labels', [0.5, 0.25, 0.25], [0.0, 0.0, 0.5], [2 / 3, 1 / 3, 0.0]),
    ('labels', [0.5, 0.3, 0.2], [1.0, 1.0, 1.0], [0.5, 0.3, 0.2]),
    # z (g - z . g) is (0.25, -0.25, 0).
    ('logits', [0.5, 0.5, 0.0], [1.0, 0.0, -1.0], [SMALLER, 1 - SMALLER, 0.0]),
  )
  def test_updated_labels_by_hand(self, space, z, change, expected):
    """Labels of which nothing is left stay."""
    found = imputation.updated_labels(
      jnp.array([z]), jnp.array([change]), rate=1.0, space=space
    )
    np.testing.assert_allclose(found, [expected], atol=1e-6)
    twice = imputation.updated_labels(
      jnp.array([z]), 0.5 * jnp.array([change]), rate=2.0, space=space
    )
    np.testing.assert_allclose(twice, [expected], atol=1e-6)

  @parameterized.parameters('labels', 'logits')
  def test_slope_of_updated_labels_is_finite(self, space):
    """Where a class has no probability, and where none is left."""
    z = jnp.array([[1.0, 0.0], [0.5, 0.5]])
    change = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    weights = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    total = lambda z: (
      weights * imputation.updated_labels(z, change, rate=1.0, space=space)
    ).sum()
    self.assertTrue(np.isfinite(jax.grad(total)(z)).all())

  def test_dropout_is_the_same_every_time(self):
    """A pass that is taken twice draws once; the held-out one draws nothing."""

    def apply(params, stats, images, *, train, key=None):
      logits = images.reshape(len(images), -1) @ params['w']
      if key is not None:
        logits *= jax.random.bernoulli(key, 0.5, logits.shape)
      return Outputs(logits, logits, logits), stats

    components = tools_of()._replace(model=Model(Toy().init, apply))
    batch = batch_of()
    state = methods.build(dict(STUDENT), components).init(jax.random.key(0))

    @jax.jit
    def twice(key):
      passes = imputation.make_passes(
        components,
        state,
        Views(batch.x, batch.u, batch.u, batch.y),
        (batch.meta_x, batch.meta_y),
        jax.random.split(key, 3),
      )
      params = state.params
      return [
        (
          passes.impute(params),
          passes.student_view(params)[0].logits,
          passes.held(params)[1].logits,
        )
        for _ in range(2)
      ]

    first, second = twice(jax.random.key(1))
    for one, other in zip(first, second):
      np.testing.assert_array_equal(one, other)
    self.assertTrue((first[1] == 0.0).any())
    self.assertFalse((first[2] == 0.0).any())
    self.assertFalse(np.array_equal(first[0], jax.nn.softmax(first[1])))


if __name__ == '__main__':
  absltest.main()
