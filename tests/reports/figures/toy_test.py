"""NS-F2: hand values of its rules, and what the paper claims, computed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.papers import rows
from nsl_jax.reports.figures import toy

# At boundary 0 and slope log 3 the point 1 has mu = 1/4, the point -1 mu = 3/4.
SLOPE = math.log(3.0)


def gradient(rule, *points, w=0.0, slope=SLOPE):
  return jax.jit(toy.RULES[rule])(
    jnp.float32(w), jnp.float32(slope), jnp.asarray(points, jnp.float32)
  )


def gradient_step(rule, *points, w=0.0, slope=SLOPE, steps=1):
  return np.asarray(
    toy.gradient_step(
      toy.RULES[rule],
      jnp.float32(w),
      jnp.float32(slope),
      jnp.asarray(points, jnp.float32),
      steps=steps,
    )
  )


class RuleTest(parameterized.TestCase):
  @parameterized.parameters(
    ('positive, as printed', [-0.75, 0.25]),  # -(1 - mu) x
    ('NS3L, as printed', [0.25, -0.75]),  # mu x
    ('label 1', [-0.75 * SLOPE, -0.25 * SLOPE]),  # -(1 - mu) s
    ('not 0', [-0.75 * SLOPE, -0.25 * SLOPE]),
    ('label 0', [0.25 * SLOPE, 0.75 * SLOPE]),  # mu s
    ('not 1', [0.25 * SLOPE, 0.75 * SLOPE]),
  )
  def test_by_hand(self, rule, expected):
    np.testing.assert_allclose(gradient(rule, 1.0, -1.0), expected, rtol=1e-6)

  @parameterized.parameters(('label 1', 'not 0'), ('label 0', 'not 1'))
  def test_a_negative_label_is_the_other_positive_one(self, label, negative):
    """F-N14: what the figure sets apart is one loss when K = 2."""
    x = np.random.default_rng(0).uniform(-1, 1, 100)
    for w, slope in ((0.3, 9.0), (-0.5, 2.0)):
      np.testing.assert_allclose(
        gradient(label, *x, w=w, slope=slope),
        gradient(negative, *x, w=w, slope=slope),
        rtol=1e-4,
        atol=1e-6,
      )

  def test_the_printed_pair_belongs_to_opposite_labels(self):
    """F-N14: mu x is (but for the factor) the gradient of `not 1`."""
    x = np.linspace(0.1, 1.0, 10)
    for printed, label, negative in (
      ('positive, as printed', 'label 1', 'not 0'),
      ('NS3L, as printed', 'label 0', 'not 1'),
    ):
      scaled = np.asarray(gradient(printed, *x)) * SLOPE / x
      np.testing.assert_allclose(scaled, gradient(label, *x), rtol=1e-5)
      np.testing.assert_allclose(scaled, gradient(negative, *x), rtol=1e-5)


class DescentTest(parameterized.TestCase):
  @parameterized.parameters(
    # mu is 1/40 at the first point, 1/2 and 39/40 at the others: only the
    # first is confidently a 0.
    ('positive, as printed', 0.975),
    ('NS3L, as printed', -0.025),
    ('label 1', 0.975 * math.log(39)),
    ('label 0', -0.025 * math.log(39)),
  )
  def test_one_step_by_hand(self, rule, expected):
    path = gradient_step(rule, 1.0, 0.0, -1.0, slope=math.log(39.0))
    np.testing.assert_allclose(path, [0.0, toy.RATE * expected], rtol=1e-5)

  def test_gradients_are_averaged_over_confident_points_alone(self):
    # mu is 1/40 and 1/1600.
    path = gradient_step(
      'NS3L, as printed', 1.0, 2.0, 0.0, slope=math.log(39.0)
    )
    mean = (1 / 40 + 2 / 1522) / 2  # 1 / (1 + 39^2) = 1 / 1522
    self.assertAlmostEqual(path[1], -toy.RATE * mean, places=7)

  def test_it_stays_where_nobody_is_confident(self):
    path = gradient_step('positive, as printed', 1.0, -1.0, steps=3)
    np.testing.assert_array_equal(path, np.zeros(4))

  def test_what_becomes_of_a_boundary(self):
    found = toy.describe(np.array([0.2, 0.1, -0.05, -0.3]))
    self.assertEqual(
      found,
      {
        'start': 0.2,
        'first_move': -0.1,
        'first_move_towards_optimum': True,
        'nearest_distance': 0.05,
        'nearest_step': 2,
        'passes_optimum_at_step': 2,
        'end': -0.3,
        'ends_nearer_than_it_began': False,
      },
    )
    found = toy.describe(np.array([0.2, 0.3]))
    self.assertIsNone(found['passes_optimum_at_step'])
    self.assertFalse(found['first_move_towards_optimum'])
    self.assertEqual(found['nearest_step'], 0)


class FigureTest(absltest.TestCase):
  def test_points_are_biased_as_the_paper_has_them(self):
    u, x, y = toy.draw_points(0)
    ones, zeros = x[y == 1], x[y == 0]
    self.assertLen(ones, 10)
    self.assertLen(zeros, 10)
    self.assertBetween(ones.min(), -1.0, -0.5)
    self.assertBetween(ones.max(), -0.5, -0.1)
    self.assertBetween(zeros.min(), 0.5, 0.75)
    self.assertBetween(zeros.max(), 0.75, 1.0)
    self.assertBetween(u.min(), -1.0, -0.98)
    self.assertBetween(u.max(), 0.98, 1.0)
    self.assertFalse(np.array_equal(u, toy.draw_points(1)[0]))

  def test_logistic_regression_settles_right_of_the_optimum(self):
    for seed in range(5):
      boundary, slope = toy.fit(*toy.draw_points(seed)[1:])
      self.assertBetween(boundary, 0.05, 0.3)
      self.assertGreater(slope, 5.0)  # so some points are confident

  def test_the_claim_of_the_paper(self):
    """As printed NS3L moves back, but nothing makes it stop at w*."""
    jax.config.update('jax_disable_most_optimizations', False)  # many steps
    drawing = toy.draw(rows.find('NS-F2'), seeds=1, reduced=0, workdir=None)
    self.assertEqual(drawing.png[:4], b'\x89PNG')
    self.assertLen(drawing.lines, len(toy.RULES))
    found = {one['rule']: one for one in drawing.lines}
    back = found['NS3L, as printed']
    self.assertTrue(back['first_move_towards_optimum'])
    self.assertLess(back['nearest_distance'], 0.001)
    self.assertBetween(back['passes_optimum_at_step'], 2, toy.STEPS)
    self.assertFalse(back['ends_nearer_than_it_began'])
    away = found['positive, as printed']
    self.assertFalse(away['first_move_towards_optimum'])
    self.assertEqual(away['nearest_step'], 0)
    for label, negative in (('label 1', 'not 0'), ('label 0', 'not 1')):
      self.assertAlmostEqual(
        found[label]['end'], found[negative]['end'], places=3
      )
    self.assertFalse(drawing.content['reduced'])

  def test_wrong_sizes(self):
    for seeds, reduced in ((0, 0), (1, -1), (1, toy.STEPS + 1)):
      with self.assertRaisesRegex(errors.UserError, 'seeds|reduced'):
        toy.draw(rows.find('NS-F2'), seeds=seeds, reduced=reduced, workdir=None)


if __name__ == '__main__':
  absltest.main()
