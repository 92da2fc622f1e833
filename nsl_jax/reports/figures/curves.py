"""DN-F4, DN-F6, DN-F7: test accuracy against epoch, a line per run.

Read from the logs of the runs. Of two networks a line shows the one with the
lower validation error at that step, or the first without validation images,
since DNLL does not say which network it reports (F-D12). The CSV file also has
the ensemble. The band is one standard deviation over seeds.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib import axes as axes_lib

from nsl_jax.data import split_file
from nsl_jax.papers import rows
from nsl_jax.reports import style
from nsl_jax.reports.figures import cells
from nsl_jax.training import evaluate, summary


class Line(NamedTuple):
  """A cell: its name, label in the legend, and arguments of its config."""

  name: str
  label: str
  words: str


_COMBOS = (
  ('dual_student', 'Dual Student'),
  ('dual_student_dnll', 'Dual Student + DNLL'),
  ('mean_teacher', 'Mean Teacher'),
  ('mean_teacher_dnll', 'Mean Teacher + DNLL'),
)
_ADAPTATION = (
  ('source', 'USPS labels alone'),
  ('target', '7,000 MNIST labels alone'),
  ('mean_teacher', 'Mean Teacher'),
  ('dual_student', 'Dual Student'),
  ('dnll', 'DNLL'),
)
_METHODS = {'DN-F6': _COMBOS, 'DN-F7': _ADAPTATION}
LINES = {
  'DN-F4': [
    Line(f'labels_{count}', f'{count:,} labels', f'labels={count}')
    for count in (1000, 4000)
  ],
  **{
    row_id: [Line(name, label, f'method={name}') for name, label in found]
    for row_id, found in _METHODS.items()
  },
}
_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.GRAY, style.PINK)
# Prefix of a column in the CSV file -> field of the log.
_FIELDS = {'': 'test_error', 'ensemble_': f'test_error{evaluate.ENSEMBLE}'}


def epoch_steps(trained: Sequence[cells.Trained]) -> dict[str, float]:
  """Steps per epoch of the unlabeled images, for every cell.

  A cell without unlabeled images has the value of the first cell with them.
  """
  steps_of = {}
  for cell_run in trained:
    size = cell_run.results['config']['batch']['unlabeled']
    if size:
      seed = cell_run.results['seeds'][0]
      split = split_file.load(cell_run.folder / f'seed_{seed}' / 'split.npz')
      steps_of[cell_run.cell.name] = len(split.unlabeled) / size
  common = next(iter(steps_of.values()))
  return {
    cell_run.cell.name: steps_of.get(cell_run.cell.name, common)
    for cell_run in trained
  }


def _numbers(log_lines: list[dict[str, Any]]) -> dict[str, float | None]:
  """Accuracies in %; None for the ensemble of a single network and for the
  deviation of a single seed."""
  numbers: dict[str, float | None] = {}
  for start, field in _FIELDS.items():
    accuracies = [100.0 - line[field] for line in log_lines if field in line]
    score = summary.score(accuracies, field, '%') if accuracies else {}
    numbers |= {start + name: score.get(name) for name in ('mean', 'std')}
  return numbers


def lines_of(trained: Sequence[cells.Trained]) -> list[dict[str, Any]]:
  """Lines of the CSV file, one per cell and evaluation."""
  lengths = epoch_steps(trained)
  return [
    {
      'cell': cell_run.cell.name,
      'step': step,
      'epoch': round(step / lengths[cell_run.cell.name], 4),
      'seeds': len(log_lines),
      **_numbers(log_lines),
    }
    for cell_run in trained
    for step, log_lines in cells.logged(cell_run, 'eval').items()
  ]


def _plot(
  panel: axes_lib.Axes, lines: list[dict[str, Any]], label: str, color: str
) -> None:
  epochs, means = ([line[k] for line in lines] for k in ('epoch', 'mean'))
  last = summary.plus_minus(means[-1], lines[-1]['std'])
  mark = '.' if len(lines) == 1 else ''
  panel.plot(epochs, means, mark + '-', color=color, label=f'{label}: {last}')
  if all(line['std'] is not None for line in lines):
    low, high = (
      [line['mean'] + sign * line['std'] for line in lines]
      for sign in (-1.0, 1.0)
    )
    panel.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)


def picture(
  lines: list[dict[str, Any]], labels: dict[str, str], title: str
) -> bytes:
  """The curves.

  Args:
    lines: result of `lines_of`.
    labels: by cell, in the order of the legend; the last accuracy is added to
      each.
    title: title of the panel.
  """
  figure, (panel,) = style.new(1, 6.5, 4.5)
  for (name, label), color in zip(labels.items(), _COLOURS):
    _plot(panel, [line for line in lines if line['cell'] == name], label, color)
  panel.set(xlabel='epoch of the unlabeled images', ylabel='test accuracy, %')
  panel.set_title(title, fontsize=9)
  panel.grid(alpha=0.3)
  style.legend_below(panel)
  return style.png(figure)


def draw(
  row: rows.Row, *, seeds: int, reduced: int, workdir: pathlib.Path
) -> style.Drawing:
  """Trains unfinished cells, one after another, and draws.

  Raises:
    errors.UserError: for wrong input or missing data.
    errors.TrainingError: if the loss of a cell is not finite.
  """
  figure_cells = [
    cells.make(
      line.name,
      line.label,
      f'{row.config}:{line.words}',
      seeds=seeds,
      reduced=reduced,
    )
    for line in LINES[row.id]
  ]
  trained = cells.train(figure_cells, workdir)
  lines = lines_of(trained)
  labels = {cell.name: cell.label for cell in figure_cells}
  return cells.drawing(
    row, trained, lines, lambda title: picture(lines, labels, title)
  )
