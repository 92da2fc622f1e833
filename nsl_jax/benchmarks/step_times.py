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


def _rounded(number: float | None) -> str:
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
  for word, trial in measured.items():
    median = statistics.median(trial['ms'])
    times = ratio(trial['ms'], first['ms'])
    cells = [
      word,
      f'{median:.2f}',
      f'{min(trial["ms"]):.2f}',
      f'{max(trial["ms"]):.2f}',
      *[f'{statistics.median(trial.get(BARE, [0])):.2f}'] * (BARE in first),
      f'{times:.2f}',
      f'{1e3 * trial["images"] / median:,.0f}',
      _rounded(trial['memory_mb']),
      *[_rounded(trial.get('gflop'))] * ('gflop' in first),
      f'{trial["compile_s"]:.1f}',
    ]
    if INFERENCE in trial:
      cells.append(f'{statistics.median(trial[INFERENCE]):.2f}')
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def beside(rows: Sequence[Mapping[str, Any]], our_peer: str = 'nsl_jax') -> str:
  """A Markdown table of other libraries' steps and ours.

  Args:
    rows: each with `peer`, `method`, `batch`, `median` (ms) and, for a method
      with several variants, `variant`.
    our_peer: the `peer` of our rows.
  """
  lines = [
    '| method | batch | library | ms/step | ours | ms/step | speed |',
    '|' + ' --- |' * 7,
  ]
  ours = collections.defaultdict(list)
  for row in rows:
    if row['peer'] == our_peer:
      ours[row['method'], row['batch']].append(row)
  for row in rows:
    for cell in ours[row['method'], row['batch']] * (row['peer'] != our_peer):
      lines.append(
        f'| {row["method"]} | {row["batch"]} | {row["peer"]} | '
        f'{row["median"]:,.0f} | {cell["variant"]} | {cell["median"]:,.0f} | '
        f'{row["median"] / cell["median"]:.2f} |'
      )
  return '\n'.join(lines)
