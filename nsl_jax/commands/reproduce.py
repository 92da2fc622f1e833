"""Reproduces results of the papers by id: python -m nsl_jax reproduce --list

--list mixmatch cifar10 250 lists the rows that match all of these words,
ignoring case. The same command resumes a run. It writes one JSON file beside
the run, to WORKDIR/ROW-SIZE/, or to the folder of --ledger, from which `python
-m nsl_jax report` makes its tables; for a figure also the image and its
numbers, to figures/ in that folder. Rows of a table of times are measured
together and printed. `python -m nsl_jax plot` plots the curves of a run.

Jobs of a cluster can train one seed each: --first_seed 2 is the third. The
report joins their files, if they are in one folder.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from nsl_jax import errors, files
from nsl_jax.benchmarks import table7
from nsl_jax.commands import cli
from nsl_jax.papers import rows
from nsl_jax.reports import figures
from nsl_jax.training import (
  config as config_lib,
  experiment,
  summary,
  workdir as workdir_lib,
)


def list_rows(selected: list[rows.Row]) -> str:
  """Prints one line per row."""
  lines = []
  for row in selected:
    labels = f'@{row.labels}' if row.labels else ''
    value = summary.plus_minus(row.reported, row.reported_std) or '-'
    if row.kind == 'timing':
      value = f'{row.reported:g}'
    command = f'--row {row.id}' if row.kind != 'cited' else ''
    lines.append(
      f'{row.id:<18} {row.kind:<7} {row.data + labels:<20} '
      f'{row.model:<22} {row.method:<24} {value:>15} {row.unit:<2} '
      f'{command or row.kind}'
    )
  return '\n'.join(lines)


def file_name(row_id: str, content: dict[str, Any], platform: str) -> str:
  """Name of the ledger file of a result."""
  size = f'reduced{content["steps"]}' if content['reduced'] else 'full'
  first, count = min(content['seeds']), len(content['seeds'])
  seeds = f'seeds{count}'
  if first:
    seeds = f'seeds{first}-{first + count - 1}' if count > 1 else f'seed{first}'
  return f'{row_id}-{platform}-{size}-{seeds}.json'


def _run(
  row: rows.Row,
  *,
  first_seed: int,
  seeds: int,
  reduced: int,
  workdir: files.Path,
) -> dict[str, Any]:
  config = config_lib.load(row.config, seeds=seeds, reduced=reduced)
  with config.unlocked():
    config.seed = first_seed
  if row.id not in config.row.split():
    raise errors.UserError(f'{row.config} is row {config.row}, not {row.id}')
  return experiment.run(config, workdir)


def reproduce(
  row: rows.Row,
  *,
  seeds: int,
  reduced: int,
  workdir: files.Path,
  first_seed: int = 0,
  ledger: pathlib.Path | None = None,
) -> pathlib.Path:
  """Trains the seeds of a row, or plots or times it, and writes its file.

  Args:
    row: the result of a paper.
    seeds: number of seeds.
    reduced: steps to train, every horizon scaled; 0 for all.
    workdir: folder that contains the row's folder.
    first_seed: number of the first seed; not of figures and times.
    ledger: folder of the file; None for the row's folder.

  Returns:
    The path of the file.

  Raises:
    errors.UserError: if the row has no command, cannot start at this seed, or
      `ledger` is not a writable folder.
  """
  if row.kind == 'cited':
    raise errors.UserError(
      f'row {row.id} is cited from another paper and cannot be run: '
      f'{row.method}, {row.model}'
    )
  if first_seed < 0:
    raise errors.UserError(f'--first_seed={first_seed}: must be at least 0')
  if first_seed and row.kind != 'run':
    raise errors.UserError(
      f'--first_seed={first_seed}: row {row.id} is a {row.kind}, which needs '
      'all of its seeds at once'
    )
  size = f'reduced{reduced}' if reduced else 'full'
  size += f'-from{first_seed}' if first_seed else ''
  folder = workdir / f'{row.id}-{size}'
  results = folder if ledger is None else ledger
  files.make_folder(results, '--workdir' if ledger is None else '--ledger')
  name = row.id
  if row.kind == 'figure':
    content = figures.make(
      row, seeds=seeds, reduced=reduced, workdir=folder, results=results
    )
  elif row.kind == 'timing':
    content, name = table7.run(seeds=seeds, reduced=reduced), table7.TABLE
  else:
    content = _run(
      row, first_seed=first_seed, seeds=seeds, reduced=reduced, workdir=folder
    )
  path = results / file_name(name, content, jax.default_backend())
  workdir_lib.write_json(path, content)
  return path


def _headline(content: dict[str, Any]) -> str:
  """The score of a run, the files of a figure, a table of times."""
  if content['kind'] == 'timing':
    return f'{content["device"]}\n{table7.table(content)}\n'
  if content['kind'] == 'figure':
    return ', '.join(content['files'])
  score = content['score']
  text = summary.plus_minus(score['mean'], score['std'])
  return f'{score["metric"]} {text} {score["unit"]}'


def _parser() -> cli.Parser:
  parser = cli.Parser('reproduce', __doc__)
  parser.add_argument(
    '--list',
    nargs='*',
    metavar='WORD',
    help='list the rows, or those that match all of these words by id, data, '
    'labels, method, network or paper',
  )
  parser.add_argument('--row', help='id of the row to run, such as NS-T6-8')
  parser.add_argument('--seeds', type=int, default=1, help='number of seeds')
  parser.add_argument(
    '--first_seed',
    type=int,
    default=0,
    metavar='SEED',
    help='first of these seeds, to train the seeds of a row in several jobs',
  )
  parser.add_argument(
    '--reduced',
    type=int,
    default=0,
    metavar='STEPS',
    help='train so many steps, every horizon scaled, instead of all',
  )
  parser.add_argument(
    '--workdir',
    default=pathlib.Path('runs'),
    type=cli.path_of('--workdir'),
    help='folder that contains a folder per row (default: runs)',
  )
  parser.add_argument(
    '--ledger',
    type=cli.local_path,
    metavar='DIR',
    help='write the result to this folder, such as results, instead of the '
    "row's",
  )
  return parser


def main(argv: Sequence[str] | None = None) -> None:
  """Lists or runs."""
  parser = _parser()
  options = parser.parse_args(argv)
  parser.refuse_ignored(options, {'list': ()})
  if options.list is not None:
    selected = rows.search(options.list)
    if not selected:
      raise errors.UserError(
        f'no row has all of {" ".join(options.list)}: give fewer words'
      )
    print(list_rows(selected))
    return
  if options.row is None:
    raise errors.UserError('give --list, or --row ID (see --help)')
  path = reproduce(
    rows.find(options.row),
    seeds=options.seeds,
    reduced=options.reduced,
    workdir=options.workdir,
    first_seed=options.first_seed,
    ledger=options.ledger,
  )
  print(f'{options.row}: {_headline(workdir_lib.read_json(path))} -> {path}')
