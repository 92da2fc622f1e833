"""Rows of the papers' tables and figures, and ours, by id.

The table is `rows.csv`; docs/readings.md explains the ids and profiles.
"""

import csv
import importlib.resources
from collections.abc import Sequence
from typing import Any, NamedTuple

from nsl_jax import errors


class Row(NamedTuple):
  """One reported cell; '' or None if the paper has no value."""

  id: str  # paper, table or figure, row: 'NS-T6-8'
  paper: str  # 'NS3L', 'DNLL', 'L2I', or 'ours' for a comparison of our own
  kind: str  # 'run', 'figure', 'timing' or 'cited' (from another paper)
  data: str  # a data set name as configs write it
  labels: int | None
  model: str
  method: str
  profile: str  # the set of hyperparameters, such as 'FM' or 'M-C10+NS'
  config: str  # the argument of --config that runs the row, or ''
  metric: str
  unit: str
  reported: float | None
  reported_std: float | None
  baseline: str  # row of which differences are taken, also its own id, or ''
  note: str


_NUMBERS = {'labels': int, 'reported': float, 'reported_std': float}


def _parse(name: str, text: str) -> Any:
  """The value of one cell: a blank number is None, a blank text is ''."""
  if name not in _NUMBERS:
    return text
  return _NUMBERS[name](text) if text else None


def read() -> dict[str, Row]:
  """All rows by id, in the order of the file (by paper, then by table)."""
  table = importlib.resources.files('nsl_jax.papers').joinpath('rows.csv')
  records = csv.DictReader(table.read_text(encoding='utf-8').splitlines())
  rows = (
    Row._make(_parse(name, record[name]) for name in Row._fields)
    for record in records
  )
  return {row.id: row for row in rows}


def _table(row_id: str) -> str:
  """The paper and table of an id: 'NS-T6' for 'NS-T6-8'."""
  return '-'.join(row_id.split('-')[:2])


def find(row_id: str) -> Row:
  """The row with this id.

  Raises:
    errors.UserError: if there is none; suggests a row of the same table, or
      another table.
  """
  rows = read()
  if row_id in rows:
    return rows[row_id]
  word = row_id.upper()
  siblings = [name for name in rows if _table(name) == _table(word)]
  hint = errors.did_you_mean(word, siblings or set(map(_table, rows)))
  raise errors.UserError(f'no row {row_id!r} in the papers; {hint}')


def match(prefix: str) -> list[Row]:
  """The rows whose id starts with `prefix`, in the order of the file."""
  return [row for row in read().values() if row.id.startswith(prefix)]


def search(words: Sequence[str]) -> list[Row]:
  """The rows that match every word, ignoring case: the start of their id, or
  their data, labels, method, network or paper.
  """

  def has(row: Row, word: str) -> bool:
    word = word.lower()
    described = (row.data, str(row.labels or ''), row.method, row.model)
    return row.id.lower().startswith(word) or any(
      word == text.lower() or (len(word) > 3 and word in text.lower())
      for text in (*described, row.paper, *row.method.split('+'))
    )

  return [
    row for row in read().values() if all(has(row, word) for word in words)
  ]
