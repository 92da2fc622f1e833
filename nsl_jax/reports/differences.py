"""Reported against measured differences from a table's baseline, a dot per row.

The papers do not state every network and budget, so errors of a reproduction
differ as a whole; what a method adds to the baseline of its table should not.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import axes as axes_lib

from nsl_jax import errors
from nsl_jax.papers import rows
from nsl_jax.reports import ledger, style, tables

_TICKS = (-30, -10, -5, -2, -1, 0, 1, 2, 5, 10, 30)


class Difference(NamedTuple):
  """A row of a paper and our run of it, each less its baseline, in %.

  Attributes:
    row: id of the row.
    method: its method.
    reported: of the paper; negative is better than the baseline.
    measured: of the run, the mean over the seeds that its baseline has too.
    std: sample standard deviation of these differences; None of a single seed.
    seeds: number of these seeds.
    steps: of the run.
    reduced: whether the run is shorter than the protocol says.
  """

  row: str
  method: str
  reported: float
  measured: float
  std: float | None
  seeds: int
  steps: int
  reduced: bool


def of_results(
  results: Iterable[ledger.Result], match: str = ''
) -> list[Difference]:
  """The differences of all rows with a number in their paper, except baselines
  and outdated results; of several runs of a row, a full and a reduced one with
  the most seeds.

  Args:
    results: of the ledger.
    match: start of the ids of the rows.

  Raises:
    errors.UserError: if there is none.
  """
  runs = tables.runs_by_row(results)
  chosen: dict[tuple[str, bool], Difference] = {}
  for run in runs:
    row = rows.find(run['row'])
    reported = tables.reported_difference(row)
    by_seed = tables.differences_by_seed(row, run, runs)
    if row.id == row.baseline or run.get('outdated'):
      continue
    if not row.id.startswith(match):
      continue
    if reported is None or not by_seed:
      continue
    difference = Difference(
      row.id,
      row.method,
      reported,
      statistics.fmean(by_seed),
      statistics.stdev(by_seed) if len(by_seed) > 1 else None,
      len(by_seed),
      run['steps'],
      run['reduced'],
    )
    key = row.id, run['reduced']
    if key not in chosen or chosen[key].seeds < difference.seeds:
      chosen[key] = difference
  if not chosen:
    raise errors.UserError(
      f'no result of a row that starts with {match!r} has a reported number '
      'and a run of its baseline at the same steps with the same seeds: run '
      'both by python -m nsl_jax reproduce'
    )
  order = list(rows.read())
  return sorted(chosen.values(), key=lambda d: (d.reduced, order.index(d.row)))


def picture(differences: Sequence[Difference]) -> bytes:
  """A panel of full and one of reduced runs with the same axes, as PNG."""
  figure, panels = style.new(2, 10.0, 4.8)
  reported = [d.reported for d in differences]
  measured = [d.measured for d in differences]
  x_range = min(-1.0, *reported) - 0.3, max(1.0, *reported) + 0.3
  y_range = 1.4 * min(-2.0, *measured), 1.4 * max(2.0, *measured)
  for panel, reduced in zip(panels, (False, True)):
    # Random negatives hurt tens of times as much as the others differ.
    panel.set_yscale('symlog', linthresh=2.0)
    ticks = [t for t in _TICKS if y_range[0] <= t <= y_range[1]]
    panel.set_yticks(ticks, [f'{t:g}' for t in ticks])
    panel.minorticks_off()
    panel.set(
      xlim=x_range,
      ylim=y_range,
      xlabel='reported difference from the baseline, %',
      ylabel='measured difference, %',
    )
    panel.axhline(0.0, color=style.GRAY, linewidth=0.8)
    panel.axvline(0.0, color=style.GRAY, linewidth=0.8)
    line = np.linspace(*x_range, 200)
    panel.plot(line, line, ':', color=style.GRAY, label='measured as reported')
    dots = [d for d in differences if d.reduced == reduced]
    name = 'reduced runs' if reduced else 'full runs'
    color = style.ORANGE if reduced else style.BLUE
    _plot_dots(panel, dots, color, sum(x_range) / 2)
    panel.set_title(f'{name}: {_count(len(dots))}', fontsize=9)
    style.legend_below(panel)
  return style.png(figure)


def _plot_dots(
  panel: axes_lib.Axes, dots: Sequence[Difference], color: str, middle: float
) -> None:
  """The dots, with a standard deviation over seeds, and names to the left of
  those on the right side."""
  panel.errorbar(
    [d.reported for d in dots],
    [d.measured for d in dots],
    [d.std or 0.0 for d in dots],
    fmt='o',
    color=color,
    markersize=5,
    elinewidth=0.8,
    label='a row, ± standard deviation over seeds',
  )
  for at, dot in enumerate(sorted(dots, key=lambda d: d.measured)):
    left = dot.reported > middle if abs(dot.measured) > 1.0 else at % 2
    panel.annotate(
      f'{dot.row} {dot.method}' + ' (1 seed)' * (dot.seeds == 1),
      (dot.reported, dot.measured),
      xytext=(-6 if left else 6, 0),
      textcoords='offset points',
      ha='right' if left else 'left',
      va='center',
      fontsize=6,
    )


def _count(number: int) -> str:
  return '1 row' if number == 1 else f'{number} rows'


def lines(differences: Iterable[Difference]) -> list[dict[str, Any]]:
  """Lines of the CSV file."""
  return [difference._asdict() for difference in differences]
