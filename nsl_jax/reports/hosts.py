"""What a term or method adds to others: each host alone and with it.

Rows name it behind a plus sign, as in `MixMatch+NS3L`; on nothing else its host
is supervised training.
"""

import statistics
from collections.abc import Iterable

from nsl_jax import errors
from nsl_jax.papers import rows
from nsl_jax.reports import tables
from nsl_jax.training import summary

_ALONE = 'Supervised'
_SAME = ('seeds', 'split_sha256')  # of a pair


def _host(row: rows.Row, added: str) -> str | None:
  """The method that the row adds it to; None for other rows."""
  host, plus, last = row.method.rpartition('+')
  if last.lower() != added.lower():
    return None
  return host if plus else _ALONE


def _line(row: rows.Row, result: tables.Result, host: tables.Result) -> str:
  score, alone = result['score'], host['score']
  pairs = list(zip(score['per_seed'], alone['per_seed'], strict=True))
  changes = [ours - theirs for ours, theirs in pairs]
  spread = statistics.stdev(changes) if len(changes) > 1 else None
  steps = str(result['steps'])
  if result['reduced']:
    steps += f' (reduced from {result["full_steps"]})'
  cells = [
    f'{row.data}@{row.labels}',
    host['method'],
    summary.plus_minus(alone['mean'], alone['std']),
    summary.plus_minus(score['mean'], score['std']),
    f'{statistics.mean(changes):+.2f}'
    + ('' if spread is None else f' ± {spread:.2f}'),
    f'{sum(change < 0.0 for change in changes)} of {len(changes)}',
    steps,
  ]
  return '| ' + ' | '.join(cells) + ' |'


def table(results: Iterable[tables.Result], match: str, added: str) -> str:
  """A Markdown table of hosts, with the mean and the sample standard deviation
  of the differences by seed.

  A pair has the same baseline, budget, seeds and splits; outdated results are
  left out.

  Args:
    results: of the ledger.
    match: start of the ids of the rows.
    added: a term or method as rows name it, such as `NS3L`, in any case.

  Raises:
    errors.UserError: if there is no such pair.
  """
  row_of = rows.read()
  order = {row_id: at for at, row_id in enumerate(row_of)}
  runs = [
    {**run, 'method': row_of[run['row']].method}
    for run in tables.runs_by_row(results)
    if run['row'].startswith(match) and not run.get('outdated')
  ]
  name, lines = added, []
  for run in sorted(runs, key=lambda run: (order[run['row']], -run['steps'])):
    row = row_of[run['row']]
    host = _host(row, added)
    if host is None:
      continue
    name = row.method.rpartition('+')[2]
    lines += [
      _line(row, run, other)
      for other in runs
      if other['method'] == host
      and row_of[other['row']].baseline == row.baseline
      and tables.budget(other) == tables.budget(run)
      and all(other.get(field) == run.get(field) for field in _SAME)
    ]
  if not lines:
    raise errors.UserError(
      f'no result of a row that starts with {match!r} has {added} and one of '
      'its host at the same steps, seeds and splits'
    )
  header = (
    'data',
    'host',
    'alone',
    f'with {name}',
    'difference by seed',
    'lower',
    'steps',
  )
  head = [header, ['---'] * len(header)]
  return '\n'.join(['| ' + ' | '.join(cells) + ' |' for cells in head] + lines)
