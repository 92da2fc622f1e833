"""Whether a network is right as often as it is sure."""

from typing import Any

import numpy as np

BINS = 15  # of equal width
_DRAWS = 200


def of(confidences: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
  """The reliability curve and the expected calibration error (ECE).

  Bin b of 15 has the images whose confidence lies in ((b - 1) / 15, b / 15].
  The ECE is the mean over bins of |accuracy - mean confidence|, weighted by the
  number of images in the bin (Guo et al. 2017, On Calibration of Modern Neural
  Networks, equation 3).

  Args:
    confidences: f64[N], the largest probability of each image.
    correct: bool[N], whether that is the one of the true class.

  Returns:
    `bins`, their number; `ece`, a fraction; `ece_by_chance`, the mean ECE of
    a network with these confidences that is right exactly as often as it is
    sure, which few images make large; `reliability`, by non-empty bin `low`,
    `high`, `confidence` (the mean), `accuracy` and `count`.
  """
  edges = np.linspace(0.0, 1.0, BINS + 1)
  bins = np.clip(np.digitize(confidences, edges, right=True) - 1, 0, BINS - 1)
  curve = [
    {
      'low': float(edges[index]),
      'high': float(edges[index + 1]),
      'confidence': float(confidences[bins == index].mean()),
      'accuracy': float(correct[bins == index].mean()),
      'count': int((bins == index).sum()),
    }
    for index in np.unique(bins)
  ]
  gaps = [e['count'] * abs(e['accuracy'] - e['confidence']) for e in curve]
  return {
    'bins': BINS,
    'ece': float(sum(gaps) / len(confidences)),
    'ece_by_chance': _by_chance(confidences, bins),
    'reliability': curve,
  }


def _by_chance(confidences: np.ndarray, bins: np.ndarray) -> float:
  """The mean ECE of correct answers drawn with these probabilities."""
  rng = np.random.default_rng(0)
  eces = [
    np.abs(
      np.bincount(bins, (rng.random(len(bins)) < confidences) - confidences)
    ).sum()
    for _ in range(_DRAWS)
  ]
  return float(np.mean(eces) / len(bins))
