"""What NS3L and others add to their hosts, from results of the ledger."""

import json

import temporary
from absl.testing import absltest, parameterized
from ledger_inputs import result_of

from nsl_jax import errors
from nsl_jax.commands import report
from nsl_jax.reports import hosts, marked

_HOST, _WITH = 'FM-SSL-6', 'FM-SSL-7'  # MixMatch, and with NS3L


def cells_of(text):
  """The rows below the header."""
  return [
    [cell.strip() for cell in line.strip('|').split('|')]
    for line in text.splitlines()[2:]
  ]


class HostsTest(parameterized.TestCase):
  def test_differences_are_by_seed(self):
    """-1, -3, +1: mean -1, deviation 2, two of three lower."""
    text = hosts.table(
      [
        result_of(_HOST, [10.0, 20.0, 30.0]),
        result_of(_WITH, [9.0, 17.0, 31.0]),
      ],
      'FM-SSL-',
      'ns3l',
    )
    self.assertIn('| with NS3L |', text.splitlines()[0])
    self.assertEqual(
      cells_of(text),
      [
        [
          'FM-SSL-6, FM-SSL-7',
          'fashion_mnist@250',
          'MixMatch',
          '20.00 ± 0.50',
          '19.00 ± 0.50',
          '-1.00 ± 2.00',
          '2 of 3',
          '3000 (reduced from 29000)',
        ]
      ],
    )

  def test_one_seed_has_no_deviation(self):
    pair = result_of(_HOST, [10.0]), result_of(_WITH, [10.5])
    (cells,) = cells_of(hosts.table(pair, '', 'NS3L'))
    self.assertEqual(cells[5:7], ['+0.50', '0 of 1'])

  def test_alone_it_is_on_supervised_training(self):
    pair = result_of('FM-SSL-1', [10.0]), result_of('FM-SSL-8', [9.0])
    (cells,) = cells_of(hosts.table(pair, 'FM-SSL', 'NS3L'))
    self.assertEqual((cells[2], cells[5]), ('Supervised', '-1.00'))

  def test_another_share_of_unknown_classes_is_another_host(self):
    text = hosts.table(
      [
        result_of('FM-OPEN-6', [10.0]),
        result_of('FM-OPEN-8', [20.0]),
        result_of('FM-OPEN-13', [19.0]),
      ],
      'FM-OPEN',
      'NS3L',
    )
    (cells,) = cells_of(text)
    self.assertEqual(cells[3:6], ['20.00 ± 0.50', '19.00 ± 0.50', '-1.00'])

  @parameterized.parameters(
    dict(steps=2000),
    dict(split_sha256=['a']),
    dict(seeds=[1]),
    dict(outdated='for a reason'),
    dict(device='1 x gpu (NVIDIA; host: 2 cores)'),
    dict(row='FM-SSL-4'),
  )
  def test_what_makes_no_pair(self, **changes):
    pair = {**result_of(_HOST, [10.0]), **changes}, result_of(_WITH, [9.0])
    with self.assertRaisesRegex(errors.UserError, "'FM-SSL-' has NS3L and one"):
      hosts.table(pair, 'FM-SSL-', 'NS3L')


class CommandTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    for name, scores in ((_HOST, [10.0, 12.0]), (_WITH, [9.0, 12.0])):
      path = self.folder / f'{name}.json'
      path.write_text(json.dumps(result_of(name, scores)))

  def test_prints_the_table(self):
    page = self.folder / 'page.md'
    words = ['--match=FM-SSL-', '--with=NS3L', f'--results={self.folder}']
    report.main([*words, f'--out={page}'])
    self.assertIn('| -0.50 ± 0.71 | 1 of 2 |', page.read_text())
    with self.assertRaisesRegex(
      errors.UserError, '^--bench ignores --match, --with: omit it$'
    ):
      report.main([*words, '--bench=x'])

  def test_fills_a_page(self):
    mark = '<!-- table: python -m nsl_jax report --match FM-SSL --with NS3L -->'
    text = f'before\n{mark}\nold\n<!-- end -->\nbehind'
    filled = marked.fill(text, self.folder)
    self.assertStartsWith(filled, f'before\n{mark}\n\n| rows | data | host |')
    self.assertEndsWith(filled, '|\n\n<!-- end -->\nbehind')
    self.assertNotIn('old', filled)
    self.assertEqual(marked.fill(filled, self.folder), filled)


if __name__ == '__main__':
  absltest.main()
