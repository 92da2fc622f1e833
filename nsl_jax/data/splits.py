"""Seeded choice of validation, labeled and unlabeled images."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nsl_jax import errors

RULES = ('balanced', 'proportional', 'uniform')


class Split(NamedTuple):
  """Sorted row numbers of the training images, by use.

  Attributes:
    labeled: i32[n_l].
    unlabeled: i32[n_u].
    validation: i32[n_v]; disjoint from the other two.
    holdout: i32[n_h], separate hold-out set of L2I; disjoint from all others,
      usually empty.
  """

  labeled: np.ndarray
  unlabeled: np.ndarray
  validation: np.ndarray
  holdout: np.ndarray = np.zeros(0, np.int32)

  def sha256(self) -> str:
    """Hash of the index sets, the same on every machine."""
    digest = hashlib.sha256()
    for name, rows in self._asdict().items():
      if name == 'holdout' and not len(rows):
        continue
      # Hashes in existing results use this spelling.
      spelling = name.replace('labeled', 'labelled')
      digest.update(f'{spelling}:{len(rows)};'.encode())
      digest.update(np.ascontiguousarray(rows, '<i4').tobytes())
    return digest.hexdigest()


def _balanced(
  takeable: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
  """n/K of every class; the remainder goes to larger classes."""
  num_classes = len(takeable)
  per_class, extra = divmod(size, num_classes)
  counts = np.full(num_classes, per_class)
  larger = np.flatnonzero(takeable > per_class)
  if len(larger) < extra:  # the caller reports the class that is too small
    larger = np.arange(num_classes)
  counts[rng.choice(larger, extra, replace=False)] += 1
  return counts


def _proportional(
  available: np.ndarray, takeable: np.ndarray, size: int
) -> np.ndarray:
  """Each class's share of `size`, rounded by the largest remainder."""
  share = available * (size / available.sum())
  # Not above `takeable`, which leaves at most one image of a class.
  counts = np.floor(share).astype(int)
  while counts.sum() < size:  # `size` is at most the sum of `takeable`
    missing = np.where(counts < takeable, share - counts, -np.inf)
    counts[missing.argmax()] += 1
  return counts


def long_tail(num_classes: int, imbalance: float) -> np.ndarray:
  """Relative sizes of classes that fall exponentially, f64[K], the largest 1.

  Args:
    num_classes: K.
    imbalance: gamma, size of the first class divided by that of the last; below
      1 the last class is the largest.

  >>> print(long_tail(3, 100.0))
  [1.   0.1  0.01]
  """
  sizes = imbalance ** -np.linspace(0.0, 1.0, num_classes)
  return sizes / sizes.max()


def _imbalanced(num_classes: int, size: int, imbalance: float) -> np.ndarray:
  """`size` in the shares of a long tail, at least 1 of each class."""
  shares = long_tail(num_classes, imbalance)
  counts = np.ones(num_classes, int)
  while counts.sum() < size:  # by the largest remainder
    counts[(shares * (size / shares.sum()) - counts).argmax()] += 1
  return counts


def _thinned(
  rows: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  imbalance: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Rows of a long tail: all of the largest class that there is, fewer of the
  others.
  """
  if (labels[rows] < 0).any():
    raise errors.UserError(
      f'config.data.imbalance_unlabeled={imbalance} needs the classes of all '
      f'unlabeled images, and {(labels[rows] < 0).sum():,} have none: set it '
      'to 1'
    )
  rows = rng.permutation(rows)
  available = np.bincount(labels[rows], minlength=num_classes)
  shares = np.where(available, long_tail(num_classes, imbalance), 0.0)
  largest = available[shares.argmax()]
  counts = np.maximum(np.round(shares / shares.max() * largest), 1)
  return rows[_rank(labels[rows]) < counts[labels[rows]]]


def _rank(labels: np.ndarray) -> np.ndarray:
  """Number of earlier entries of the same class: i32[N] -> int[N]."""
  order = np.argsort(labels, kind='stable')
  first = np.searchsorted(labels[order], labels[order])
  rank = np.empty(len(labels), int)
  rank[order] = np.arange(len(labels)) - first
  return rank


def _draw(
  labels: np.ndarray,
  pool: np.ndarray,
  size: int,
  num_classes: int,
  rule: str,
  part: str,
  rng: np.random.Generator,
  *,
  leave: int = 0,
  imbalance: float = 1.0,
) -> np.ndarray:
  """`size` rows of the pool by the rule, unordered.

  At least `leave` rows of every class remain in the pool. An `imbalance` other
  than 1 stands for the rule.
  """
  if rule not in RULES:
    field = 'rule' if part == 'labeled' else f'{part}_rule'
    raise errors.UserError(
      f'config.data.{field}={rule!r}: {errors.did_you_mean(rule, RULES)}'
    )
  if size < 0:
    raise errors.UserError(f'config.data.{part}={size}: must not be negative')
  pool = rng.permutation(pool)
  if not size:
    return pool[:0]
  available = np.bincount(labels[pool], minlength=num_classes)
  takeable = np.maximum(available - leave, 0)
  remainder_text = f' if {leave} of each class must remain for labels' * bool(
    leave
  )
  if size > takeable.sum():
    raise errors.UserError(
      f'config.data.{part}={size}: only {takeable.sum()} labeled images '
      f'can be taken{remainder_text}: lower config.data.{part}'
    )
  rank = _rank(labels[pool])
  if imbalance != 1.0:
    rule, counts = 'imbalanced', _imbalanced(num_classes, size, imbalance)
  elif rule == 'uniform':
    return pool[rank < takeable[labels[pool]]][:size]
  elif rule == 'balanced':
    counts = _balanced(takeable, size, rng)
  else:
    counts = _proportional(available, takeable, size)
  short = np.flatnonzero(counts > takeable)
  if len(short):
    k = short[0]
    raise errors.UserError(
      f'config.data.{part}={size}: the {rule} rule needs {counts[k]} images '
      f'of class {k}, of which {takeable[k]} can be taken{remainder_text}: '
      f'lower config.data.{part}, or use another rule'
    )
  return pool[rank < counts[labels[pool]]]


def _without(rows: np.ndarray, taken: np.ndarray, count: int) -> np.ndarray:
  """Those of the rows, each below `count`, that are not taken, in order."""
  free = np.ones(count, bool)
  free[taken] = False
  return rows[free[rows]]


def make(
  labels: np.ndarray,
  num_classes: int,
  *,
  labeled: int,
  validation: int,
  rule: str,
  validation_rule: str,
  seed: int,
  holdout: int = 0,
  unlabeled_includes_labeled: bool = False,
  imbalance: float = 1.0,
  imbalance_unlabeled: float = 1.0,
  unlabeled_classes: Sequence[int] | None = None,
  given: np.ndarray | None = None,
) -> Split:
  """Draws the validation images first, then the labeled ones.

  Args:
    labels: i32[N]; rows of class -1 can only be unlabeled.
    num_classes: K.
    labeled: number of labeled images, at least K.
    validation: number of validation images, may be 0; at least one image of
      every class remains for labels.
    rule: how labeled images are drawn: `balanced` (n/K per class, as Oliver et
      al.), `proportional` to the class frequencies, as MixMatch, which differ
      on SVHN (F-N16), or `uniform` over all images.
    validation_rule: the same for the validation images.
    seed: seed of the split, which is the same on every host.
    holdout: number of images of L2I's separate hold-out set, drawn from the
      validation images by `rule`.
    unlabeled_includes_labeled: whether the unlabeled images include the labeled
      ones, as in the loader of Oliver et al.; NS3L's counts exclude them
      (F-N9).
    imbalance: gamma of a long tail of the labeled images, see `long_tail`; 1
      for none.
    imbalance_unlabeled: the same of the unlabeled images, of which the largest
      class keeps all.
    unlabeled_classes: classes that unlabeled images may have, beside those
      whose class is -1; None for all.
    given: i32[V], the validation images of the data set itself, in place of
      those that are drawn.

  Raises:
    errors.UserError: if there are too few images, fewer labeled ones than
      classes, an unknown rule or a negative seed.
  """
  if labeled < num_classes:
    raise errors.UserError(
      f'{labeled} labeled images, but there are {num_classes} '
      f'classes: raise config.data.labeled to at least {num_classes}'
    )
  if seed < 0:
    raise errors.UserError(f'config.seed={seed}: must not be negative')
  rng = np.random.default_rng([seed, 0x5EED])
  pool = np.flatnonzero(labels >= 0)
  if given is not None:
    pool = _without(pool, given, len(labels))
  held_out = _draw(
    labels,
    pool,
    0 if given is not None else validation,
    num_classes,
    validation_rule,
    'validation',
    rng,
    leave=1,
  )
  if given is not None:
    held_out = given
  pool = _without(pool, held_out, len(labels))
  remaining = _without(np.arange(len(labels)), held_out, len(labels))
  apart = held_out[:0]
  if holdout:
    stream = np.random.default_rng([seed, 0x401D])
    apart = _draw(
      labels, held_out, holdout, num_classes, rule, 'holdout', stream
    )
    held_out = _without(held_out, apart, len(labels))
  chosen = _draw(
    labels,
    pool,
    labeled,
    num_classes,
    rule,
    'labeled',
    rng,
    imbalance=imbalance,
  )
  remaining, included = _without(remaining, chosen, len(labels)), chosen
  if unlabeled_classes is not None:
    remaining, included = (
      rows[np.isin(labels[rows], [-1, *unlabeled_classes])]
      for rows in (remaining, included)
    )
  if imbalance_unlabeled != 1.0:
    stream = np.random.default_rng([seed, 0x7A11])
    remaining = _thinned(
      remaining, labels, num_classes, imbalance_unlabeled, stream
    )
  if unlabeled_includes_labeled:
    remaining = np.concatenate([remaining, included])  # which share no row
  return Split(
    *(
      np.sort(rows).astype(np.int32)
      for rows in (chosen, remaining, held_out, apart)
    )
  )
