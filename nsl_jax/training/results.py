"""What is reported of a seed and of a run, once they have ended."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from nsl_jax import files
from nsl_jax.data import sources
from nsl_jax.training import (
  evaluate,
  metrics_log,
  summary,
  workdir as workdir_lib,
)

_AND = ' and '


def of_seed(
  folder: files.Path, labels: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """The reports of a seed, the folder of its best weights, and warnings.

  Args:
    folder: of the seed, with its `metrics.jsonl`.
    labels: of the images that were evaluated, see `evaluate.collapse`.
  """
  lines = metrics_log.read(folder / 'metrics.jsonl')
  lines = [line for line in lines if line['kind'] == 'eval']
  reports = summary.reports(lines)
  if reports['best_validation'] is not None:
    weights = f'best/{reports["best_validation"]["step"]}'
    reports['best_validation']['weights'] = (
      weights if (folder / weights).is_dir() else None
    )
  collapses = [
    text for line in lines if (text := evaluate.collapse(line, labels))
  ]
  reports['warnings'] = []
  if collapses:
    reports['warnings'].append(
      f'at {len(collapses)} of {len(lines)} evaluations one class is nearly '
      f'all that is predicted; at the first {collapses[0]}'
    )
  return reports


def of_run(
  config: ml_collections.ConfigDict,
  per_seed: Sequence[Mapping[str, Any]],
  source: sources.Source,
  *,
  parameters: int,
  devices: int,
  warnings: Sequence[str],
  chosen: Sequence[str] = (),
) -> dict[str, Any]:
  """The content of `results.json`.

  Args:
    config: of the run.
    per_seed: the content of each seed's `result.json`.
    source: the data.
    parameters: number of trained parameters.
    devices: number of devices used.
    warnings: of the run.
    chosen: lines on what the config left open.
  """
  scores = summary.scores(per_seed)
  return {
    'row': config.row,
    'kind': 'run',
    'score': summary.headline(scores, config.protocol),
    'scores': scores,
    'protocol': config.protocol,
    'steps': config.steps,
    'full_steps': config.full_steps,
    'reduced': config.steps < config.full_steps,
    'seeds': [report['seed'] for report in per_seed],
    'reports': list(per_seed),
    'wall_time_s': round(math.fsum(o['wall_time_s'] for o in per_seed), 3),
    **_provenance(per_seed, workdir_lib.provenance(devices)),
    'split_sha256': [report['split_sha256'] for report in per_seed],
    'data_note': source.note,
    'data_report': [*source.report, *chosen],
    'parameters': parameters,
    'warnings': list(warnings),
    'config': config.to_dict(),
  }


def _provenance(
  per_seed: Sequence[Mapping[str, Any]], now: Mapping[str, Any]
) -> dict[str, Any]:
  """Of each field that of the seeds, joined where they were trained by several
  machines or versions; that of `now` for seeds that do not tell.
  """
  return joined_provenance([r.get('provenance', now) for r in per_seed])


def joined_provenance(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """One `workdir.provenance` of several, whose differing values are joined;
  other fields are left out.
  """
  joined = {name: starts[0][name] for name in workdir_lib.PROVENANCE}
  for name in joined:
    values = [start[name] for start in starts]
    different = [v for at, v in enumerate(values) if v not in values[:at]]
    if len(different) == 1:
      continue
    if name == 'versions':
      joined[name] = {
        package: _joined(v.get(package) for v in different)
        for package in different[0]
      }
    else:
      joined[name] = _joined(different)
  return joined


def _joined(texts: Iterable[str | None]) -> str | None:
  """All of them once, some of which may be joined already."""
  known = (part for text in texts if text for part in text.split(_AND))
  return _AND.join(dict.fromkeys(known)) or None
