"""What a report shows of the predictions: images and pairs of classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def mistakes(
  labels: np.ndarray, probabilities: np.ndarray, count: int
) -> list[int]:
  """Rows of the wrong predictions, the largest probability first.

  Args:
    labels: i64[N].
    probabilities: f64[N, K].
    count: the most that are wanted.
  """
  wrong = np.flatnonzero(probabilities.argmax(1) != labels)
  order = np.argsort(-probabilities[wrong].max(1), kind='stable')
  return wrong[order][:count].tolist()


def least_sure(probabilities: np.ndarray, count: int) -> list[int]:
  """Rows of f64[N, K] by their largest probability, the smallest first."""
  return np.argsort(probabilities.max(1), kind='stable')[:count].tolist()


def confused(
  confusion: Sequence[Sequence[int]], classes: Sequence[str], count: int
) -> list[dict[str, Any]]:
  """The pairs of classes that are confused most often.

  Args:
    confusion: counts, a row for each true class.
    classes: their names.
    count: the most pairs that are wanted.

  Returns:
    By pair `true`, `predicted`, `count` and `share`, the fraction of the images
    of the true class. Equal counts stand in the order of the classes.

  >>> confused([[8, 2], [1, 3]], ['cat', 'dog'], 1)
  [{'true': 'cat', 'predicted': 'dog', 'count': 2, 'share': 0.2}]
  """
  counts = np.array(confusion)
  sizes = counts.sum(1)
  np.fill_diagonal(counts, 0)
  rows, columns = np.nonzero(counts)
  order = np.argsort(-counts[rows, columns], kind='stable')[:count]
  return [
    {
      'true': classes[row],
      'predicted': classes[column],
      'count': int(counts[row, column]),
      'share': float(counts[row, column] / sizes[row]),
    }
    for row, column in zip(rows[order], columns[order])
  ]
