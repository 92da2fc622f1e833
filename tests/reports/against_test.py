"""Scores against an argument of a config: which runs, which numbers."""

import csv
import json
import pathlib
import tempfile

import PIL.Image
from absl.testing import absltest, parameterized
from ledger_inputs import result_of

from nsl_jax import errors
from nsl_jax.commands import report
from nsl_jax.reports import against


def _results():
  return [
    result_of('FM-OPEN-8', [22.0, 24.0]),  # FixMatch at 50 %
    result_of('FM-OPEN-6', [20.0, 22.0]),  # at 0 %
    result_of('FM-OPEN-1', [30.0, 30.0]),  # Supervised at 0 %
    result_of('FM-SSL-1', [1.0, 2.0]),
  ]


class AgainstTest(parameterized.TestCase):
  def test_by_method_and_value(self):
    points = against.of_results(_results(), 'FM-OPEN', 'mismatch')
    self.assertEqual(
      [(p.row, p.method, p.value, p.mean) for p in points],
      [
        ('FM-OPEN-1', 'Supervised', 0.0, 30.0),
        ('FM-OPEN-6', 'FixMatch', 0.0, 21.0),
        ('FM-OPEN-8', 'FixMatch', 50.0, 23.0),
      ],
    )
    self.assertEqual(points[1].std, 0.5)

  def test_the_longest_that_is_not_outdated(self):
    results = [
      result_of('FM-OPEN-6', [20.0], steps=100),
      result_of('FM-OPEN-6', [19.0], steps=200),
      result_of('FM-OPEN-6', [1.0], steps=300, outdated='an older rule'),
    ]
    (point,) = against.of_results(results, 'FM-OPEN', 'mismatch')
    self.assertEqual((point.mean, point.steps), (19.0, 200))

  @parameterized.parameters(
    ('FM-OPEN', 'method', 'no result of a row FM-OPEN… .* as method'),
    ('NS-', 'mismatch', 'no result'),
  )
  def test_nothing_to_draw(self, prefix, argument, message):
    with self.assertRaisesRegex(errors.UserError, message):
      against.of_results(_results(), prefix, argument)

  def test_different_budgets(self):
    results = [*_results(), result_of('FM-OPEN-7', [20.0, 21.0], steps=7)]
    with self.assertRaisesRegex(errors.UserError, 'differ in steps, protocol'):
      against.of_results(results, 'FM-OPEN', 'mismatch')

  def test_the_command_writes_picture_and_numbers(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    for at, result in enumerate(_results()):
      (folder / f'{at}.json').write_text(json.dumps(result))
    path = folder / 'mismatch.png'
    words = [f'--results={folder}', '--match=FM-OPEN', '--by=mismatch']
    report.main([*words, f'--figure={path}'])
    with PIL.Image.open(path) as picture:
      self.assertGreater(picture.width, 600)
    lines = list(csv.DictReader(path.with_suffix('.csv').open()))
    self.assertEqual([line['value'] for line in lines], ['0.0', '0.0', '50.0'])
    with self.assertRaisesRegex(errors.UserError, '--by needs --figure'):
      report.main(words)


if __name__ == '__main__':
  absltest.main()
