"""The ledger: a JSON file per run, of which some are parts of one row."""

import itertools
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from nsl_jax import errors
from nsl_jax.training import summary, workdir as workdir_lib

_REQUIRED = ('row', 'kind', 'seeds', 'steps', 'full_steps', 'reduced', 'device')
_OF_RUNS = ('score', 'protocol')  # not in figures
# Two runs of a row that share these differ in their seeds alone.
_SAME = ('row', 'steps', 'full_steps', 'protocol', 'data_note', 'outdated')
_BY_SEED = ('reports', 'split_sha256')

Result = dict[str, Any]


def read(folder: pathlib.Path) -> list[Result]:
  """Every result of the ledger, see `join`.

  Raises:
    errors.UserError: if the folder is missing, or a file is not a result.
  """
  if not folder.is_dir():
    raise errors.UserError(
      f'no ledger in {folder}: python -m nsl_jax reproduce --row ID makes it'
    )
  results = []
  for path in sorted(folder.glob('*.json')):
    content = workdir_lib.read_json(path)
    required = _REQUIRED + _OF_RUNS * (content.get('kind') == 'run')
    missing = [field for field in required if field not in content]
    if missing:
      raise errors.UserError(
        f'{path} is not a result file: it lacks {missing[0]}'
      )
    results.append(content)
  return join(results)


def platform(result: Result) -> str:
  """Such as `cpu`, from `1 x cpu (cpu; host: 2 cores)`."""
  return result['device'].partition('(')[2].partition(';')[0]


def join(results: Iterable[Result]) -> list[Result]:
  """Joins runs of one row that differ in their seeds alone.

  The seeds of a row can be trained apart, such as by the jobs of a cluster. A
  run with a seed that one before it has stays apart. A joined result has the
  fields that all its parts share and those of single seeds.

  Args:
    results: contents of files; only runs of a row are joined.

  Returns:
    The results in the same order, joined ones at the place of their first part.
  """
  groups: dict[tuple[Any, ...], list[Result]] = {}
  for number, result in enumerate(results):
    key: tuple[Any, ...] = (number,)
    if result['kind'] == 'run' and result['row']:
      key = *map(result.get, _SAME), platform(result)
    groups.setdefault(key, []).append(result)
  joined = []
  for group in groups.values():
    parts: list[Result] = []
    apart: list[Result] = []
    seeds: set[int] = set()
    for result in group:
      (apart if seeds.intersection(result['seeds']) else parts).append(result)
      seeds.update(result['seeds'])
    joined += [_joined(parts) if len(parts) > 1 else parts[0], *apart]
  return joined


def _joined(parts: Sequence[Result]) -> Result:
  """One result of runs with different seeds."""
  seeds = list(itertools.chain.from_iterable(part['seeds'] for part in parts))
  order = sorted(range(len(seeds)), key=seeds.__getitem__)

  def by_seed(lists: Iterable[Sequence[Any]]) -> list[Any]:
    values = list(itertools.chain.from_iterable(lists))
    return [values[at] for at in order]

  score = parts[0]['score']
  return {
    **{
      field: value
      for field, value in parts[0].items()
      if all(part.get(field) == value for part in parts)
    },
    'seeds': sorted(seeds),
    'score': summary.score(
      by_seed(part['score']['per_seed'] for part in parts),
      score['metric'],
      score['unit'],
    ),
    **{
      field: by_seed(part[field] for part in parts)
      for field in _BY_SEED
      if all(field in part for part in parts)
    },
    'wall_time_s': math.fsum(part.get('wall_time_s', 0.0) for part in parts),
    'device': ' and '.join(dict.fromkeys(part['device'] for part in parts)),
  }
