"""Which images a report shows."""

import operator

import numpy as np
from absl.testing import absltest, parameterized
from score_inputs import LABELS, PROBABILITIES

from nsl_jax.reports.evaluation import examples


class ExamplesTest(parameterized.TestCase):
  def test_surest_mistakes_first(self):
    self.assertEqual(examples.mistakes(LABELS, PROBABILITIES, 24), [3, 1])
    self.assertEqual(examples.mistakes(LABELS, PROBABILITIES, 1), [3])

  def test_least_sure_first(self):
    self.assertEqual(examples.least_sure(PROBABILITIES, 3), [1, 3, 0])

  def test_equal_ones_in_their_order(self):
    even = np.full((5, 2), 0.5)
    self.assertEqual(examples.least_sure(even, 3), [0, 1, 2])
    self.assertEqual(examples.mistakes(np.ones(5, int), even, 3), [0, 1, 2])

  def test_confused(self):
    counts = [[5, 1, 4], [2, 2, 0], [4, 0, 0]]
    found = examples.confused(counts, 'abc', 10)
    pairs = [(e['true'], e['predicted'], e['count']) for e in found]
    self.assertEqual(
      pairs, [('a', 'c', 4), ('c', 'a', 4), ('b', 'a', 2), ('a', 'b', 1)]
    )
    self.assertEqual(
      [*map(operator.itemgetter('share'), found)], [0.4, 1.0, 0.5, 0.1]
    )
    self.assertEqual(examples.confused(np.eye(3, dtype=int), 'abc', 10), [])
    self.assertEqual(counts[0][0], 5)


if __name__ == '__main__':
  absltest.main()
