"""The mean of the labeled points, a baseline without a network."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from points_toy import Moving, P, batch_of, tools_of

from nsl_jax import errors, methods
from nsl_jax.compose import tasks


class MeanTest(absltest.TestCase):
  def test_the_mean_of_the_labeled_points(self):
    """Standardized points have mean 0; nothing is trained, and the loss is that
    of 0."""
    labels = np.random.default_rng(3).uniform(0, 9, (7, P)).astype(np.float32)
    fitted = tasks.REGRESSION.fit(labels)
    batch = batch_of()._replace(
      y=jnp.asarray(tasks.REGRESSION.encode(fitted, labels))
    )
    method = methods.build(
      {'name': 'mean_label', 'terms': {}}, tools_of(Moving())
    )
    state = method.init(jax.random.key(0))
    after, metrics = method.update(state, batch, jax.random.key(1))
    np.testing.assert_array_equal(after.params['w'], state.params['w'])
    # The standard deviation is that of N - 1, the loss a mean over N.
    np.testing.assert_allclose(metrics['loss'], 6 / 7, rtol=1e-4)
    found = tasks.points_of(fitted, method.predict(state, batch.u))
    np.testing.assert_allclose(
      found, np.tile(labels.mean(0), (len(batch.u), 1)), rtol=1e-5
    )

  def test_not_for_classes(self):
    components = tools_of(Moving())._replace(task=None)
    with self.assertRaisesRegex(
      errors.UserError, "'mean_label' is not for config.task=class"
    ):
      methods.build({'name': 'mean_label', 'terms': {}}, components)


if __name__ == '__main__':
  absltest.main()
