"""Figures are found by row id, and their files are named and kept apart."""

import contextlib
import csv
import importlib
import io
import os
import pathlib
import tempfile
from unittest import mock

import temporary
from absl.testing import absltest, parameterized

from nsl_jax import errors, files
from nsl_jax.commands import reproduce
from nsl_jax.papers import rows
from nsl_jax.reports import figures, ledger, style, tables
from nsl_jax.reports.figures import toy
from nsl_jax.training import config as config_lib, workdir as workdir_lib

PNG = b'\x89PNG\r\n'
CONTENT = {
  'seeds': [0, 1],
  'steps': 7,
  'full_steps': 70,
  'reduced': True,
  'device': '1 x cpu (cpu; host: 2 cores)',
  'cells': [],
}


def read_csv(path):
  with path.open() as file:
    return list(csv.DictReader(file))


class FindTest(parameterized.TestCase):
  @parameterized.parameters(
    ('NS-F2', 'toy'),
    ('NS-F3-L', 'grid'),
    ('NS-F3-M', 'grid'),
    ('NS-F3-R', 'grid'),
    ('NS-F', None),
    ('NS-F22', None),
    ('NS-T6-8', None),
    ('L2-F3', 'examples'),
    ('DN-F4', 'curves'),
    ('DN-F5', 'features'),
    ('DN-F6', 'curves'),
    ('DN-F7', 'curves'),
    ('DN-F8', 'scatter'),
    ('L2-F2', 'meta'),
    ('PTS-F2', 'meta'),
    ('PTS-2', None),
  )
  def test_by_id(self, row_id, name):
    self.assertEqual(figures.name_of(row_id), name)

  def test_figures_that_can_be_drawn_are_ready_with_their_own_data(self):
    ready = []
    for row in rows.read().values():
      drawn = figures.name_of(row.id)
      if drawn is None:
        continue
      ready.append(row.id)
      self.assertEqual(row.kind, 'figure')
      module = importlib.import_module(f'nsl_jax.reports.figures.{drawn}')
      self.assertTrue(hasattr(module, 'draw'))
      if row.config:
        config = config_lib.load(row.config)
        self.assertEqual(config.data.name, row.data)
        if row.labels is not None:  # DN-F4 has two numbers of labels
          self.assertEqual(config.data.labeled, row.labels)
    self.assertContainsSubset(
      {
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
        'PTS-F2',
      },
      ready,
    )

  def test_every_figure_is_drawn(self):
    for row in rows.read().values():
      if row.kind == 'figure':
        self.assertIsNotNone(figures.name_of(row.id), row.id)


class MakeTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    self.row = rows.find('NS-F2')

  def _make(self, reduced=0, lines=({'a': 1.5, 'b': None},)):
    drawing = style.Drawing(PNG, list(lines), CONTENT)
    with mock.patch.object(toy, 'draw', return_value=drawing) as draw:
      content = figures.make(
        self.row,
        seeds=2,
        reduced=reduced,
        workdir=self.folder / 'runs',
        results=self.folder,
      )
    draw.assert_called_once_with(
      self.row, seeds=2, reduced=reduced, workdir=self.folder / 'runs'
    )
    return content

  def test_files_beside_one_another(self):
    content = self._make()
    self.assertEqual(
      content,
      {
        'row': 'NS-F2',
        'kind': 'figure',
        'files': ['figures/NS-F2.png', 'figures/NS-F2.csv'],
        **CONTENT,
      },
    )
    picture, table = (self.folder / name for name in content['files'])
    self.assertEqual(picture.read_bytes(), PNG)
    self.assertEqual(table.read_text(), 'a,b\n1.5,\n')
    self.assertCountEqual(
      os.listdir(self.folder / 'figures'), ['NS-F2.png', 'NS-F2.csv']
    )  # nothing half written

  def test_a_reduced_one_does_not_take_the_place_of_the_whole(self):
    self._make()
    content = self._make(reduced=7, lines=[{'a': 2}])
    self.assertEqual(
      content['files'],
      ['figures/NS-F2-reduced7.png', 'figures/NS-F2-reduced7.csv'],
    )
    self.assertEqual(
      (self.folder / 'figures' / 'NS-F2.csv').read_text(), 'a,b\n1.5,\n'
    )

  def test_a_place_that_cannot_be_written_is_known_before_drawing(self):
    (self.folder / 'figures').write_text('')
    with mock.patch.object(toy, 'draw') as draw:
      with self.assertRaisesRegex(errors.UserError, 'choose another'):
        figures.make(
          self.row, seeds=1, reduced=0, workdir=self.folder, results=self.folder
        )
    draw.assert_not_called()

  def test_an_old_file_survives_a_failed_write(self):
    path = self.folder / 'x.csv'
    files.write_csv(path, [{'a': 1}])
    with mock.patch.object(os, 'replace', side_effect=OSError(28, 'full')):
      with self.assertRaisesRegex(errors.UserError, 'full'):
        files.write_csv(path, [{'a': 2}])
    self.assertEqual(path.read_text(), 'a\n1\n')


class CommandTest(absltest.TestCase):
  def test_the_toy_from_the_command_to_the_ledger(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      reproduce.main(
        [
          '--row=NS-F2',
          '--reduced=2',
          f'--ledger={folder}',
          f'--workdir={folder / "runs"}',
        ]
      )
    path = folder / 'NS-F2-cpu-reduced2-seeds1.json'
    self.assertIn(
      f'figures/NS-F2-reduced2.png, figures/NS-F2-reduced2.csv -> {path}',
      printed.getvalue(),
    )
    content = workdir_lib.read_json(path)
    lines = read_csv(folder / 'figures' / 'NS-F2-reduced2.csv')
    self.assertLen(lines, len(toy.RULES))
    self.assertEqual(
      [float(line['end']) for line in lines],
      [cell['end'] for cell in content['cells']],
    )
    self.assertEqual(content['kind'], 'figure')
    self.assertEqual((content['steps'], content['reduced']), (2, True))
    self.assertIn('matplotlib', content['versions'])
    self.assertIn('jax', content['versions'])
    # The ledger takes it, and keeps it out of the tables of runs.
    found = ledger.read(folder)
    self.assertLen(found, 1)
    with self.assertRaisesRegex(errors.UserError, 'no result'):
      tables.table(found, 'NS-F2')


if __name__ == '__main__':
  absltest.main()
