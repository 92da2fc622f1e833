"""Reported against measured differences: which rows, which numbers."""

import csv
import io
import json
import pathlib
import tempfile

import PIL.Image
from absl.testing import absltest
from ledger_inputs import result_of
from repository import ROOT

from nsl_jax import errors
from nsl_jax.commands import report
from nsl_jax.reports import differences, ledger

FULL = dict(steps=29000, reduced=False)


class DifferencesTest(absltest.TestCase):
  def test_both_differences_are_from_the_baseline(self):
    """16.47 - 17.25 in the paper; 13.5 - 14.5 and 11 - 12 here."""
    reduced, *others = differences.of_results(
      [
        result_of('NS-T6-1', [14.0, 15.0]),
        result_of('NS-T6-7', [13.0, 14.0]),
        result_of('NS-T6-1', [12.0], **FULL),
        result_of('NS-T6-7', [11.0], **FULL),
      ]
    )[::-1]
    self.assertEqual((reduced.row, reduced.reduced), ('NS-T6-7', True))
    self.assertAlmostEqual(reduced.reported, -0.78)
    self.assertAlmostEqual(reduced.measured, -1.0)
    self.assertLen(others, 1)
    self.assertEqual((others[0].measured, others[0].steps), (-1.0, 29000))

  def test_of_two_budgets_the_one_with_more_seeds(self):
    results = [
      result_of('NS-T6-1', [14.0, 14.0]),
      result_of('NS-T6-7', [12.0, 12.0]),
      result_of('NS-T6-1', [14.0], steps=300),
      result_of('NS-T6-7', [10.0], steps=300),
    ]
    for order in (results, results[::-1]):
      (found,) = differences.of_results(order)
      self.assertEqual((found.measured, found.seeds), (-2.0, 2))

  def test_outdated_results_and_rows_without_a_number_are_left_out(self):
    with self.assertRaisesRegex(errors.UserError, 'nsl_jax reproduce'):
      differences.of_results(
        [
          result_of('NS-T6-1', [14.0]),
          result_of('NS-T6-7', [12.0], outdated='an older rule'),
          result_of('NS-T6-8', [12.0], steps=100),  # no baseline of this budget
          result_of('DIG-1', [8.0]),
          result_of('DIG-2', [5.0]),  # of no paper
        ]
      )

  def test_the_command_writes_picture_and_numbers(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    for name, errors_of in (('NS-T6-1', [14.0]), ('NS-T6-7', [12.0])):
      (folder / f'{name}.json').write_text(
        json.dumps(result_of(name, errors_of))
      )
    path = folder / 'differences.png'
    report.main([f'--results={folder}', f'--figure={path}'])
    with PIL.Image.open(path) as picture:
      self.assertGreater(picture.width, 1000)
    (line,) = csv.DictReader(path.with_suffix('.csv').open())
    self.assertEqual((line['row'], line['measured']), ('NS-T6-7', '-2.0'))
    with self.assertRaisesRegex(errors.UserError, "starts with 'DIG' has"):
      report.main([f'--results={folder}', f'--figure={path}', '--match=DIG'])
    with self.assertRaisesRegex(errors.UserError, 'name a .png file'):
      report.main([f'--results={folder}', f'--figure={folder}/a.jpg'])

  def test_the_figure_of_the_page_is_that_of_the_ledger(self):
    path = ROOT / 'results' / 'figures' / 'differences.csv'
    expected = differences.lines(
      differences.of_results(ledger.read(ROOT / 'results'))
    )
    lines = list(csv.DictReader(io.StringIO(path.read_text())))
    self.assertEqual(
      lines,
      [
        {k: '' if v is None else str(v) for k, v in line.items()}
        for line in expected
      ],
    )


if __name__ == '__main__':
  absltest.main()
