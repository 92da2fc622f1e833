"""Pictures of an evaluation: confusion, reliability, curves."""

from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from page_inputs import LINES, PNG

from nsl_jax.reports import style
from nsl_jax.reports.evaluation import pictures


class PicturesTest(parameterized.TestCase):
  def figure(self, draw, *inputs):
    """The figure before it becomes a file."""
    with mock.patch.object(style, 'png', return_value=b'') as png:
      draw(*inputs)
    return png.call_args.args[0]

  def test_confusion_is_normalized_by_row(self):
    counts = [[3, 1, 0], [0, 2, 0], [0, 0, 0]]
    panel = self.figure(pictures.confusion, counts, 'abc').axes[0]
    shares = panel.images[0].get_array()
    np.testing.assert_allclose(shares[0], [0.75, 0.25, 0.0])
    self.assertTrue(shares.mask[2].all())
    self.assertEqual(
      [text.get_text() for text in panel.texts],
      [str(n) for row in counts for n in row],
    )
    self.assertEqual([t.get_text() for t in panel.get_yticklabels()], [*'abc'])

  @parameterized.parameters((20, 400, 20), (21, 0, 21), (250, 0, 84))
  def test_counts_and_names_by_number_of_classes(self, size, counts, names):
    eye = np.eye(size, dtype=int)
    figure = self.figure(pictures.confusion, eye, ['$a_b^' * 9] * size)
    panel = figure.axes[0]
    self.assertLen(panel.texts, counts)
    self.assertLen(panel.get_xticks(), names)
    self.assertLess(figure.get_size_inches().max(), 24)
    self.assertLen(panel.get_xticklabels()[0].get_text(), 24)

  def test_confusion_of_one_class(self):
    self.assertStartsWith(pictures.confusion([[3]], ['a']), PNG)

  def test_reliability(self):
    figure = self.figure(
      pictures.reliability,
      {
        'ece': 0.125,
        'reliability': [
          {
            'low': 0.6,
            'high': 2 / 3,
            'confidence': 0.65,
            'accuracy': 0.5,
            'count': 8,
          }
        ],
      },
    )
    above, below = figure.axes
    self.assertEqual(above.get_title(), 'ECE 12.5 %')
    diagonal, curve = above.get_lines()
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(curve.get_xydata(), [[0.65, 0.5]])
    (bar,) = below.patches
    self.assertEqual((bar.get_x(), bar.get_height()), (0.6, 8))

  def test_curves_mark_the_earliest_of_the_best_steps(self):
    loss, error = self.figure(pictures.curves, LINES).axes
    np.testing.assert_array_equal(
      loss.get_lines()[0].get_xydata(), [[5, 2.0], [10, 1.0]]
    )
    self.assertEqual(error.get_title(), 'lowest: 10.0 % at step 20')
    np.testing.assert_array_equal(
      error.get_lines()[-1].get_xydata(), [[20, 10.0]]
    )

  def test_without_validation_no_step_is_best(self):
    lines = [*LINES[:2], {'step': 9, 'kind': 'eval', 'validation_error': None}]
    self.assertIsNone(pictures.best(lines))
    (loss,) = self.figure(pictures.curves, lines).axes
    self.assertLen(loss.get_lines(), 1)
    self.assertEqual(loss.get_xlabel(), 'step')

  def test_no_curves_of_nothing(self):
    for lines in ([], [{'step': 1, 'kind': 'train', 'loss': float('nan')}]):
      self.assertIsNone(pictures.curves(lines))


if __name__ == '__main__':
  absltest.main()
