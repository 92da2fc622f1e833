"""Marked tables of pages, filled from the ledger.

A mark is the command that prints the table, `<!-- table: python -m nsl_jax
report --match ID -->` (with `--with NAME` behind it, or `--bench NAME`), and
`<!-- end -->`.
"""

import pathlib
import re

from nsl_jax import errors
from nsl_jax.reports import hosts, ledger, tables

_MARK = re.compile('<!-- table:.*')
_BLOCK = re.compile(
  r'(<!-- table: python -m nsl_jax report '
  r'--(match|bench) (\S+)(?: --with (\S+))? -->\n)'
  r'(?:(?!<!-- table:).)*?(<!-- end -->)',
  re.DOTALL,
)


def fill(text: str, folder: pathlib.Path) -> str:
  """A Markdown text with its marked tables updated.

  Args:
    text: the text.
    folder: of the ledger.

  Raises:
    errors.UserError: if the ledger has nothing for a mark, or a mark is not as
      above or has no end.
  """
  results = ledger.read(folder)
  complete = {match.start() for match in _BLOCK.finditer(text)}
  for mark in _MARK.finditer(text):
    if mark.start() not in complete:
      raise errors.UserError(
        f'{mark[0]} is not the mark of a table: add <!-- end --> behind its '
        'table, or correct the command'
      )

  def block(match: re.Match[str]) -> str:
    head, kind, name, added, end = match.groups()
    if kind == 'bench':
      filled = tables.times(folder, name)
    elif added:
      filled = hosts.table(results, name, added)
    else:
      filled = tables.table(results, name)
    return f'{head}\n{filled}\n\n{end}'

  return _BLOCK.sub(block, text)
