"""From evaluations to the reported numbers of a run."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

PROTOCOLS = ('last', 'best_validation', 'median_last_20')


def reports(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The reports of a run by three protocols; none selects by test error.

  Args:
    evaluations: `{'step', 'test_error', 'validation_error'}` in order of
      step; errors in %, None where there are no such images. Of classes also
      `test_balanced_error`. Of several networks also `submodel`, the one whose
      errors these are, and the errors of each, as `test_error_a`, and of the
      ensemble. Of points also `test_failure` and `validation_failure`.

  Returns:
    `last`, `best_validation` (the earliest of the lowest validation errors;
    None without validation images) and `median_last_20` (of each error in the
    last 20 evaluations, or in all if there are fewer).
  """
  held_out = [e for e in evaluations if e['validation_error'] is not None]
  best = min(held_out, key=lambda e: e['validation_error'], default=None)
  prefixes = (
    'test_error',
    'validation_error',
    'submodel',
    'test_failure',
    'validation_failure',
    'test_balanced_error',
    'validation_balanced_error',
  )
  keys = ['step', *(k for k in evaluations[-1] if k.startswith(prefixes))]
  pick = lambda e: None if e is None else {key: e[key] for key in keys}
  final = evaluations[-20:]
  measured = [
    k
    for k in keys
    if k.startswith(('test_', 'validation_')) and final[-1][k] is not None
  ]
  return {
    'last': pick(evaluations[-1]),
    'best_validation': pick(best),
    'median_last_20': {
      **{k: statistics.median(e[k] for e in final) for k in measured},
      'evaluations': len(final),
    },
  }


def score(per_seed: Sequence[float], metric: str, unit: str) -> dict[str, Any]:
  """Mean and sample standard deviation (None for a single seed)."""
  std = statistics.stdev(per_seed) if len(per_seed) > 1 else None
  return {
    'metric': metric,
    'unit': unit,
    'per_seed': list(per_seed),
    'mean': statistics.fmean(per_seed),
    'std': std,
  }


def scores(per_seed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The `score` of every error by each protocol.

  Args:
    per_seed: result of `reports` for every seed.

  Returns:
    By protocol, then by error: `test_error`, for two networks also those of
    `a`, `b` and the ensemble, `validation_error` if there is one, for points
    also `test_failure` and `validation_failure`.
  """
  by_protocol: dict[str, Any] = {}
  for protocol in PROTOCOLS:
    reports_of = [report[protocol] for report in per_seed]
    if None not in reports_of:
      by_protocol[protocol] = {
        name: score(
          [report_of_seed[name] for report_of_seed in reports_of], name, '%'
        )
        for name, value in reports_of[0].items()
        if name.startswith(('test_', 'validation_')) and value is not None
      }
  return by_protocol


def headline(by_protocol: Mapping[str, Any], protocol: str) -> dict[str, Any]:
  """The score of a run: the test error, the validation error without test
  images, and None without either.

  Args:
    by_protocol: what `scores` gives.
    protocol: one of `PROTOCOLS`.
  """
  by_metric = by_protocol.get(protocol, {})
  for metric in ('test_error', 'validation_error'):
    if metric in by_metric:
      return by_metric[metric]
  return {
    'metric': None,
    'unit': '%',
    'per_seed': [],
    'mean': None,
    'std': None,
  }


def text_of(score_fields: Mapping[str, Any]) -> str:
  """A score as `test_error 12.34 ± 0.56 %`."""
  if score_fields['metric'] is None:
    return 'no error measured'
  value = plus_minus(score_fields['mean'], score_fields['std'])
  return f'{score_fields["metric"]} {value} {score_fields["unit"]}'


def plus_minus(mean: float | None, std: float | None) -> str:
  """`12.34 ± 0.56`, or `12.34` if `std` is None."""
  if mean is None:
    return ''
  return f'{mean:.2f}' + ('' if std is None else f' ± {std:.2f}')
