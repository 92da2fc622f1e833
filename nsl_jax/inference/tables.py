"""Predictions as a CSV file, written line by line."""

import collections
import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nsl_jax import errors, files
from nsl_jax.data import pictures
from nsl_jax.inference.predictor import Read

_BYTES = 'surrogateescape'  # names of files are bytes, and not always UTF-8


def check_target(path: files.Path, overwrite: bool) -> None:
  """Refuses to write where that is not possible, before anything is computed.

  Raises:
    errors.UserError: if the path is a folder, exists without `overwrite`, or
      cannot be written.
  """
  if path.is_dir():
    raise errors.UserError(f'--out={path} is a folder: name a file in it')
  if path.exists() and not overwrite:
    raise errors.UserError(
      f'--out={path} exists: name another file, or add --overwrite'
    )
  if files.in_bucket(path):
    files.make_folder(path.parent, '--out')
    return
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    writable = os.access(path.parent, os.W_OK)
  except OSError:
    writable = False
  if not writable:
    raise errors.UserError(
      f'--out={path}: cannot write to {path.parent}: choose another place'
    )


def columns(classes: Sequence[str], points: int) -> list[str]:
  """The header: path, class, probability, a column for each class, error; of
  points path, x and y of each, error.
  """
  if not classes:
    coordinates = [f'{axis}{n}' for n in range(1, points + 1) for axis in 'xy']
    return ['path', *coordinates, 'error']
  return [
    'path',
    'class',
    'probability',
    *(f'p({c})' for c in classes),
    'error',
  ]


def write(
  path: files.Path,
  predictions: Iterable[Read],
  classes: Sequence[str],
  outputs: int,
) -> tuple[int, int, list[str]]:
  """Writes a line for each file, whole or not at all.

  Args:
    path: of the CSV file.
    predictions: of the files; a damaged file has its error and no numbers.
    classes: names of the classes; () for points.
    outputs: K, or P coordinates.

  Returns:
    How many lines there are, how many of damaged files, and notes on pictures
    that were changed.

  Raises:
    errors.UserError: if it cannot be written.
  """
  total = damaged = 0
  facts: collections.Counter[str] = collections.Counter()
  try:
    with (
      files.replacing(path) as part,
      part.open('w', encoding='utf-8', errors=_BYTES, newline='') as file,
    ):
      table = csv.writer(file, lineterminator='\n')
      table.writerow(columns(classes, outputs // 2))
      for prediction in predictions:
        total += 1
        facts.update(prediction.facts)
        damaged += prediction.outputs is None
        table.writerow(_line(prediction, classes, outputs))
  except OSError as error:
    raise errors.UserError(
      f'cannot write {path} ({files.reason_of(error)}): choose another --out'
    ) from error
  return total, damaged, pictures.counted(dict(facts))


def _line(prediction: Read, classes: Sequence[str], outputs: int) -> list[Any]:
  if prediction.outputs is None:
    empty = [''] * (outputs + 2 * bool(classes))
    return [prediction.path, *empty, prediction.error]
  if not classes:
    return [
      prediction.path,
      *(f'{value:.2f}' for value in prediction.outputs),
      '',
    ]
  best = int(np.argmax(prediction.outputs))
  numbers = [f'{value:.6f}' for value in prediction.outputs]
  return [prediction.path, classes[best], numbers[best], *numbers, '']


def read(path: files.Path) -> list[Mapping[str, str]]:
  """The lines of a file that `write` wrote."""
  text = io.StringIO(path.read_bytes().decode(errors=_BYTES), newline='')
  return list(csv.DictReader(text))
