"""Writes the pages that state what the code has: python docs/pages.py

commands.md comes from the parsers of the commands, configs.md from the first
lines of the configs, the rows of the papers and the ledger. A test compares
both with what this writes.
"""

import argparse
import ast
import importlib
import pathlib
import re
from unittest import mock

from nsl_jax import __main__ as main_lib
from nsl_jax.commands import cli
from nsl_jax.papers import rows
from nsl_jax.reports import ledger
from nsl_jax.training import summary

ROOT = pathlib.Path(__file__).resolve().parent.parent
_NOTE = (
  '<!-- Written by `python docs/pages.py`: change the code, then run it. -->'
)
_UNITS = {'test_accuracy': '% accuracy'}  # others are errors
_FIRST = ('digits_ns3l', 'digits_supervised', 'folder')


class _Parsed(Exception):
  """Raised with the parser of a command in place of parsing."""


def _parser(name: str) -> cli.Parser:
  """The parser of a command."""

  def stop(parser, argv=None):
    raise _Parsed(parser)

  module = 'main' if name == 'train' else f'commands.{name}'
  command = importlib.import_module(f'nsl_jax.{module}')
  with mock.patch.object(cli.Parser, 'parse_args', stop):
    try:
      command.main([])
    except _Parsed as parsed:
      return parsed.args[0]
  raise AssertionError(f'{name} parses nothing')


def _table(header: tuple[str, ...], lines: list[list[str]]) -> str:
  """A Markdown table."""
  every = [list(header), ['---'] * len(header), *lines]
  cell = lambda text: ' '.join(text.split()).replace('|', '\\|')
  return '\n'.join(f'| {" | ".join(map(cell, line))} |' for line in every)


def _option(action: argparse.Action) -> list[str]:
  """The line of one option or argument."""
  value = action.metavar or ('' if action.option_strings else action.dest)
  if action.choices:
    value = ' or '.join(map(str, action.choices))
  elif not value and action.nargs != 0:
    value = action.dest.upper()
  if isinstance(value, tuple):
    value = ' '.join(value)
  more = ' ...' if action.nargs in ('*', '+') else ''
  words = [*action.option_strings[:1], *filter(None, [value])]
  text = (action.help or '').replace('%%', '%')
  default = action.default
  stated = default in (None, False, '', 0, [], argparse.SUPPRESS)
  if not (stated or 'default' in text):
    text += f' (default: {default})'
  return [f'`{" ".join(words)}{more}`', text]


def commands() -> str:
  """The page of all commands and their options."""
  parts = [
    '# Commands',
    _NOTE,
    'A command is `python -m nsl_jax NAME`, or `nsl-jax NAME`; `--help` after '
    'it prints what is below. Input that is wrong ends a command with one line '
    'and status 2; `--verbosity=1` shows the traceback.',
    _table(
      ('command', 'does'),
      [[f'[{k}](#{k})', what] for k, what in main_lib.COMMANDS.items()],
    ),
  ]
  for name in main_lib.COMMANDS:
    parser = _parser(name)
    listed = [a for a in parser._actions if a.dest not in ('help', 'verbosity')]
    parts += [
      f'## {name}',
      f'```text\n{(parser.description or "").strip()}\n```',
      _table(('option', 'meaning'), [_option(action) for action in listed]),
    ]
  return '\n\n'.join(parts) + '\n'


def _header(path: pathlib.Path) -> str:
  return ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''


def _field(header: str, name: str) -> str:
  """The text behind `Time:` or the like in the first lines of a config."""
  found = re.search(rf'(?ms)^{name}: (.*?)(?=^[A-Z]\w+:|^\s*$|\Z)', header)
  return ' '.join(found[1].split()) if found else ''


def _paper(row: rows.Row) -> str:
  if row.paper == 'ours':
    return ''
  if row.kind == 'figure':
    return 'figure'
  if row.reported is None:
    return 'blank'
  if row.kind == 'timing':
    return f'{row.reported:g} s a step'
  text = summary.plus_minus(row.reported, row.reported_std)
  return f'{text} {_UNITS.get(row.metric, row.unit)}'


def _minutes(seconds: float) -> str:
  return f'{seconds / 60:.0f} min' if seconds > 90 else f'{seconds:.0f} s'


def _ours(row: rows.Row, results: list[ledger.Result]) -> list[list[str]]:
  """Number, budget and time of each result of a row."""
  found = []
  for result in results:
    if row.id not in result['row'].split():
      continue
    mark = ' †' if result.get('outdated') else ''
    score = result.get('score')
    text = f'`results/figures/{row.id}*`'
    if result['kind'] == 'timing':
      text = 'a timing'
    elif score:
      unit = _UNITS.get(score['metric'], score['unit'])
      text = f'{summary.plus_minus(score["mean"], score["std"])} {unit}'
    seeds, steps = len(result['seeds']), f'{result["steps"]:,}'
    if result['reduced']:
      steps += f' of {result["full_steps"]:,}'
    budget = f'{seeds} seed{"s" * (seeds > 1)}, {steps} steps'
    found.append([text + mark, budget, _minutes(result['wall_time_s'])])
  return found or [['', '', '']]


def _config(name: str, results: list[ledger.Result]) -> list[str]:
  """What the page says of one config."""
  path = f'configs/{name}.py'
  header = _header(ROOT / path)
  command = re.sub(r'\s*\\\n\s*', ' ', header)
  command = re.search(r'(?m)^python -m nsl_jax.*$', command)[0]
  parts = [
    f'## {name}',
    f'{header.partition(chr(10))[0]} [The file](../{path}).',
    f'`{command}`',
  ]
  for field in ('Time', 'Arguments'):
    parts.append(f'{field}: {_field(header, field)}')
  lines = []
  for row in rows.read().values():
    if row.config.partition(':')[0] != path:
      continue
    words = row.config.partition(':')[2]
    for ours in _ours(row, results):
      lines.append(
        [row.id, row.method, f'`{words}`' if words else '', _paper(row), *ours]
      )
  if lines:
    titles = ('row', 'method', 'arguments', 'paper', 'ours', 'budget', 'time')
    parts.append(_table(titles, lines))
  return parts


def configs() -> str:
  """The page of all configs."""
  names = sorted(
    path.stem
    for path in (ROOT / 'configs').glob('*.py')
    if path.stem not in ('common', *_FIRST)
  )
  parts = [
    '# Configs',
    _NOTE,
    'A config is a Python file with the numbers of an experiment; its first '
    'lines say what it costs and gives. Arguments follow the file, joined by '
    'commas: `--config=configs/digits_ns3l.py:labels=20,seeds=3`. Every config '
    'also takes those of [Training](training.md) (folder.py: steps=N in place '
    'of reduced and quick), and any of its fields is set by '
    '`--config.FIELD=VALUE`.',
    '*paper* and *ours* are errors on the test images (accuracies where it '
    'says so), mean ± standard deviation over seeds. *time* is that of all '
    'seeds, with pauses of the process, on one or two cores of a CPU, the only '
    'machines that these results were made on. † is outdated: '
    '`python -m nsl_jax report` says why. A row without *ours* is not run. '
    'How rows are named is in [How we read the papers](readings.md#row-ids).',
  ]
  results = ledger.read(ROOT / 'results')
  for name in (*_FIRST, *names):
    parts += _config(name, results)
  return '\n\n'.join(filter(None, parts)) + '\n'


PAGES = {'commands.md': commands, 'configs.md': configs}


def main() -> None:
  """Writes the pages."""
  for name, page in PAGES.items():
    (ROOT / 'docs' / name).write_text(page(), encoding='utf-8')


if __name__ == '__main__':
  main()
