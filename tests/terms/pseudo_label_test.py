"""Pseudo-Label as a term."""

import jax
import numpy as np
from absl.testing import absltest
from term_inputs import LOGITS, PROBS, rows, shared

from nsl_jax import losses, terms


class PseudoLabelTest(absltest.TestCase):
  def test_reads_the_clean_pass(self):
    value = terms.build('pseudo_label', threshold=0.95)(
      shared(), rows(), jax.random.key(0)
    )
    self.assertEqual(value[0], 0.0)
    self.assertGreater(value[1], 0.0)
    np.testing.assert_array_equal(
      value, losses.pseudo_label(LOGITS, PROBS, threshold=0.95)
    )


if __name__ == '__main__':
  absltest.main()
