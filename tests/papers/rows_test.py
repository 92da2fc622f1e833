"""The table of reported rows is complete, typed and points at real configs."""

import collections
import csv
import importlib.resources

from absl.testing import absltest, parameterized
from repository import ROOT

from nsl_jax import errors
from nsl_jax.papers import rows

# (own rows, cited cells) per table; figures and L2-F6 are counted apart.
COUNTS = {
  'NS-T1': (24, 0),
  'NS-T2': (2, 0),
  'NS-T3': (4, 0),
  'NS-T4': (4, 0),
  'NS-T5': (2, 0),
  'NS-T6': (10, 0),
  'DN-T1': (3, 38),
  'DN-T2': (2, 10),
  'DN-T3': (2, 6),
  'DN-T4': (3, 12),
  'DN-T5': (8, 0),
  'DN-T6': (4, 0),
  'DN-T7': (3, 0),
  'L2-T1': (30, 0),
  'L2-T2': (24, 0),
  'L2-T3': (36, 12),
  'L2-T4': (12, 0),
  'L2-T5': (7, 0),
  'L2-F6': (6, 0),
}
FIGURES = [
  'NS-F2',
  'NS-F3-L',
  'NS-F3-M',
  'NS-F3-R',
  'DN-F4',
  'DN-F5',
  'DN-F6',
  'DN-F7',
  'DN-F8',
  'L2-F2',
  'L2-F3',
]


class CompletenessTest(parameterized.TestCase):
  def test_ids_are_unique(self):
    table = importlib.resources.files('nsl_jax.papers').joinpath('rows.csv')
    lines = list(csv.reader(table.read_text(encoding='utf-8').splitlines()))
    ids = [line[0] for line in lines[1:]]
    self.assertLen(set(ids), len(ids))
    self.assertLen(rows.read(), len(ids))
    self.assertEqual({len(line) for line in lines}, {len(rows.Row._fields)})

  def test_a_baseline_is_a_row_of_the_same_comparison(self):
    table = rows.read()
    with_baseline = [row for row in table.values() if row.baseline]
    self.assertGreater(len(with_baseline), 150)
    for row in with_baseline:
      base = table[row.baseline]
      self.assertEqual(
        (row.data, row.labels, row.model, row.metric),
        (base.data, base.labels, base.model, base.metric),
        row.id,
      )
      self.assertEqual(base.baseline, base.id, row.id)

  @parameterized.parameters(*((t, *n) for t, n in COUNTS.items()))
  def test_rows_per_table(self, table, own, cited):
    found = rows.match(f'{table}-')
    kinds = collections.Counter(row.kind == 'cited' for row in found)
    self.assertEqual((kinds[False], kinds[True]), (own, cited))

  def test_figures_and_total(self):
    every = [row for row in rows.read().values() if row.paper != 'ours']
    figures = [row.id for row in every if row.kind == 'figure']
    self.assertEqual(figures, FIGURES)
    total = sum(map(sum, COUNTS.values())) + len(FIGURES)
    self.assertLen(every, total)

  def test_own_rows_are_numbered_without_gaps(self):
    for table in COUNTS:
      own = [
        row.id
        for row in rows.match(f'{table}-')
        if row.kind == 'run' and row.id != 'L2-T1-mean'
      ]
      if own and own[0] == f'{table}-1':
        self.assertEqual(own, [f'{table}-{i + 1}' for i in range(len(own))])


class ValueTest(parameterized.TestCase):
  @parameterized.parameters(
    ('NS-T1-3', 'cifar10', 4000, 16.03, 0.05),
    ('NS-T3-2', 'cifar10', 250, 12.48, 1.21),
    ('NS-T5-1', 'stl10', 1000, 22.20, 0.89),
    ('NS-T6-1', 'fashion_mnist', 2000, 17.25, 0.22),
    ('NS-T6-10', 'fashion_mnist', 2000, 15.20, 0.66),
    ('DN-T1-1', 'cifar10', 1000, 87.87, None),
    ('DN-T5-EPM3', 'cifar10', 4000, 94.29, None),
    ('DN-T7-2', 'cifar10', 4000, 0.145, None),
    ('L2-T1-29', 'aflw', 9110, 7.83, None),
    ('L2-T1-mean', 'aflw', 9110, 16.58, None),
    ('DN-T1-c-tssdl-mt-2000', 'cifar10', 2000, 86.46, None),
    ('DN-T1-c-tnar-vae-4000', 'cifar10', 4000, 91.15, None),
    ('L2-T3-7', 'cifar10', 250, 27.72, None),
    ('L2-T5-7', 'tiny_imagenet', 100000, 43.89, 0.31),
    ('L2-F6-V2-100', 'cifar10', 250, 42.47, None),
    ('DN-T4-c-pi-sntg-100', 'mnist', 100, 93.34, None),
  )
  def test_reported(self, row_id, data, labels, reported, std):
    row = rows.find(row_id)
    self.assertEqual(row.data, data)
    self.assertEqual(row.labels, labels)
    self.assertEqual((row.reported, row.reported_std), (reported, std))

  @parameterized.parameters('NS-T1-14', 'NS-T2-1', 'NS-T2-2')
  def test_blank_cells_stay_blank(self, row_id):
    row = rows.find(row_id)
    self.assertIsNone(row.reported)
    self.assertIsNone(row.reported_std)
    self.assertIn('F-N12', row.note)

  def test_only_blank_cells_and_figures_report_nothing(self):
    papers = [row for row in rows.read().values() if row.paper != 'ours']
    silent = [row.id for row in papers if row.reported is None]
    self.assertCountEqual(silent, ['NS-T1-14', 'NS-T2-1', 'NS-T2-2'] + FIGURES)

  def test_metric_by_paper_and_kind(self):
    for row in rows.read().values():
      with self.subTest(row.id):
        self.assertEqual((row.metric, row.unit), _metric(row))

  def test_numbers_are_plausible(self):
    for row in rows.read().values():
      if row.unit == '%' and row.reported is not None:
        self.assertBetween(row.reported, 1, 99.9, row.id)
        self.assertLess(row.reported_std or 0, 2, row.id)

  def test_cells_that_two_tables_share(self):
    for one, other in [
      ('DN-T5-EPM3', 'DN-T2-2'),
      ('DN-T6-4', 'DN-T2-2'),
      ('DN-T6-3', 'DN-T5-EP3'),
      ('L2-F6-V1-50', 'L2-T2-7'),
      ('L2-F6-V2-50', 'L2-T2-10'),
    ]:
      self.assertEqual(rows.find(one).reported, rows.find(other).reported)

  def test_dnlls_table_1_in_full(self):
    """Fourteen quoted methods, two of them at 4,000 labels alone; the rows of
    Mean Teacher and Filtering CCL are the same (F-D10)."""
    cited = [r for r in rows.match('DN-T1-') if r.kind == 'cited']
    names = collections.Counter(row.method for row in cited)
    once = sorted(name for name, count in names.items() if count == 1)
    self.assertEqual(once, ['DCT', 'TNAR-VAE'])
    self.assertEqual(set(names.values()), {1, 3})
    reported = lambda name: [r.reported for r in cited if r.method == name]
    self.assertEqual(reported('Filtering CCL'), reported('MT'))
    self.assertEqual(reported('LP-SSDL-MT'), [83.07, 86.78, 89.39])


class ConfigTest(parameterized.TestCase):
  def test_table_6_is_runnable(self):
    runnable = [row.id for row in rows.read().values() if row.kind != 'cited']
    for i in range(1, 11):
      self.assertIn(f'NS-T6-{i}', runnable)
    arguments = {rows.find(f'NS-T6-{i}').config for i in range(1, 11)}
    self.assertLen(arguments, 10)

  def test_cited_rows_have_no_config(self):
    for row in rows.read().values():
      if row.kind == 'cited':
        self.assertEqual(row.config, '', row.id)
        self.assertFalse(row.kind != 'cited')

  def test_config_files_exist(self):
    paths = {row.config.split(':')[0] for row in rows.read().values()} - {''}
    for path in paths:
      self.assertTrue((ROOT / path).is_file(), path)


class LookupTest(parameterized.TestCase):
  @parameterized.parameters(
    ('NS-T6-88', "did you mean 'NS-T6-8'?"),
    ('ns-t6-8', "did you mean 'NS-T6-8'?"),
    ('NS-F2-1', "did you mean 'NS-F2'?"),
    ('DN-T1-c-pi-100', "did you mean 'DN-T1-c-pi-1000'?"),
    ('NS-T66', "did you mean 'NS-T6'?"),
    ('nonsense', 'known: DIG-1, '),
  )
  def test_unknown_id_suggests_another(self, row_id, hint):
    with self.assertRaises(errors.UserError) as caught:
      rows.find(row_id)
    message = str(caught.exception)
    self.assertIn(repr(row_id), message)
    self.assertIn(hint, message)
    self.assertLess(len(message), 400)

  def test_match_keeps_the_order_of_the_file(self):
    found = [row.id for row in rows.match('NS-T6')]
    self.assertEqual(found, [f'NS-T6-{i}' for i in range(1, 11)])
    self.assertEmpty(rows.match('NS-T66'))


def _metric(row: rows.Row) -> tuple[str, str]:
  """The metric and unit that a row must have."""
  if row.kind == 'figure':
    return '', ''
  if row.kind == 'timing':
    return 'train_seconds_per_step', 's'
  if row.data in ('aflw', 'mnist_points'):
    return 'interocular_error', '%'
  return ('test_accuracy' if row.paper == 'DNLL' else 'test_error'), '%'


if __name__ == '__main__':
  absltest.main()
