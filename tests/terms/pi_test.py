"""Pi and Mean Teacher as terms: which pass teaches, and that it is constant."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special
from term_inputs import LOGITS, rows, shared

from nsl_jax import terms


class AgreementTest(parameterized.TestCase):
  """Pi and Mean Teacher: which pass teaches, and that it is constant."""

  def call(self, name, student, teacher):
    """Values per row; the teacher's logits come from the extra pass."""
    slot = jnp.array(7.0)

    def second_pass(key, params=None):
      self.assertEqual(params is slot, name == 'mean_teacher')
      return teacher

    term = terms.build(name)
    inputs = shared(student, second_pass=second_pass, slots={'teacher': slot})
    return term(inputs, rows(), jax.random.key(0))

  @parameterized.parameters('pi', 'mean_teacher')
  def test_against_a_loop(self, name):
    """Invariant 9: 0 where both passes agree, else more."""
    teacher = LOGITS[::-1] * 0.5
    want = []
    for p, q in zip(
      *(special.softmax(np.asarray(z), axis=-1) for z in (LOGITS, teacher))
    ):
      want.append(sum((p[k] - q[k]) ** 2 for k in range(4)) / 4)
    found = self.call(name, LOGITS, teacher)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    self.assertGreater(min(want), 1e-3)
    np.testing.assert_array_equal(self.call(name, LOGITS, LOGITS), 0.0)

  @parameterized.parameters('pi', 'mean_teacher')
  def test_teacher_is_constant(self, name):
    """Invariant 9: its gradient is exactly 0, the student's is not."""
    total = lambda *logits: self.call(name, *logits).sum()
    student, teacher = jax.grad(total, (0, 1))(LOGITS, LOGITS[::-1] * 0.5)
    self.assertGreater(np.abs(student).max(), 1e-2)
    np.testing.assert_array_equal(teacher, 0.0)


if __name__ == '__main__':
  absltest.main()
