"""Tables: of finished runs, and of the ledger."""

import json
import pathlib
import tempfile

import temporary
from absl.testing import absltest, parameterized
from ledger_inputs import result_of
from repository import ROOT

from nsl_jax import errors
from nsl_jax.commands import report
from nsl_jax.papers import rows
from nsl_jax.reports import ledger, marked, tables


class RunsTest(absltest.TestCase):
  """Tables of any work folders."""

  def test_finished_runs_are_tabulated(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    config = {
      'method': {'name': 'vat', 'terms': {'ns3l': {}}},
      'data': {'name': 'digits', 'labeled': 50},
    }
    for name in ('a', 'b'):
      (folder / name).mkdir()
      (folder / name / 'config.json').write_text(json.dumps(config))
    result = result_of('', [4.0, 6.0], protocol='best_validation')
    (folder / 'a' / 'results.json').write_text(json.dumps(result))
    more = tables.of_runs([folder / 'a', folder / 'b'])
    text, _, without = more.partition('\n\n')
    self.assertEqual(without, f'Not finished, or not a run: {folder}/b.')
    (folder / 'old').mkdir()
    (folder / 'old' / 'results.json').write_text('{}')
    self.assertIn(
      f'not a run: {folder}/old.',
      tables.of_runs([folder / 'a', folder / 'old']),
    )
    page = folder / 'page.md'
    report.main([str(folder / 'a'), str(folder / 'b'), f'--out={page}'])
    self.assertEqual(page.read_text(), more + '\n')
    self.assertLen(text.splitlines(), 3)
    self.assertIn(f'| {folder}/a | vat + ns3l | digits@50 | ', text)
    self.assertIn('5.00 ± 0.50', text)
    with self.assertRaisesRegex(errors.UserError, 'no finished run in .*/b'):
      tables.of_runs([folder / 'b'])


class ReportTest(temporary.FolderTestCase):
  def _write(self, *results: dict):
    for number, result in enumerate(results):
      (self.folder / f'{number}.json').write_text(json.dumps(result))

  def test_differences_are_taken_from_the_supervised_row(self):
    self._write(
      result_of('NS-T6-1', [14.0, 15.0]),
      result_of('NS-T6-7', [13.0, 14.5]),
      result_of('NS-T6-1', [11.0, 11.0], steps=29000, reduced=False),
    )
    lines = tables.table(ledger.read(self.folder), 'NS-T6').splitlines()
    self.assertLen(lines, 5)
    cells = [cell.strip() for cell in lines[-1].strip('|').split('|')]
    self.assertEqual(cells[0], 'NS-T6-7')
    self.assertEqual(
      cells[3:7], ['16.47 ± 0.18', '-0.78', '13.75 ± 0.50', '-0.75']
    )
    self.assertEqual(cells[7], '2')
    self.assertIn('reduced from 29000', cells[8])

  def test_the_seeds_that_both_have_count(self):
    self._write(
      result_of('NS-T6-1', [14.0, 15.0, 19.0]),
      result_of('NS-T6-7', [13.0, 14.5]),
      result_of('NS-T6-8', [13.0], seeds=[3]),
      result_of('NS-T6-9', [17.0, 5.0], seeds=[2, 3]),
    )
    lines = tables.table(ledger.read(self.folder), 'NS-T6').splitlines()
    changes = [line.split(' | ')[6] for line in lines[-3:]]
    self.assertEqual(changes, ['-0.75', '', '-2.00'])

  def test_of_baselines_that_with_most_of_the_seeds_counts(self):
    self._write(
      result_of('NS-T6-1', [20.0, 21.0]),
      result_of('NS-T6-1', [14.0, 15.0, 16.0]),
      result_of('NS-T6-7', [13.0, 14.0, 15.0]),
    )
    lines = tables.table(ledger.read(self.folder), 'NS-T6-7').splitlines()
    self.assertEqual(lines[-1].split(' | ')[6], '-1.00')

  @parameterized.parameters(
    dict(split_sha256=['a', 'c']),
    dict(full_steps=3000, reduced=False),
    dict(protocol='best_validation'),
  )
  def test_what_a_baseline_must_share(self, **changes):
    self._write(
      result_of('NS-T6-1', [14.0, 15.0], split_sha256=['a', 'b']),
      result_of('NS-T6-7', [13.0, 10.0], **changes),
    )
    lines = tables.table(ledger.read(self.folder), 'NS-T6-7').splitlines()
    change = '-1.00' if 'split_sha256' in changes else ''
    self.assertEqual(lines[-1].split(' | ')[6], change)

  def test_without_one_from_the_row_of_the_host(self):
    self._write(
      result_of('L2-T3-1', [40.0]),
      result_of('L2-T3-4', [37.0]),
      result_of('L2-T3-13', [10.0]),
    )
    lines = tables.table(ledger.read(self.folder), 'L2-T3').splitlines()
    found = [
      [cell.strip() for cell in line.strip('|').split('|')][2:7:2]
      for line in lines[-3:]
    ]
    self.assertEqual(
      found,
      [
        ['MT', '+0.00', '+0.00'],
        ['MT+V1', '-4.18', '-3.00'],
        ['MM+V1', '-0.73', ''],
      ],
    )

  def test_without_a_host_there_is_no_difference(self):
    self._write(result_of('DN-T6-1', [40.0]), result_of('DN-T6-2', [37.0]))
    lines = tables.table(ledger.read(self.folder), 'DN-T6').splitlines()
    for line in lines[-2:]:
      cells = [cell.strip() for cell in line.strip('|').split('|')]
      self.assertEqual((cells[4], cells[6]), ('', ''))

  def test_another_budget_is_no_baseline(self):
    self._write(
      result_of('NS-T6-7', [13.0]),
      result_of('NS-T6-1', [11.0], steps=29000, reduced=False),
    )
    lines = tables.table(ledger.read(self.folder), 'NS-T6-7').splitlines()
    cells = [cell.strip() for cell in lines[-1].strip('|').split('|')]
    self.assertEqual(cells[6], '')

  def test_an_outdated_baseline_is_none(self):
    self._write(
      result_of('NS-T6-1', [11.0], outdated='another average'),
      result_of('NS-T6-7', [13.0]),
      result_of('NS-T6-8', [12.0], outdated='another average'),
    )
    text = tables.table(ledger.read(self.folder), 'NS-T6')
    found = [
      [cell.strip() for cell in line.strip('|').split('|')][6]
      for line in text.splitlines()[2:5]
    ]
    self.assertEqual(found, ['+0.00', '', '+1.00'])

  def test_accuracies_become_errors(self):
    row = rows.find('DN-T2-2')
    self.assertAlmostEqual(tables.reported_error(row), 100 - 94.29)

  def test_data_note_is_shown(self):
    self._write(result_of('NS-T1-1', [20.0], data_note='JPEG copy'))
    self.assertIn('JPEG copy', tables.table(ledger.read(self.folder), ''))

  @parameterized.parameters(
    ('docs/results.md', 'NS-T6-1 |'),
    ('README.md', 'DIG-2 |'),
    ('docs/speed.md', '| usb |'),
    ('docs/own-images.md', 'LabelSpreading'),
    ('docs/own-images.md', '| 100,000 |'),
  )
  def test_the_tables_in_pages_are_those_of_the_ledger(self, page, row):
    root = ROOT
    text = (root / page).read_text()
    self.assertIn(row, text)
    self.assertEqual(text, marked.fill(text, root / 'results'))

  def test_a_page_that_cannot_be_filled(self):
    missing = self.folder / 'missing.md'
    with self.assertRaisesRegex(errors.UserError, r'--fill .*missing\.md'):
      report.main([f'--fill={missing}'])

  def test_several_pages(self):
    pages = [self.folder / name for name in ('a.md', 'b.md')]
    mark = '<!-- table: python -m nsl_jax report --match NS-T1 -->\n'
    self._write(result_of('NS-T1-1', [20.0]))
    for page in pages:
      page.write_text(f'{mark}old\n<!-- end -->')
    report.main([f'--results={self.folder}', '--fill', *map(str, pages)])
    for page in pages:
      self.assertIn('| NS-T1-1 |', page.read_text())

  @parameterized.parameters(
    (['--fill', 'a.md', '--match=NS'], '--fill ignores --match'),
    (['runs/a', '--bench=x'], 'workdirs ignores --bench'),
    (['--figure=a.png', '--out=b.md'], '--figure ignores --out'),
    (['--bench=x', '--match=NS'], '--bench ignores --match'),
  )
  def test_an_argument_without_an_effect(self, words, message):
    with self.assertRaisesRegex(errors.UserError, message):
      report.main(words)

  def test_every_measurement_of_a_table_of_times(self):
    step = {'median_ms': 2.0, 'ratio': 1.0, 'floor': 1.0, 'expected': 1.0}
    kinds = dict.fromkeys(('training', 'inference', 'evaluation'), step)
    times = {
      'kind': 'timing',
      'row': 'DN-T7-1 DN-T7-2',
      'steps': 3,
      'methods': {'DN-T7-1': {'method': 'mean_teacher', **kinds}},
    }
    results = [{**times, 'device': '1 x cpu'}, {**times, 'device': '1 x gpu'}]
    text = tables.table(results, 'DN-T7')
    for device in ('1 x cpu', '1 x gpu'):
      self.assertIn(f'{device}, 3 steps of each\n\n| row |', text)
    self.assertEqual(text.count('| DN-T7-1 | mean_teacher | 2 |'), 2)
    with self.assertRaisesRegex(errors.UserError, 'no result'):
      tables.table(results, 'DN-T8')

  @parameterized.parameters(
    '<!-- table: python -m nsl_jax report --match NS-T6 -->\nprose',
    '<!-- table: python -m nsl_jax report --matches NS-T6 -->\n<!-- end -->',
  )
  def test_a_mark_that_cannot_be_filled(self, broken):
    """What is between it and the next one is not taken for its table."""
    self._write(result_of('NS-T6-1', [14.0]))
    mark = '<!-- table: python -m nsl_jax report --match NS-T6 -->'
    text = f'{broken}\n\n{mark}\n<!-- end -->'
    with self.assertRaisesRegex(errors.UserError, 'is not the mark of a table'):
      marked.fill(text, self.folder)

  def test_step_times_between_marks(self):
    one = {
      'images': 10,
      'ms': [4.0],
      'ms_empty': [2.0],
      'compile_s': 1.0,
      'memory_mb': None,
    }
    (self.folder / 'bench').mkdir()
    (self.folder / 'bench' / 'x.json').write_text(
      json.dumps(
        {'kind': 'timing', 'methods': {'a': one, 'b': {**one, 'ms': [6.0]}}}
      )
    )
    mark = '<!-- table: python -m nsl_jax report --bench x -->'
    filled = marked.fill(f'{mark}\nold\n<!-- end -->', self.folder)
    self.assertEqual(
      filled, f'{mark}\n\n{tables.times(self.folder, "x")}\n\n<!-- end -->'
    )
    self.assertIn('| b | 6.00 | 6.00 | 6.00 | 2.00 | 1.50 |', filled)
    with self.assertRaisesRegex(errors.UserError, 'no step times .*known: x'):
      tables.times(self.folder, 'y')
    for content in (
      '{}',
      '{"kind": "steps", "methods": {}}',
      '{"kind": "peers"}',
    ):
      (self.folder / 'bench' / 'y.json').write_text(content)
      with self.assertRaisesRegex(
        errors.UserError, 'y.json is not a file of st'
      ):
        tables.times(self.folder, 'y')

  def test_wrong_ledgers(self):
    with self.assertRaisesRegex(errors.UserError, 'no ledger'):
      ledger.read(self.folder / 'none')
    self._write({'row': 'NS-T6-1'})
    with self.assertRaisesRegex(errors.UserError, 'lacks kind'):
      ledger.read(self.folder)
    (self.folder / '0.json').write_text('{"row": ')
    with self.assertRaisesRegex(errors.UserError, 'cannot be read'):
      ledger.read(self.folder)
    with self.assertRaisesRegex(errors.UserError, 'no result'):
      tables.table([], 'NS')


if __name__ == '__main__':
  absltest.main()
