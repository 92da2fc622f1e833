"""Measured scores against an argument of a config, a line per method.

Such as the error against the share of unknown classes, or the number of labels.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nsl_jax import errors
from nsl_jax.papers import rows
from nsl_jax.reports import ledger, style, tables

_COLORS = (style.GRAY, style.BLUE, style.ORANGE, style.GREEN, style.PINK)


class Point(NamedTuple):
  """A run of a row.

  Attributes:
    row: id of the row.
    method: its method.
    value: of the argument.
    mean: of the score, over seeds.
    std: of the score; 0 of a single seed.
    seeds: of the run.
    steps: of the run.
  """

  row: str
  method: str
  value: float
  mean: float
  std: float
  seeds: int
  steps: int


def of_results(
  results: Iterable[ledger.Result], prefix: str, argument: str
) -> list[Point]:
  """The runs of all rows whose config has that argument, by method and value.

  Outdated results are left out; of several runs of a row, the longest counts.

  Args:
    results: of the ledger.
    prefix: of the ids of the rows.
    argument: name of an argument of their configs, with numbers.

  Raises:
    errors.UserError: if there is none, or budgets or metrics differ.
  """
  chosen: dict[str, ledger.Result] = {}
  for run in tables.runs_by_row(results):
    row = rows.find(run['row'])
    has = _argument_of(row.config, argument) is not None
    if not has or not row.id.startswith(prefix) or run.get('outdated'):
      continue
    size = lambda r: (r['steps'], len(r['seeds']))
    chosen[row.id] = max(chosen.get(row.id, run), run, key=size)
  if not chosen:
    raise errors.UserError(
      f'no result of a row {prefix}… whose config has a number as {argument}: '
      'correct --match or --by, or run them by python -m nsl_jax reproduce'
    )
  shared = {
    (tables.budget(run), len(run['seeds']), run['score']['metric'])
    for run in chosen.values()
  }
  if len(shared) > 1:
    raise errors.UserError(
      f'the results of rows {prefix}… differ in steps, protocol, seeds, device '
      'or metric, and cannot be compared: choose others by --match'
    )
  order = list(dict.fromkeys(row.method for row in rows.read().values()))
  points = [_point(run, argument) for run in chosen.values()]
  return sorted(points, key=lambda p: (order.index(p.method), p.value))


def _point(run: ledger.Result, argument: str) -> Point:
  row, score = rows.find(run['row']), run['score']
  return Point(
    row.id,
    row.method,
    _argument_of(row.config, argument) or 0.0,
    score['mean'],
    score['std'] or 0.0,
    len(run['seeds']),
    run['steps'],
  )


def _argument_of(config: str, name: str) -> float | None:
  """The number after `name=` in 'configs/x.py:name=3', or None."""
  _, _, words = config.partition(':')
  pairs = dict(word.partition('=')[::2] for word in words.split(','))
  try:
    return float(pairs.get(name, ''))
  except ValueError:
    return None


def picture(points: Sequence[Point], argument: str) -> bytes:
  """A line per method through the means, with bars of a standard deviation, as
  PNG."""
  figure, (panel,) = style.new(1, 5.0, 4.0)
  methods = list(dict.fromkeys(point.method for point in points))
  for at, method in enumerate(methods):
    line = [point for point in points if point.method == method]
    panel.errorbar(
      [point.value for point in line],
      [point.mean for point in line],
      [point.std for point in line],
      **style.line(at, _COLORS),
      marker='o',
      markersize=4,
      capsize=3,
      label=method,
    )
  row = rows.find(points[0].row)
  panel.set(
    xlabel=argument, ylabel=f'{row.metric.replace("_", " ")}, {row.unit}'
  )
  steps, seeds = points[0].steps, points[0].seeds
  panel.set_title(
    f'{row.data}, {steps:,} steps, {seeds} seed{"s" * (seeds > 1)}', fontsize=9
  )
  style.legend_below(panel)
  return style.png(figure)


def lines(points: Iterable[Point]) -> list[dict[str, Any]]:
  """Lines of the CSV file."""
  return [point._asdict() for point in points]
