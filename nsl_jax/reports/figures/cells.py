"""Runs of a figure, each in a separate folder.

A cell equals a run of `python -m nsl_jax.main` with the same config and folder,
so cells may be trained before the figure, one per process or machine.
"""

import math
import pathlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from nsl_jax import errors
from nsl_jax.papers import rows
from nsl_jax.reports import style
from nsl_jax.training import (
  assembly,
  checkpoint,
  config as config_lib,
  experiment,
  metrics_log,
  results as results_lib,
  train_step as train_lib,
)
from nsl_jax.types import State

_NOTHING: Mapping[str, Any] = types.MappingProxyType({})


class Cell(NamedTuple):
  """A run of a figure.

  Attributes:
    name: name of its folder, and in the CSV file.
    label: label in the figure.
    config: the complete config.
    argument: the argument of --config with which `main` trains it, or ''.
  """

  name: str
  label: str
  config: ml_collections.ConfigDict
  argument: str


class Trained(NamedTuple):
  """A cell, its folder, and the result of `experiment.run`."""

  cell: Cell
  folder: pathlib.Path
  results: dict[str, Any]


def make(
  name: str, label: str, argument: str, *, seeds: int, reduced: int
) -> Cell:
  """The cell of a --config argument.

  Raises:
    errors.UserError: if the config refuses its arguments.
  """
  extra: dict[str, Any] = {'seeds': seeds}
  if reduced:
    extra['reduced'] = reduced
  config = config_lib.load(argument, **extra)
  file, _, words = argument.partition(':')
  overrides = [f'{key}={value}' for key, value in extra.items()]
  complete = f'{file}:{",".join(filter(None, [words, *overrides]))}'
  return Cell(name, label, config, complete)


def train(cells: Sequence[Cell], workdir: pathlib.Path) -> list[Trained]:
  """Trains unfinished cells, one after another.

  Raises:
    errors.UserError: for wrong input or missing data.
    errors.TrainingError: if a loss is not finite.
  """
  trained = []
  for number, cell in enumerate(cells, 1):
    folder = workdir / cell.name
    command = cell.name
    if cell.argument:
      command = f'--config={cell.argument} --workdir={folder}'
    print(
      f'cell {number} of {len(cells)}: {command}', file=sys.stderr, flush=True
    )
    results = experiment.run(cell.config, folder)
    trained.append(Trained(cell, folder, results))
  return trained


def last_state(parts: assembly.Parts, seed: int, folder: pathlib.Path) -> State:
  """The state of a seed after its last step.

  Raises:
    errors.UserError: if its checkpoint is missing.
  """
  like = train_lib.initial_state(parts.method, seed, parts.mesh)
  store = checkpoint.Checkpoints(folder / 'checkpoints', keep=parts.plan.keep)
  try:
    restored = store.restore(like)
  finally:
    store.close()
  if restored is None or int(restored[0].step) != parts.plan.steps:
    raise errors.UserError(
      f'{folder} has lost the checkpoint of its last step: remove '
      f'{folder / "result.json"} to train it again'
    )
  return restored[0]


def accuracy(trained: Trained) -> tuple[float, float | None]:
  """Mean and standard deviation over seeds of the headline, in %."""
  score = trained.results['score']
  return 100.0 - score['mean'], score['std']


def logged(trained: Trained, kind: str) -> dict[int, list[dict[str, Any]]]:
  """By step the log lines of every seed of a kind (`train`, `eval`)."""
  lines_at: dict[int, list[dict[str, Any]]] = {}
  for seed in trained.results['seeds']:
    lines = metrics_log.read(trained.folder / f'seed_{seed}' / 'metrics.jsonl')
    for line in lines:
      if line['kind'] == kind:
        lines_at.setdefault(line['step'], []).append(line)
  return dict(sorted(lines_at.items()))


def _of_cell(trained: Trained) -> dict[str, Any]:
  fields = (
    'protocol',
    'seeds',
    'steps',
    'full_steps',
    'score',
    'scores',
    'reports',
    'device',
    'commit',
    'wall_time_s',
    'data_note',
    'split_sha256',
    'config',
  )
  return {
    'cell': trained.cell.name,
    'label': trained.cell.label,
    'argument': trained.cell.argument,
    **{name: trained.results[name] for name in fields},
  }


def content(trained: Sequence[Trained]) -> dict[str, Any]:
  """Content of the ledger file for the cells, see `style.Drawing`."""
  results_of = [one.results for one in trained]
  shared = {name: results_of[-1][name] for name in ('seeds', 'data_note')}
  provenance = results_lib.joined_provenance(results_of)
  seconds = math.fsum(results['wall_time_s'] for results in results_of)
  return {
    **shared,
    **provenance,
    'steps': max(results['steps'] for results in results_of),
    'full_steps': max(results['full_steps'] for results in results_of),
    'reduced': any(results['reduced'] for results in results_of),
    'versions': provenance['versions'] | style.version(),
    'wall_time_s': round(seconds, 3),
    'cells': [_of_cell(t) for t in trained],
  }


def title(row: rows.Row, facts: Mapping[str, Any]) -> str:
  """Title of a figure: row, data, seeds and steps, from `content`."""
  count = len(facts['seeds'])
  steps = f'{facts["steps"]:,} steps'
  if facts['reduced']:
    steps += f' (reduced from {facts["full_steps"]:,})'
  labels = f'@{row.labels:,}' if row.labels else ''
  seeds = f'{count} seed' + 's' * (count > 1)
  return f'{row.id}: {row.data}{labels}, {seeds}, {steps}'


def drawing(
  row: rows.Row,
  trained: Sequence[Trained],
  lines: list[dict[str, Any]],
  picture: Callable[[str], bytes],
  *,
  facts: Mapping[str, Any] = _NOTHING,
  versions: Mapping[str, str] = _NOTHING,
) -> style.Drawing:
  """The figure of these runs.

  Args:
    row: its row.
    trained: the runs.
    lines: its numbers.
    picture: draws it, given a title.
    facts: further content of the ledger file.
    versions: versions of additional libraries.
  """
  ledger_content = content(trained) | dict(facts)
  ledger_content['versions'] |= versions
  return style.Drawing(
    picture(title(row, ledger_content)), lines, ledger_content
  )
