"""Reproduces results of the papers by id: python -m nsl_jax.reproduce --list

  --list [--match NS-T6]         the rows, what each reports, whether it runs
  --row ID --seeds N             trains that row at the whole protocol
  --row ID --seeds N --reduced STEPS   a shorter run, every horizon scaled

A run is resumed by the same command, and leaves one JSON file in --results,
from which `python -m nsl_jax.report` makes its table.
"""

import pathlib

import jax
from absl import flags

from nsl_jax import cli, config_files, errors, experiment, rows, summary
from nsl_jax import workdir as workdir_lib

_LIST = flags.DEFINE_bool('list', False, 'List the rows.')
_MATCH = flags.DEFINE_string('match', '', 'Only rows whose id starts so.')
_ROW = flags.DEFINE_string('row', None, 'Id of the row to run, as NS-T6-8.')
_SEEDS = flags.DEFINE_integer('seeds', 1, 'Number of seeds.', lower_bound=1)
_REDUCED = flags.DEFINE_integer(
    'reduced', 0, 'Train this many steps instead of the whole protocol.',
    lower_bound=0,
)
_WORKDIR = flags.DEFINE_string(
    'workdir', 'runs', 'Folder under which each row gets its own.'
)
_RESULTS = flags.DEFINE_string('results', 'results', 'Folder of the ledger.')


def state_of(row: rows.Row) -> str:
  """`ready`, `cited` (another paper's number) or `not implemented yet`."""
  if row.kind == 'cited':
    return 'cited'
  ready = rows.is_runnable(row) and config_files.exists(row.config)
  return 'ready' if ready else 'not implemented yet'


def list_rows(found: list[rows.Row]) -> str:
  """One line a row."""
  lines = []
  for row in found:
    labels = f'@{row.labels}' if row.labels else ''
    value = summary.plus_minus(row.reported, row.reported_std) or '-'
    command = f'--row {row.id}' if state_of(row) == 'ready' else ''
    lines.append(
        f'{row.id:<18} {row.kind:<7} {row.data + labels:<20} '
        f'{row.model:<22} {row.method:<24} {value:>15} {row.unit:<2} '
        f'{state_of(row):<20} {command}'.rstrip()
    )
  return '\n'.join(lines)


def file_name(row_id: str, config, platform: str) -> str:
  """Name of the ledger file of a run."""
  size = 'full'
  if config.steps < config.full_steps:
    size = f'reduced{config.steps}'
  return f'{row_id}-{platform}-{size}-seeds{config.seeds}.json'


def reproduce(
    row: rows.Row, *, seeds: int, reduced: int, workdir: pathlib.Path,
    results: pathlib.Path,
) -> pathlib.Path:
  """Trains the seeds of a row and writes its file into the ledger.

  Raises:
    errors.UserError: if the row has no command.
  """
  state = state_of(row)
  if state != 'ready':
    raise errors.UserError(
        f'row {row.id} cannot be run: {state} ({row.method}, {row.model})'
    )
  config = config_files.load(row.config, seeds=seeds, reduced=reduced)
  if config.row != row.id:
    raise errors.UserError(f'{row.config} is row {config.row}, not {row.id}')
  size = f'reduced{reduced}' if reduced else 'full'
  content = experiment.run(config, workdir / f'{row.id}-{size}')
  path = results / file_name(row.id, config, jax.default_backend())
  results.mkdir(parents=True, exist_ok=True)
  workdir_lib.write_json(path, content)
  return path


def main() -> None:
  """Lists or runs."""
  if _LIST.value:
    found = rows.match(_MATCH.value)
    if not found:
      raise errors.UserError(f'no row starts with {_MATCH.value!r}')
    print(list_rows(found))
    return
  if _ROW.value is None:
    raise errors.UserError('give --list, or --row ID (see --help)')
  path = reproduce(
      rows.find(_ROW.value), seeds=_SEEDS.value, reduced=_REDUCED.value,
      workdir=pathlib.Path(_WORKDIR.value),
      results=pathlib.Path(_RESULTS.value),
  )
  score = workdir_lib.read_json(path)['score']
  text = summary.plus_minus(score['mean'], score['std'])
  print(f'{_ROW.value}: {score["metric"]} {text} {score["unit"]} -> {path}')


if __name__ == '__main__':
  cli.run(main)
