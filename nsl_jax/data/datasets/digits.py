"""The 8x8 digits of scikit-learn, with a fixed fifth for testing."""

import numpy as np

_TEST_PER_CLASS = 36  # 360 of 1,797
_SEED = 0  # the split is the same for all runs

Pair = tuple[np.ndarray, np.ndarray]


def arrays() -> tuple[Pair, Pair]:
  """Images u8[N, 8, 8, 1] and classes i32[N], for training and for testing; the
  test set has the same number of every class.
  """
  from sklearn import datasets  # Slow to import.

  bunch = datasets.load_digits()
  images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
  labels = bunch.target.astype(np.int32)
  order = np.random.default_rng(_SEED).permutation(len(labels))
  is_test = np.zeros(len(labels), bool)
  for label in range(10):
    rows = order[labels[order] == label]
    is_test[rows[:_TEST_PER_CLASS]] = True
  train, test = ((images[rows], labels[rows]) for rows in (~is_test, is_test))
  return train, test
