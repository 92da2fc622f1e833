"""(seed, step) -> rows, without replacement within an epoch; numpy only."""

import functools

import numpy as np


class Stream:
  """An endless sequence of rows: one random permutation after another.

  A resumed run needs only its step; steps may be requested in any order.
  """

  def __init__(self, rows: np.ndarray, batch: int, *, seed: int, name: str):
    """`batch` rows per step of `rows` i32[n]; `name` identifies the stream."""
    self._rows = np.asarray(rows, np.int32)
    self._batch = batch
    # This spelling determines the rows, so it must not change.
    self._seed = [seed, *name.replace('labeled', 'labelled').encode()]
    self._permutation = functools.lru_cache(maxsize=2)(self._permute)

  def _permute(self, epoch: int) -> np.ndarray:
    rng = np.random.default_rng([*self._seed, epoch])
    return rng.permutation(self._rows)

  def __call__(self, step: int) -> np.ndarray:
    """Rows of step `step`, i32[batch]."""
    size = len(self._rows)
    parts, at, end = [], step * self._batch, (step + 1) * self._batch
    while at < end:
      epoch, offset = divmod(at, size)
      parts.append(self._permutation(epoch)[offset : offset + end - at])
      at += len(parts[-1])
    return np.concatenate(parts) if parts else self._rows[:0]
