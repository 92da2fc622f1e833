"""Entropy as a term."""

import jax
import numpy as np
from absl.testing import absltest
from scipy import special
from term_inputs import LOGITS, rows, shared

from nsl_jax import terms


class EntropyTest(absltest.TestCase):
  def test_against_a_loop(self):
    """F-N7: of the first pass."""
    value = terms.build('entropy')(shared(), rows(), jax.random.key(0))
    want = [
      -sum(p * np.log(p) for p in row)
      for row in special.softmax(np.asarray(LOGITS), axis=-1)
    ]
    np.testing.assert_allclose(value, want, rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
