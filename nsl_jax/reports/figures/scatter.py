"""DN-F8: seconds of a training step against accuracy, a point per method.

The three methods of DNLL's Table 7, timed like that table, alternately and with
50 + 50 images. Each is trained by its config; that of DNLL has more steps, of
128 + 128 images (profile D-13).
"""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from nsl_jax.benchmarks import table7
from nsl_jax.papers import rows
from nsl_jax.reports import style
from nsl_jax.reports.figures import cells
from nsl_jax.training import workdir as workdir_lib

_COLOURS = (style.GRAY, style.BLUE, style.ORANGE)


def times_of(workdir: pathlib.Path, *, steps: int) -> dict[str, Any]:
  """The result of `table7.run`, cached in the folder of the figure.

  Args:
    workdir: the folder.
    steps: maximum number of timed steps; 0 for all.
  """
  path = workdir / 'timing.json'
  if not path.exists():
    full_steps = table7.whole_steps()
    workdir_lib.write_json(
      path, table7.run(reduced=min(steps or full_steps, full_steps))
    )
  return workdir_lib.read_json(path)


def lines_of(
  trained: Sequence[cells.Trained], times: Mapping[str, Any]
) -> list[dict[str, Any]]:
  """Lines of the CSV file, one per method."""
  lines = []
  for cell_run, measured in zip(trained, times['methods'].values()):
    step = measured[table7.TRAINING]
    mean, std = cells.accuracy(cell_run)
    lines.append(
      {
        'cell': cell_run.cell.name,
        'seconds_per_step': statistics.median(step['ms']) / 1e3,
        'min': min(step['ms']) / 1e3,
        'max': max(step['ms']) / 1e3,
        'ratio': step['ratio'],
        'accuracy': mean,
        'accuracy_std': std,
        'seeds': len(cell_run.results['seeds']),
        'steps': cell_run.results['steps'],
      }
    )
  return lines


def picture(
  lines: list[dict[str, Any]], labels: Mapping[str, str], title: str
) -> bytes:
  """The points; bars span the fastest to the slowest call, and one standard
  deviation of the accuracy in both directions.
  """
  figure, (panel,) = style.new(1, 5.5, 4.2)
  for line, color in zip(lines, _COLOURS):
    at = line['seconds_per_step']
    panel.errorbar(
      at,
      line['accuracy'],
      yerr=line['accuracy_std'],
      xerr=[[at - line['min']], [line['max'] - at]],
      fmt='o',
      capsize=3,
      color=color,
      label=labels[line['cell']],
    )
  panel.set(xlabel='seconds per training step', ylabel='test accuracy, %')
  panel.set_xlim(left=0.0)
  panel.set_title(title, fontsize=9)
  panel.grid(alpha=0.3)
  style.legend_below(panel)
  return style.png(figure)


def draw(
  row: rows.Row, *, seeds: int, reduced: int, workdir: pathlib.Path
) -> style.Drawing:
  """Trains unfinished cells, times the methods, and draws.

  Raises:
    errors.UserError: for wrong input or missing data.
    errors.TrainingError: if the loss of a cell is not finite.
  """
  figure_cells = []
  for timed in map(rows.find, table7.ROWS):
    name = timed.method.lower().replace(' ', '_')
    figure_cells.append(
      cells.make(name, timed.method, timed.config, seeds=seeds, reduced=reduced)
    )
  trained = cells.train(figure_cells, workdir)
  times = times_of(workdir, steps=reduced)
  lines = lines_of(trained, times)
  labels = {cell.name: cell.label for cell in figure_cells}
  return cells.drawing(
    row,
    trained,
    lines,
    lambda title: picture(lines, labels, title),
    facts={'timing': times},
  )
