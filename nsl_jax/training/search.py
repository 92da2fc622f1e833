"""Grid search, ranked by validation error."""

import itertools
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
from flax import traverse_util

from nsl_jax import errors, files, optimizers, options
from nsl_jax.training import (
  automatic,
  config as config_lib,
  config_checks,
  config_options,
  experiment,
  metrics_log,
  pipeline,
  summary,
)

_OPTIONS = ('row', 'seeds', 'steps', 'full_steps')  # set by other options
# Errors of cells that differ in these fields are not comparable.
_COMMON = (
  'seed',
  'protocol',
  'task',
  'data.name',
  'data.dir',
  'data.validation',
  'data.validation_rule',
  'data.holdout',
  'data.limit',
  'data.unknown_classes',
  'eval.every_steps',  # the lowest of more evaluations is lower
)
_LISTS = ('data.augment', 'data.strong')  # whose values have commas

Cell = dict[str, Any]


class Axis(NamedTuple):
  """A field of the config, such as 'optimizer.lr', and its values."""

  field: str
  values: tuple[Any, ...]


class Outcome(NamedTuple):
  """The outcome of a cell.

  Attributes:
    cell: its fields.
    validation: result of `summary.score`; None if training failed.
    results: result of `experiment.run`, with test errors; empty if training
      failed.
    failure: reason of the failure, or ''.
  """

  cell: Cell
  validation: dict[str, Any] | None
  results: dict[str, Any]
  failure: str

  def rank(self) -> float:
    """The mean validation error; failed cells come last."""
    return math.inf if self.validation is None else self.validation['mean']


def parse_axis(text: str, config: ml_collections.ConfigDict) -> Axis:
  """Reads `field=value,value,…`, or `field=value;value;…` of values that have
  commas.

  Raises:
    errors.UserError: for a field that the config lacks or that must be the same
      in all cells, or values that are missing, of the wrong type, or repeated.
  """
  field, _, words = text.partition('=')
  fields = traverse_util.flatten_dict(config.to_dict(), sep='.')
  if field not in fields:
    raise errors.UserError(
      f'--grid {text}: no such config field; '
      + errors.did_you_mean(field, fields)
    )
  if config_lib.is_name(field):
    raise errors.UserError(
      f'--grid {text}: each has different options, so one grid cannot '
      'serve all: search one at a time'
    )
  if field in _OPTIONS:
    raise errors.UserError(f'--grid {text}: use --seeds and --reduced instead')
  several = isinstance(fields[field], tuple) and '(' in words
  if (field in _LISTS or several) and ',' in words and ';' not in words:
    raise errors.UserError(
      f'--grid {text}: values of {field} may have commas, so separate them by '
      'semicolons, and end a single one with one'
    )
  separator = ';' if ';' in words else ','
  values = tuple(
    config_lib.convert(f'--grid {field}', word, fields[field])
    for word in words.removesuffix(';').split(separator)
  )
  if len(set(values)) < len(values):
    raise errors.UserError(f'--grid {text}: a value is repeated')
  if field in _COMMON and len(values) > 1:
    raise errors.UserError(
      f'--grid {text}: errors are not comparable, give one'
    )
  return Axis(field, values)


def cells_of(axes: Sequence[Axis]) -> list[Cell]:
  """Every combination, the last axis changing fastest."""
  names = [axis.field for axis in axes]
  if len(set(names)) < len(names):
    raise errors.UserError('--grid names a field twice: give all its values')
  return [
    dict(zip(names, values))
    for values in itertools.product(*(axis.values for axis in axes))
  ]


def with_fields(
  config: ml_collections.ConfigDict, cell: Mapping[str, Any]
) -> ml_collections.ConfigDict:
  """A locked copy of the config with the fields of a cell."""
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(cell)
  return config.lock()


def name_of(cell: Mapping[str, Any]) -> str:
  """The cell as one word sorted by field; also the name of its folder."""
  words = ','.join(f'{field}={cell[field]}' for field in sorted(cell))
  return files.short_name(words.replace('/', '_'))


def validation_errors(
  results: Mapping[str, Any], workdir: files.Path
) -> list[float]:
  """The validation error of every seed, by the protocol of test errors.

  Args:
    results: result of `experiment.run`.
    workdir: folder of the run.

  Returns:
    In %: that of the last evaluation, the lowest, or the median of the last 20.
  """
  error_of_seeds = []
  for report in results['reports']:
    if results['protocol'] != 'median_last_20':
      error_of_seeds.append(report[results['protocol']]['validation_error'])
      continue
    lines = metrics_log.read(
      workdir / f'seed_{report["seed"]}' / 'metrics.jsonl'
    )
    series = [e['validation_error'] for e in lines if e['kind'] == 'eval']
    error_of_seeds.append(statistics.median(series[-20:]))
  return error_of_seeds


def _train(
  config: ml_collections.ConfigDict, cell: Cell, workdir: files.Path
) -> Outcome:
  try:
    results = experiment.run(with_fields(config, cell), workdir)
  except errors.TrainingError as error:
    return Outcome(cell, None, {}, str(error))
  error_of_seeds = validation_errors(results, workdir)
  score = summary.score(error_of_seeds, 'validation_error', '%')
  return Outcome(cell, score, results, '')


def _validation(config: ml_collections.ConfigDict, cell: Cell) -> int:
  """Number of validation images, which may follow from the data."""
  config = with_fields(config, cell)
  if automatic.is_open(config):
    config, _ = automatic.resolve(config, pipeline.load_source(config))
  number: int = config.data.validation
  return number


def check(config: ml_collections.ConfigDict, cells: Sequence[Cell]) -> None:
  """Checks the fields of all cells, as far as the config is not open.

  Raises:
    errors.UserError: if there are no validation images, or a cell is invalid.
  """
  for cell in cells:
    _check_fields(with_fields(config, cell))
  if not _validation(config, cells[0]):  # `_COMMON` to all
    raise errors.UserError(
      'a search needs validation images, not test data: '
      'config.data.validation is 0, set it as with --grid data.validation=500'
    )


def _check_fields(config: ml_collections.ConfigDict) -> None:
  if automatic.is_open(config):
    config_checks.check_numbers(config, but=automatic.OPEN)
  else:
    config_checks.check(config)
    fields = {k: v for k, v in config.method.items() if k != 'name'}
    declared = config_options.method_options(config.method)
    known = {k: v for k, v in fields.items() if k in declared}
    options.check_values(declared, known, 'config.method.')
  optimizers.build(config.optimizer)


def train(
  config: ml_collections.ConfigDict,
  cells: Sequence[Cell],
  workdir: files.Path,
  after: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
  """Trains all seeds of every cell that is not finished.

  A cell whose loss is not finite does not end the search.

  Args:
    config: the common config, with seeds and steps.
    cells: fields of each cell.
    workdir: folder with a folder per cell.
    after: takes the outcomes so far, after each cell.

  Returns:
    Outcomes in the order of `cells`.

  Raises:
    errors.UserError: if a cell is invalid; see `check`.
    errors.TrainingError: if every cell failed.
  """
  outcomes = []
  for number, cell in enumerate(cells, 1):
    name = name_of(cell)
    print(f'cell {number} of {len(cells)}: {name}', file=sys.stderr, flush=True)
    outcomes.append(_train(config, cell, workdir / name))
    after(outcomes)
    if outcomes[-1].failure:
      print(f'  failed: {outcomes[-1].failure}', file=sys.stderr, flush=True)
  if all(outcome.failure for outcome in outcomes):
    raise errors.TrainingError(f'every cell failed: {outcomes[0].failure}')
  return outcomes


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
  """Sorted by mean validation error; the earlier cell of equals is first."""
  return sorted(outcomes, key=Outcome.rank)


def lines_of(
  outcomes: Sequence[Outcome], config: ml_collections.ConfigDict
) -> list[dict[str, Any]]:
  """The columns of the CSV file, without test errors."""
  blank = {'mean': None, 'std': None}
  known = lambda steps: steps if steps > 0 else None
  return [
    {
      **outcome.cell,
      'validation_error': (outcome.validation or blank)['mean'],
      'validation_std': (outcome.validation or blank)['std'],
      'seeds': config.seeds,
      'steps': outcome.results.get('steps', known(config.steps)),
      'full_steps': outcome.results.get('full_steps', known(config.full_steps)),
      'failure': outcome.failure,
    }
    for outcome in outcomes
  ]


def table(outcomes: Sequence[Outcome]) -> str:
  """A table of validation error in % and cell, to print."""
  lines = ['validation error %   cell']
  for outcome in outcomes:
    score = outcome.validation or {'mean': None, 'std': None}
    text = summary.plus_minus(score['mean'], score['std']) or 'failed'
    lines.append(f'{text:<18}   {name_of(outcome.cell)}')
  return '\n'.join(lines)
