"""What a run reports: three ways of reading it, none chosen on the test set."""

import statistics

from absl.testing import absltest, parameterized

from nsl_jax.training import summary


def evaluations(test, validation=None):
  validation = validation or [None] * len(test)
  return [
    {
      'step': 10 * (i + 1),
      'kind': 'eval',
      'seconds': 1.0,
      'test_error': t,
      'validation_error': v,
      'test_cross_entropy': 0.5,
    }
    for i, (t, v) in enumerate(zip(test, validation))
  ]


class ReportsTest(parameterized.TestCase):
  def test_by_hand(self):
    # The lowest test error (1.0) is at a step that no report may pick.
    found = summary.reports(
      evaluations([9.0, 7.0, 1.0, 6.0, 8.0], [9.5, 4.0, 5.0, 4.0, 6.0])
    )
    self.assertEqual(
      found,
      {
        'last': {'step': 50, 'test_error': 8.0, 'validation_error': 6.0},
        'best_validation': {
          'step': 20,
          'test_error': 7.0,
          'validation_error': 4.0,
        },
        'median_last_20': {
          'test_error': 7.0,
          'validation_error': 5.0,
          'evaluations': 5,
        },
      },
    )
    self.assertEqual(tuple(found), summary.PROTOCOLS)

  def test_best_validation_is_the_earliest(self):
    found = summary.reports(evaluations([5.0, 1.0, 2.0], [3.0, 3.0, 3.0]))
    self.assertEqual(found['best_validation']['step'], 10)
    found = summary.reports(evaluations([5.0, 1.0, 2.0], [3.0, 0.0, 0.0]))
    self.assertEqual(found['best_validation']['step'], 20)

  def test_of_points(self):
    """The failure rate goes with its error, and chooses nothing."""
    lines = [
      {**line, 'test_failure': t, 'validation_failure': v}
      for line, t, v in zip(
        evaluations([5.0, 1.0, 2.0], [3.0, 2.0, 4.0]),
        (9.0, 8.0, 1.0),
        (7.0, 6.0, 0.0),
      )
    ]
    found = summary.reports(lines)
    self.assertEqual(
      found['best_validation'],
      {
        'step': 20,
        'test_error': 1.0,
        'validation_error': 2.0,
        'test_failure': 8.0,
        'validation_failure': 6.0,
      },
    )
    self.assertEqual(
      found['median_last_20'],
      {
        'test_error': 2.0,
        'validation_error': 3.0,
        'test_failure': 8.0,
        'validation_failure': 6.0,
        'evaluations': 3,
      },
    )
    scores = summary.scores([found])
    self.assertEqual(scores['last']['test_failure']['mean'], 1.0)
    self.assertEqual(
      set(scores['best_validation']),
      {'test_error', 'validation_error', 'test_failure', 'validation_failure'},
    )

  def test_of_several_networks(self):
    lines = [
      {
        **line,
        'submodel': name,
        'test_error_a': a,
        'test_error_ensemble': e,
        'validation_error_a': a + 1,
        'test_cross_entropy_a': 0.5,
      }
      for line, name, a, e in zip(
        evaluations([5.0, 1.0, 2.0], [3.0, 0.0, 1.0]),
        'aba',
        (5.0, 6.0, 2.0),
        (4.0, 0.5, 1.0),
      )
    ]
    found = summary.reports(lines)
    self.assertEqual(
      found['best_validation'],
      {
        'step': 20,
        'test_error': 1.0,
        'validation_error': 0.0,
        'submodel': 'b',
        'test_error_a': 6.0,
        'validation_error_a': 7.0,
        'test_error_ensemble': 0.5,
      },
    )
    self.assertEqual(
      found['median_last_20'],
      {
        'test_error': 2.0,
        'test_error_a': 5.0,
        'test_error_ensemble': 1.0,
        'validation_error': 1.0,
        'validation_error_a': 6.0,
        'evaluations': 3,
      },
    )

  def test_without_validation(self):
    found = summary.reports(evaluations([5.0, 1.0, 2.0]))
    self.assertIsNone(found['best_validation'])
    self.assertEqual(
      found['last'], {'step': 30, 'test_error': 2.0, 'validation_error': None}
    )
    self.assertEqual(
      found['median_last_20'], {'test_error': 2.0, 'evaluations': 3}
    )

  @parameterized.parameters(
    # 25 evaluations 0 ... 24: the last 20 are 5 ... 24.
    (list(range(25)), 14.5, 20),
    (list(range(20)), 9.5, 20),
    (list(range(19)), 9, 19),
    ([4.0], 4.0, 1),
    ([4.0, 1.0], 2.5, 2),
    ([100.0] * 10 + [1.0] * 11 + [3.0] * 9, 1.0, 20),
    ([3.0, 90.0, 2.0], 3.0, 3),
  )
  def test_median(self, test, expected, count):
    found = summary.reports(evaluations(test))['median_last_20']
    self.assertEqual(found, {'test_error': expected, 'evaluations': count})


class ScoreTest(parameterized.TestCase):
  def test_sample_deviation(self):
    found = summary.score([1.0, 2.0, 6.0], 'test_error', '%')
    self.assertEqual(found['mean'], 3.0)
    self.assertAlmostEqual(found['std'], 7**0.5)  # 14 / (3 - 1)
    self.assertEqual(found['std'], statistics.stdev([1, 2, 6]))
    self.assertEqual(found['per_seed'], [1.0, 2.0, 6.0])
    self.assertEqual((found['metric'], found['unit']), ('test_error', '%'))

  def test_one_seed(self):
    found = summary.score([4.5], 'test_error', '%')
    self.assertEqual((found['mean'], found['std']), (4.5, None))

  def test_equal_seeds(self):
    self.assertEqual(summary.score((2.0, 2.0), 'x', 's')['std'], 0.0)

  @parameterized.parameters(
    (12.345, 0.555, '12.35 ± 0.56'),
    (12.0, None, '12.00'),
    (12.0, 0.0, '12.00 ± 0.00'),
    (0.0, None, '0.00'),
    (None, None, ''),
    (None, 0.5, ''),
  )
  def test_plus_minus(self, mean, std, expected):
    self.assertEqual(summary.plus_minus(mean, std), expected)


if __name__ == '__main__':
  absltest.main()
