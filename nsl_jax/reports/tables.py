"""Tables of the ledger: our results and those of the papers."""

import pathlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nsl_jax import errors
from nsl_jax.benchmarks import (
  augmentation,
  classifiers,
  growth,
  startup,
  step_times,
  table7,
)
from nsl_jax.papers import rows
from nsl_jax.reports import ledger
from nsl_jax.training import summary, workdir as workdir_lib

# Kind of a file of `bench` -> what makes its table, of which of its fields.
_TABLES: Mapping[str, tuple[Callable[[Any], str], str]] = {
  'startup': (startup.table, 'configs'),
  'randaugment': (augmentation.table, 'images'),
  'growth': (growth.table, 'images'),
  'classifiers': (classifiers.table, 'cells'),
  'peers': (step_times.beside, 'rows'),
}
_HEADER = (
  'row',
  'data',
  'method',
  'reported',
  'Δ',
  'ours',
  'Δ',
  'seeds',
  'steps',
  'protocol',
  'device',
)


def reported_error(row: rows.Row) -> float | None:
  """The paper's number, converted to an error if it is an accuracy."""
  if row.reported is not None and row.metric == 'test_accuracy':
    return 100.0 - row.reported
  return row.reported


def budget(result: ledger.Result) -> tuple[Any, ...]:
  """What runs must share to be compared: steps, those of the full protocol, the
  evaluation that is the score, and platform."""
  shared = 'steps', 'full_steps', 'protocol'
  return *map(result.get, shared), ledger.platform(result)


def _difference(value: float | None) -> str:
  return '' if value is None else f'{value:+.2f}'


def _mark(result: ledger.Result) -> str:
  """A dagger if the code now gives another number, see `outdated`."""
  return ' †' if result.get('outdated') else ''


def _footnotes(chosen: Sequence[ledger.Result]) -> str:
  """The reasons of marked results, each once."""
  reasons = dict.fromkeys(filter(None, (r.get('outdated') for r in chosen)))
  return ''.join(f'\n\n† {reason}' for reason in reasons)


def measured_difference(
  row: rows.Row, result: ledger.Result, runs: Iterable[ledger.Result]
) -> float | None:
  """The mean of `differences_by_seed`, if there is one; in %."""
  by_seed = differences_by_seed(row, result, runs)
  return statistics.fmean(by_seed) if by_seed else None


def differences_by_seed(
  row: rows.Row, result: ledger.Result, runs: Iterable[ledger.Result]
) -> list[float]:
  """A result less that of the row's baseline at the same budget, for each seed
  that both have with the same split; in %.

  Of several runs of the baseline, that with most of these seeds counts.
  Outdated results are compared only with each other.
  """
  differences = (
    _paired(result, run)
    for run in runs
    if run['row'] == row.baseline
    and budget(run) == budget(result)
    and run.get('outdated') == result.get('outdated')
  )
  return max(differences, key=len, default=[])


def _paired(result: ledger.Result, base: ledger.Result) -> list[float]:
  """The differences of the seeds that both have; of those with a stored split,
  only where it is the same."""
  base_at = {seed: at for at, seed in enumerate(base['seeds'])}
  pairs = [
    (at, base_at[seed])
    for at, seed in enumerate(result['seeds'])
    if seed in base_at
  ]
  splits, base_splits = (r.get('split_sha256') for r in (result, base))
  if splits and base_splits:
    pairs = [(at, to) for at, to in pairs if splits[at] == base_splits[to]]
  scores, base_scores = (r['score']['per_seed'] for r in (result, base))
  return [scores[at] - base_scores[to] for at, to in pairs]


def reported_difference(row: rows.Row) -> float | None:
  """The paper's error less that of its baseline, if it has both; in %."""
  base = rows.read().get(row.baseline)
  error, base_error = reported_error(row), base and reported_error(base)
  if error is None or base_error is None:
    return None
  return error - base_error


def steps_of(result: ledger.Result) -> str:
  """Its steps, and those of the full protocol where it is reduced."""
  reduced = f' (reduced from {result["full_steps"]})' * result['reduced']
  return f'{result["steps"]}{reduced}'


def _line(
  row: rows.Row, result: ledger.Result, runs: Iterable[ledger.Result]
) -> list[str]:
  score = result['score']
  note = result.get('data_note')
  return [
    row.id,
    f'{row.data}@{row.labels}' + (f' ({note})' if note else ''),
    row.method,
    summary.plus_minus(reported_error(row), row.reported_std) or '–',
    _difference(reported_difference(row)),
    summary.plus_minus(score['mean'], score['std']) + _mark(result),
    _difference(measured_difference(row, result, runs)),
    str(len(result['seeds'])),
    steps_of(result),
    result['protocol'].replace('_', ' '),
    result['device'].partition(' (')[0],
  ]


def _timings(results: list[ledger.Result], match: str) -> str:
  """The tables of times (DN-T7), each with its device.

  Raises:
    errors.UserError: if there is none.
  """
  tables_text = [
    f'{result["device"]}, {result["steps"]} steps of each\n\n'
    f'{table7.table(result)}{_footnotes([result])}'
    for result in results
    if result['kind'] == 'timing'
    and any(row_id.startswith(match) for row_id in result['row'].split())
  ]
  if not tables_text:
    raise errors.UserError(f'no result of a row that starts with {match!r}')
  return '\n\n'.join(tables_text)


def runs_by_row(results: Iterable[ledger.Result]) -> list[ledger.Result]:
  """The runs, once for each row that they reproduce, which `row` names."""
  known_rows = rows.read()
  return [
    {**result, 'row': row_id}
    for result in results
    if result['kind'] == 'run'
    for row_id in result['row'].split()
    if row_id in known_rows
  ]


def table(results: list[ledger.Result], match: str) -> str:
  """The Markdown table of the results whose row starts with `match`, or of the
  times of such rows.

  Raises:
    errors.UserError: if there is none.
  """
  row_of = rows.read()
  order = {row_id: at for at, row_id in enumerate(row_of)}
  runs = runs_by_row(results)
  chosen = sorted(
    (r for r in runs if r['row'].startswith(match)),
    key=lambda r: (order[r['row']], r['device'], -r['steps']),
  )
  if not chosen:
    return _timings(results, match)
  lines = [_HEADER, ['---'] * len(_HEADER)]
  for result in chosen:
    row = row_of[result['row']]
    lines.append(_line(row, result, runs))
  text = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
  return text + _footnotes(chosen)


def of_runs(folders: Sequence[pathlib.Path]) -> str:
  """A Markdown table of work folders: method, data, score, seeds, steps.

  Raises:
    errors.UserError: if none has a results.json.
  """
  lines = [
    '| run | method | data | score | seeds | steps | protocol |',
    '|' + ' --- |' * 7,
  ]
  without = []
  for folder in folders:
    path = folder / 'results.json'
    if not path.is_file():
      without.append(str(folder))
      continue
    try:
      lines.append(
        _line_of_run(
          folder,
          workdir_lib.read_json(path),
          workdir_lib.read_json(folder / 'config.json'),
        )
      )
    except (errors.UserError, KeyError, TypeError, AttributeError):
      without.append(str(folder))  # of an older version, or damaged
  if len(lines) == 2:
    raise errors.UserError(
      f'no finished run in {", ".join(map(str, folders))}: name work folders '
      'that have a results.json'
    )
  if without:
    lines += ['', f'Not finished, or not a run: {", ".join(without)}.']
  return '\n'.join(lines)


def _line_of_run(
  folder: pathlib.Path, result: Mapping[str, Any], config: Mapping[str, Any]
) -> str:
  method, data = config['method'], config['data']
  host = method.get('host', method)
  names = [method['name'], *host.get('terms', {})]
  return (
    f'| {folder} | {" + ".join(names)} | {data["name"]}@{data["labeled"]} | '
    f'{summary.text_of(result["score"])} | {len(result["seeds"])} | '
    f'{result["steps"]} | {result["protocol"].replace("_", " ")} |'
  )


def times(folder: pathlib.Path, name: str) -> str:
  """The Markdown table of a result file of `nsl_jax bench`.

  Raises:
    errors.UserError: if there is no file of this name.
  """
  path_of = {path.stem: path for path in (folder / 'bench').glob('*.json')}
  if name not in path_of:
    raise errors.UserError(
      f'no step times {name!r} in {folder / "bench"}; '
      + errors.did_you_mean(name, path_of)
    )
  content = workdir_lib.read_json(path_of[name])
  table, field = _TABLES.get(
    content.get('kind', ''), (step_times.table, 'methods')
  )
  try:
    if not content[field]:
      raise KeyError(field)
    return table(content[field])
  except (KeyError, TypeError) as error:
    raise errors.UserError(
      f'{path_of[name]} is not a file of step times: it lacks {error}; make it '
      'by python -m nsl_jax bench'
    ) from error
