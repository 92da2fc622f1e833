"""Seeded choice of validation, labelled and unlabelled images."""

import hashlib
import io
import os
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from nsl_jax import errors, files

RULES = ('balanced', 'proportional', 'uniform')


class Split(NamedTuple):
  """Sorted row numbers of the training images, by use.

  Attributes:
    labelled: i32[n_l].
    unlabelled: i32[n_u].
    validation: i32[n_v]; disjoint from the other two.
    holdout: i32[n_h], labelled images on which alone a method judges its own
      steps; disjoint from all others, mostly none.
  """

  labelled: np.ndarray
  unlabelled: np.ndarray
  validation: np.ndarray
  holdout: np.ndarray = np.zeros(0, np.int32)

  def sha256(self) -> str:
    """Hash of the index sets, the same on every machine."""
    digest = hashlib.sha256()
    for name, rows in self._asdict().items():
      if name == 'holdout' and not len(rows):
        continue
      digest.update(f'{name}:{len(rows)};'.encode())
      digest.update(np.ascontiguousarray(rows, '<i4').tobytes())
    return digest.hexdigest()


def _counts(
    available: np.ndarray, size: int, rule: str, rng: np.random.Generator
) -> np.ndarray:
  """How many rows to take of every class."""
  num_classes = len(available)
  if rule == 'balanced':
    counts = np.full(num_classes, size // num_classes)
    extra = size - counts.sum()
    counts[rng.choice(num_classes, extra, replace=False)] += 1
    return counts
  share = available * (size / available.sum())
  counts = np.floor(share).astype(int)
  order = np.argsort(-(share - counts), kind='stable')
  counts[order[: size - counts.sum()]] += 1
  return counts


def _draw(
    labels: np.ndarray, pool: np.ndarray, size: int, num_classes: int,
    rule: str, what: str, rng: np.random.Generator,
) -> np.ndarray:
  """`size` rows of the pool by the rule, in random order."""
  if rule not in RULES:
    field = 'rule' if what == 'labelled' else f'{what}_rule'
    raise errors.UserError(
        f'config.data.{field}={rule!r}: {errors.did_you_mean(rule, RULES)}'
    )
  if size < 0:
    raise errors.UserError(f'config.data.{what}={size}: must not be negative')
  if size > len(pool):
    raise errors.UserError(
        f'{size} {what} images asked for, but only {len(pool)} labelled '
        f'images are left: lower config.data.{what}'
    )
  pool = rng.permutation(pool)
  if rule == 'uniform' or not size:
    return pool[:size]
  available = np.bincount(labels[pool], minlength=num_classes)
  counts = _counts(available, size, rule, rng)
  short = np.flatnonzero(counts > available)
  if len(short):
    raise errors.UserError(
        f'{size} {what} images asked for by the {rule} rule need '
        f'{counts[short[0]]} of class {short[0]}, which has only '
        f'{available[short[0]]}: lower config.data.{what}'
    )
  by_class = (pool[labels[pool] == k][:n] for k, n in enumerate(counts))
  return np.concatenate(list(by_class))


def make(
    labels: np.ndarray, num_classes: int, *, labelled: int, validation: int,
    rule: str, validation_rule: str, seed: int, holdout: int = 0,
    unlabelled_includes_labelled: bool = False,
) -> Split:
  """Holds out the validation images first, then draws the labelled ones.

  Args:
    labels: i32[N]; rows of class -1 can only be unlabelled.
    num_classes: K.
    labelled: number of labelled images, at least K.
    validation: number of validation images, may be 0.
    rule: how labelled images are drawn: `balanced` (n/K per class, Oliver et
      al.), `proportional` (to the class frequencies, MixMatch; F-N16) or
      `uniform` over all images.
    validation_rule: the same for the validation images.
    seed: seed of the whole split, which is the same on every host.
    holdout: number of labelled images kept apart, drawn like the labelled ones
      from those that were held out for validation (L2I's "separate" rows).
    unlabelled_includes_labelled: whether the unlabelled images contain the
      labelled ones (Oliver et al.'s loader) or not (default, F-N9).

  Raises:
    errors.UserError: if more images are asked for than exist, fewer labelled
      ones than classes, an unknown rule or a negative seed.
  """
  if labelled < num_classes:
    raise errors.UserError(
        f'{labelled} labelled images asked for, but there are {num_classes} '
        f'classes: raise config.data.labelled to at least {num_classes}'
    )
  if seed < 0:
    raise errors.UserError(f'config.seed={seed}: must not be negative')
  rng = np.random.default_rng([seed, 0x5EED])
  pool = np.flatnonzero(labels >= 0)
  held_out = _draw(
      labels, pool, validation, num_classes, validation_rule, 'validation', rng
  )
  pool = np.setdiff1d(pool, held_out)
  rest = np.setdiff1d(np.arange(len(labels)), held_out)
  apart = held_out[:0]
  if holdout:
    stream = np.random.default_rng([seed, 0x401D])
    apart = _draw(
        labels, held_out, holdout, num_classes, rule, 'holdout', stream
    )
    held_out = np.setdiff1d(held_out, apart)
  chosen = _draw(labels, pool, labelled, num_classes, rule, 'labelled', rng)
  if not unlabelled_includes_labelled:
    rest = np.setdiff1d(rest, chosen)
  return Split(*(np.sort(rows).astype(np.int32)
                 for rows in (chosen, rest, held_out, apart)))


def save(split: Split, path: str | os.PathLike) -> None:
  """Writes `split.npz` whole or not at all."""
  buffer = io.BytesIO()
  np.savez(buffer, **split._asdict())
  files.write(pathlib.Path(path), buffer.getvalue())


def load(path: str | os.PathLike) -> Split:
  """Reads `split.npz`.

  Raises:
    errors.UserError: if the file is not one that `save` wrote.
  """
  try:
    with np.load(path) as file:
      names = set(Split._fields) - ({'holdout'} - set(file.files))
      return Split(**{name: file[name] for name in names})
  except (
      OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile
  ) as error:
    raise errors.UserError(
        f'{path} is damaged ({error}): restore it or start a new workdir'
    ) from error
