"""The host of Learning to Impute: soft labels against a loop."""

import jax
import numpy as np
from absl.testing import absltest, parameterized
from l2i_toy import (
  LR,
  STUDENT,
  TEACHER,
  Brighter,
  batch_of,
  flat,
  slope_of_classes,
  slope_of_squares,
  softmax,
  tools_of,
)

from nsl_jax import methods


class SoftLabelTest(parameterized.TestCase):
  @parameterized.product(
    teacher=(False, True), hard=(False, True), interleave=(False, True)
  )
  def test_against_a_loop(self, teacher, hard, interleave):
    view = Brighter()
    fields = dict(
      TEACHER if teacher else STUDENT, interleave=interleave, hard=hard
    )
    method = methods.build(fields, tools_of(augment=view))
    state, batch = method.init(jax.random.key(0)), batch_of()
    if teacher:
      state = state.replace(slots={'teacher': {'w': -state.params['w']}})
    _, metrics = method.update(state, batch, jax.random.key(1))
    x, student_view, teacher_view = (flat(images) for images in view.views)
    w = np.asarray(state.params['w'], np.float64)
    z = softmax(teacher_view @ (-w if teacher else w))
    pairs = list(zip(softmax(student_view @ w), z))
    if hard:
      gap = np.mean([-np.log(p[q.argmax()]) for p, q in pairs])
    else:
      gap = np.mean([np.mean((p - q) ** 2) for p, q in pairs])
    known = np.mean(
      [-np.log(p[k]) for p, k in zip(softmax(x @ w), np.asarray(batch.y))]
    )
    np.testing.assert_allclose(metrics['soft_label'], gap, rtol=1e-4)
    np.testing.assert_allclose(metrics['loss'], known + 2.0 * gap, rtol=1e-4)

  def test_both_chunks_move_the_statistics(self):
    """Of 3 + 3 labeled and unlabeled rows each; the second is the last."""
    method, batch = methods.build(dict(STUDENT), tools_of()), batch_of()
    after, _ = method.update(
      method.init(jax.random.key(0)), batch, jax.random.key(1)
    )
    self.assertEqual(float(after.stats['passes']), 2)
    second = np.concatenate([batch.x[3:], batch.u[:3]])
    np.testing.assert_allclose(after.stats['mean'], second.mean(), rtol=1e-4)

  @parameterized.product(teacher=(False, True), hard=(False, True))
  def test_labels_are_constant(self, teacher, hard):
    """The step is that of a loss which knows the labels as numbers."""
    fields = dict(TEACHER if teacher else STUDENT, hard=hard)
    method = methods.build(fields, tools_of())
    state, batch = method.init(jax.random.key(0)), batch_of()
    after, _ = method.update(state, batch, jax.random.key(1))
    w, u = np.asarray(state.params['w'], np.float64), flat(batch.u)
    slope = slope_of_classes(w, flat(batch.x), np.asarray(batch.y))
    z = softmax(u @ w)
    if hard:
      slope += 2.0 * slope_of_classes(w, u, z.argmax(-1))
    else:
      slope += 2.0 * slope_of_squares(w, u, z, 1 / z.size)
    np.testing.assert_allclose(after.params['w'], w - LR * slope, atol=1e-6)

  def test_teacher_first_copies(self):
    """L2I's rule for the average: min(1 - 1 / (step + 1), decay)."""
    method = methods.build(dict(TEACHER), tools_of())
    state = method.init(jax.random.key(0))
    after, _ = method.update(state, batch_of(), jax.random.key(1))
    np.testing.assert_allclose(
      after.slots['teacher']['w'], after.params['w'], rtol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
