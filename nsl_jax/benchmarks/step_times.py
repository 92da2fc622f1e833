"""From timed calls to a table of ratios."""

import collections
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

# Times of a method: with the data pipeline, without it, and of inference.
WAYS = FULL, BARE, INFERENCE = 'ms', 'ms_empty', 'ms_inference'


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
  """Median of the ratios of consecutive calls."""
  return statistics.median(a / b for a, b in zip(times, base))


def _whole(number: float | None) -> str:
  return '' if number is None else f'{number:,.0f}'


def table(measured: Mapping[str, Mapping[str, Any]]) -> str:
  """A Markdown table, with ratios to the first row.

  Args:
    measured: result of `step.measure`.
  """
  first = next(iter(measured.values()))
  names = [
    'method',
    'ms/step',
    'min',
    'max',
    *['empty pipeline'] * (BARE in first),
    'ratio',
    'images/s',
    'memory MB',
    *['GFLOP'] * ('gflop' in first),
    'compile s',
    *['inference ms'] * (INFERENCE in first),
  ]
  lines = ['| ' + ' | '.join(names) + ' |', '|' + ' --- |' * len(names)]
  for word, one in measured.items():
    median = statistics.median(one['ms'])
    times = ratio(one['ms'], first['ms'])
    cells = [
      word,
      f'{median:.2f}',
      f'{min(one["ms"]):.2f}',
      f'{max(one["ms"]):.2f}',
      *[f'{statistics.median(one.get(BARE, [0])):.2f}'] * (BARE in first),
      f'{times:.2f}',
      f'{1e3 * one["images"] / median:,.0f}',
      _whole(one['memory_mb']),
      *[_whole(one.get('gflop'))] * ('gflop' in first),
      f'{one["compile_s"]:.1f}',
    ]
    if INFERENCE in one:
      cells.append(f'{statistics.median(one[INFERENCE]):.2f}')
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def beside(rows: Sequence[Mapping[str, Any]], own: str = 'nsl_jax') -> str:
  """A Markdown table of other libraries' steps and ours.

  Args:
    rows: each with `peer`, `method`, `batch`, `median` (ms) and, for a method
      with several variants, `variant`.
    own: the `peer` of our rows.
  """
  lines = [
    '| method | batch | library | ms/step | ours | ms/step | speed |',
    '|' + ' --- |' * 7,
  ]
  ours = collections.defaultdict(list)
  for row in rows:
    if row['peer'] == own:
      ours[row['method'], row['batch']].append(row)
  for row in rows:
    for one in ours[row['method'], row['batch']] * (row['peer'] != own):
      lines.append(
        f'| {row["method"]} | {row["batch"]} | {row["peer"]} | '
        f'{row["median"]:,.0f} | {one["variant"]} | {one["median"]:,.0f} | '
        f'{row["median"] / one["median"]:.2f} |'
      )
  return '\n'.join(lines)
