"""L2-F2, PTS-F2: losses before and after the second update of L2I.

A panel for the hold-out batch, one for test images, which training does not
use, and one for the loss that the update of the labels lowers: the hold-out
loss after the virtual inner step, with the old and with the updated labels. The
first two may rise, since the optimizer also repeats its momentum (F-L24).
Points are means over seeds and over the steps since the last point.
"""

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from nsl_jax.papers import rows
from nsl_jax.reports import style
from nsl_jax.reports.figures import cells

_POINTS = 150
_PANELS = {
  'held': 'hold-out batch',
  'test': 'test images',
  'virtual': 'hold-out batch, virtual step',
}
_WHEN = {'before': style.ORANGE, 'after': style.BLUE}
_COLUMNS = tuple(f'{what}_{when}' for what in _PANELS for when in _WHEN)


def cell_of(row: rows.Row, *, seeds: int, reduced: int) -> cells.Cell:
  """The run, with log intervals short enough for a curve."""
  cell = cells.make('v1', 'V1', row.config, seeds=seeds, reduced=reduced)
  config = cell.config.copy_and_resolve_references().unlock()
  config.log_every = max(1, config.steps // _POINTS)
  return cell._replace(config=config.lock(), argument='')


def lines_of(trained: cells.Trained) -> list[dict[str, Any]]:
  """Lines of the CSV file, one per point of the curves."""
  return [
    {
      'step': step,
      'seeds': len(log_lines),
      **{
        name: statistics.fmean(line[name] for line in log_lines)
        for name in _COLUMNS
      },
    }
    for step, log_lines in cells.logged(trained, 'train').items()
  ]


def lower(lines: Sequence[dict[str, Any]], panel: str) -> float:
  """Percentage of points at which the loss is lower after than before."""
  lowered = [line[f'{panel}_after'] < line[f'{panel}_before'] for line in lines]
  return 100.0 * sum(lowered) / len(lowered)


def picture(lines: Sequence[dict[str, Any]], title: str) -> bytes:
  """The curves; each title says how often the loss is lower after."""
  figure, panels = style.new(3, 13.0, 4.0)
  steps = [line['step'] for line in lines]
  for panel, (key, name) in zip(panels, _PANELS.items()):
    for moment, color in _WHEN.items():
      values = [line[f'{key}_{moment}'] for line in lines]
      panel.plot(steps, values, color=color, label=moment, linewidth=1.0)
    panel.set(xlabel='step', ylabel='loss', yscale='log')
    panel.set_title(
      f'{name}: lower after at {lower(lines, key):.0f} %', fontsize=9
    )
    panel.grid(alpha=0.3)
    style.legend_below(panel)
  figure.suptitle(title, fontsize=9)
  return style.png(figure)


def draw(
  row: rows.Row, *, seeds: int, reduced: int, workdir: pathlib.Path
) -> style.Drawing:
  """Trains unfinished runs, and draws.

  Raises:
    errors.UserError: for wrong input or missing data.
    errors.TrainingError: if a loss is not finite.
  """
  trained = cells.train([cell_of(row, seeds=seeds, reduced=reduced)], workdir)
  lines = lines_of(trained[0])
  return cells.drawing(
    row,
    trained,
    lines,
    lambda title: picture(lines, title),
    facts={f'lower_{key}': lower(lines, key) for key in _PANELS},
  )
