"""What a term or method adds to others: each host alone and with it.

Rows name it behind a plus sign, as in `MixMatch+NS3L`; on nothing else its host
is supervised training.
"""

from collections.abc import Iterable

from nsl_jax import errors
from nsl_jax.papers import rows
from nsl_jax.reports import ledger, tables
from nsl_jax.training import summary

_ALONE = 'Supervised'
_SAME = ('seeds', 'split_sha256')  # of a pair
_HEADER = (
  'rows',
  'data',
  'host',
  'alone',
  'difference by seed',
  'lower',
  'steps',
)


def _host(row: rows.Row, added: str) -> str | None:
  """The method that the row adds it to; None for other rows."""
  host, plus, last = row.method.rpartition('+')
  if last.lower() != added.lower():
    return None
  return host if plus else _ALONE


def _line(
  row: rows.Row, result: ledger.Result, host: str, alone: ledger.Result
) -> list[str]:
  pairs = zip(
    result['score']['per_seed'], alone['score']['per_seed'], strict=True
  )
  changes = [added - without for added, without in pairs]
  change = summary.score(changes, '', '%')
  text = summary.plus_minus(change['mean'], change['std'])
  return [
    f'{alone["row"]}, {result["row"]}',
    f'{row.data}@{row.labels}',
    host,
    *(
      summary.plus_minus(r['score']['mean'], r['score']['std'])
      for r in (alone, result)
    ),
    '+' * (change['mean'] >= 0.0) + text,
    f'{sum(change < 0.0 for change in changes)} of {len(changes)}',
    tables.steps_of(result),
  ]


def table(results: Iterable[ledger.Result], match: str, added: str) -> str:
  """A Markdown table of hosts, with the mean and the sample standard deviation
  of the differences by seed.

  A pair has the same baseline, budget, seeds and splits; outdated results are
  left out.

  Args:
    results: of the ledger.
    match: start of the ids of the rows.
    added: a term or method as rows name it, such as `NS3L`, in any case.

  Raises:
    errors.UserError: if there is none.
  """
  row_of = rows.read()
  order = list(row_of)
  runs = [
    run
    for run in tables.runs_by_row(results)
    if run['row'].startswith(match) and not run.get('outdated')
  ]
  runs.sort(key=lambda run: (order.index(run['row']), -run['steps']))
  name, lines = added, []
  for run in runs:
    row = row_of[run['row']]
    host = _host(row, added)
    for other in runs:
      candidate = row_of[other['row']]
      if (
        (candidate.method, candidate.baseline) == (host, row.baseline)
        and tables.budget(other) == tables.budget(run)
        and all(other.get(field) == run.get(field) for field in _SAME)
      ):
        name = row.method.rpartition('+')[2]
        lines.append(_line(row, run, candidate.method, other))
  if not lines:
    raise errors.UserError(
      f'no result of a row that starts with {match!r} has {added} and one of '
      'its host at the same steps, seeds and splits'
    )
  header = [*_HEADER[:4], f'with {name}', *_HEADER[4:]]
  return '\n'.join(
    '| ' + ' | '.join(cells) + ' |'
    for cells in (header, ['---'] * len(header), *lines)
  )
