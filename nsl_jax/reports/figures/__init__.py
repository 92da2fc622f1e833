"""Figures of the papers, by row id: a file per kind of figure.

A file has `draw(row, *, seeds, reduced, workdir) -> style.Drawing`.
"""

import importlib
import pathlib
from typing import Any

from nsl_jax import files
from nsl_jax.papers import rows

# Row id, or the common prefix of its panels -> file of this folder.
_DRAWN_BY = {
  'NS-F2': 'toy',
  'NS-F3': 'grid',
  'DN-F4': 'curves',
  'DN-F5': 'features',
  'DN-F6': 'curves',
  'DN-F7': 'curves',
  'DN-F8': 'scatter',
  'L2-F2': 'meta',
  'L2-F3': 'examples',
  'PTS-F2': 'meta',
}


def name_of(row_id: str) -> str | None:
  """The file that draws a row, or None."""
  for figure, name in _DRAWN_BY.items():
    if row_id == figure or row_id.startswith(f'{figure}-'):
      return name
  return None


def make(
  row: rows.Row,
  *,
  seeds: int,
  reduced: int,
  workdir: pathlib.Path,
  results: pathlib.Path,
) -> dict[str, Any]:
  """Draws a row and writes its CSV and PNG files under `results/figures`.

  Files have the name of the row, and of the steps if it is reduced, so that a
  short run does not overwrite a full one.

  Args:
    row: row of kind 'figure'.
    seeds: number of seeds.
    reduced: steps of each run; 0 for all.
    workdir: folder of the figure's runs, from which the same call resumes.
    results: folder of the ledger.

  Returns:
    Content of the ledger file.

  Raises:
    errors.UserError: for wrong input, or if the files cannot be written.
  """
  folder = results / 'figures'
  files.make_folder(folder, '--ledger')
  module = importlib.import_module(f'{__name__}.{name_of(row.id)}')
  drawing = module.draw(row, seeds=seeds, reduced=reduced, workdir=workdir)
  stem = f'{row.id}-reduced{reduced}' if reduced else row.id
  files.write_csv(folder / f'{stem}.csv', drawing.lines)
  files.write(folder / f'{stem}.png', drawing.png)
  return {
    'row': row.id,
    'kind': 'figure',
    'files': [f'figures/{stem}.png', f'figures/{stem}.csv'],
    **drawing.content,
  }
