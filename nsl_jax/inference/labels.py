"""Labels of rows as scikit-learn has them, where some rows have none."""

import numbers
from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

_NAN_REMEDY = ': where that means no label, set unlabeled=numpy.nan'
_CONTINUOUS = (
  'Unknown label type: continuous. y must be classes: whole numbers or strings'
)


def read(y: Any, unlabeled: Any) -> tuple[np.ndarray, np.ndarray]:
  """Labels as an array [N], and which rows have one, bool[N].

  Args:
    y: labels [N], a list, an array or a column of pandas.
    unlabeled: the label of rows without one; None and NaN are any missing one.

  Raises:
    ValueError: if `y` is not a column, or `unlabeled` is of another kind.
  """
  words = isinstance(y, (list, tuple)) and {isinstance(k, str) for k in y}
  if words == {True, False}:
    y = np.array(y, object)  # or numpy makes words of NaN and None
  whole = str(getattr(y, 'dtype', '')).lower().startswith(('int', 'uint'))
  y = column_or_1d(y, warn=True)
  labeled = ~_is_unlabeled(y, unlabeled)
  if whole and y.dtype.kind == 'f':  # pandas' Int64 with some missing
    labels = y[labeled]
    y = y.astype(object)
    y[labeled] = labels.astype(int)
  return y, labeled


def _is_unlabeled(y: np.ndarray, unlabeled: Any) -> np.ndarray:
  """bool[N]."""
  if _is_missing(unlabeled):
    return np.array([_is_missing(label) for label in y.tolist()], bool)
  if y.dtype.kind in 'US':
    return y.astype(str) == str(unlabeled)
  if y.dtype.kind == 'O':
    word = str(unlabeled)
    return np.array(
      [
        not _is_missing(label)
        and (label == unlabeled or (isinstance(label, str) and label == word))
        for label in y
      ],
      bool,
    )
  if isinstance(unlabeled, str):
    raise ValueError(
      f'unlabeled={unlabeled!r} is a word, and y are numbers: set it to a '
      'number'
    )
  return y == unlabeled


def _is_missing(label: Any) -> bool:
  """Whether it is None, NaN, or the NA of pandas."""
  if label is None or type(label).__name__ == 'NAType':
    return True
  return isinstance(label, (float, np.floating)) and bool(label != label)


def classes(
  y: np.ndarray, labeled: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The labels that there are, and the number of each labeled row's.

  Raises:
    ValueError: if they are no classes.
  """
  labels = y[labeled]
  if labels.dtype.kind in 'fc':
    if not np.isfinite(labels).all():
      raise ValueError(f'Input y contains NaN or infinity{_NAN_REMEDY}')
    if (labels != np.floor(labels.real)).any():
      raise ValueError(_CONTINUOUS)
  try:
    if labels.dtype.kind == 'O' and any(
      isinstance(k, numbers.Real) and k == k and k % 1 for k in labels
    ):
      raise ValueError(_CONTINUOUS)
    if labels.dtype.kind == 'O' and any(map(_is_missing, labels)):
      raise ValueError(f'Input y contains NaN{_NAN_REMEDY}')
    names, codes = np.unique(labels, return_inverse=True)
    of_numbers = all(isinstance(label, numbers.Number) for label in names)
    if names.dtype == object and of_numbers:
      names = np.array(names.tolist())  # predictions would be objects, too
  except TypeError as error:
    raise ValueError(
      f'Unknown label type: y mixes kinds of labels ({error})'
    ) from error
  if len(names) < 2:
    many = 'class' if len(names) == 1 else 'classes'
    raise ValueError(
      f'y has labels of {len(names)} {many}: at least 2 classes are needed'
    )
  return names, codes
