"""The 8x8 digits of scikit-learn, with a fixed fifth for testing."""

import importlib.util
import pathlib

import numpy as np

_TEST_PER_CLASS = 36  # 360 of 1,797
_SEED = 0  # the split is the same for all runs

Pair = tuple[np.ndarray, np.ndarray]


def _table() -> np.ndarray:
  """The pixels of each digit and its class, f64[1797, 65], from the file of
  scikit-learn, which takes seconds to import."""
  spec = importlib.util.find_spec('sklearn')
  for folder in (spec and spec.submodule_search_locations) or ():
    path = pathlib.Path(folder, 'datasets', 'data', 'digits.csv.gz')
    if path.is_file():
      return np.loadtxt(path, delimiter=',')
  from sklearn import datasets  # another version may keep it elsewhere

  bunch = datasets.load_digits()
  return np.column_stack([bunch.data, bunch.target])


def arrays() -> tuple[Pair, Pair]:
  """Images u8[N, 8, 8, 1] and classes i32[N], for training and for testing; the
  test set has the same number of every class.
  """
  table = _table()
  pixels = table[:, :-1].reshape(-1, 8, 8, 1)
  images = np.rint(pixels * (255 / 16)).astype(np.uint8)
  labels = table[:, -1].astype(np.int32)
  order = np.random.default_rng(_SEED).permutation(len(labels))
  is_test = np.zeros(len(labels), bool)
  for label in range(10):
    rows = order[labels[order] == label]
    is_test[rows[:_TEST_PER_CLASS]] = True
  train, test = ((images[rows], labels[rows]) for rows in (~is_test, is_test))
  return train, test
