"""DNLL as a term: which view gives the labels, which head learns."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from term_inputs import LOGITS, rows, shared

from nsl_jax import losses, terms


class DNLLTest(parameterized.TestCase):
  """All of the three classes that another view does not predict."""

  OTHER = LOGITS[::-1]  # predicts the classes 1 and 0
  NEGATIVE = np.array([[True, False, True, True], [False, True, True, True]])

  def test_without_options(self):
    """Two negatives, from a second pass of the student."""
    passes = []

    def second_pass(key, params):
      passes.append(params)
      return self.OTHER

    value = terms.build('dnll')(
      shared(second_pass=second_pass), rows(), jax.random.key(0)
    )
    self.assertEqual(passes, [None])
    two = terms.build('dnll', count=2)(
      shared(second_pass=second_pass), rows(), jax.random.key(0)
    )
    np.testing.assert_array_equal(value, two)

  def test_a_pass_that_moves_the_statistics(self):
    """The student's; they are given on, and the second head learns."""
    refused = lambda *args: self.fail('the other pass is for the teacher')
    value, stats = terms.build('dnll', count=3)(
      shared(
        second_pass=refused,
        second_pass_with_stats=lambda stats, key: (
          self.OTHER,
          stats | {'n': 1},
        ),
        consistency_u=2.0 * LOGITS,
        stats={},
      ),
      rows(),
      jax.random.key(0),
    )
    self.assertEqual(stats, {'n': 1})
    np.testing.assert_allclose(
      value, losses.complementary_label_loss(2.0 * LOGITS, self.NEGATIVE)
    )

  def test_by_the_teacher(self):
    """Its pass leaves the statistics alone."""
    slot = jnp.array(7.0)

    def second_pass(key, params):
      self.assertIs(params, slot)
      return self.OTHER

    refused = lambda *args: self.fail('the other pass is for the student')
    value = terms.build('dnll', count=3, source='teacher')(
      shared(
        second_pass=second_pass,
        second_pass_with_stats=refused,
        slots={'teacher': slot},
      ),
      rows(),
      jax.random.key(0),
    )
    np.testing.assert_allclose(
      value, losses.complementary_label_loss(LOGITS, self.NEGATIVE), rtol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
