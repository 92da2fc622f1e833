"""Atomic writing of files."""

import csv
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nsl_jax import errors


def make_folder(folder: pathlib.Path, option: str) -> None:
  """Creates a folder, so that a run fails early if it cannot write.

  Args:
    folder: created with its parents; it may exist.
    option: command-line option that names it.

  Raises:
    errors.UserError: if it cannot be created or is not writable.
  """
  errors.refuse_address(folder, option)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UserError(
      f'cannot make the folder {folder} ({error.strerror}): choose '
      f'another {option}'
    ) from error
  if not os.access(folder, os.W_OK):
    raise errors.UserError(f'cannot write to {folder}: choose another {option}')


def write(path: pathlib.Path, content: bytes) -> None:
  """Replaces the content of a file atomically.

  Raises:
    errors.UserError: if the file cannot be written.
  """
  errors.refuse_address(path, 'the file')
  part = path.with_name(path.name + '.part')
  try:
    part.write_bytes(content)
    os.replace(part, path)
  except OSError as error:
    remove(part)  # on a full disk even half a file is in the way
    raise errors.UserError(
      f'cannot write {path} ({error.strerror}): choose another place'
    ) from error


def remove(path: pathlib.Path) -> None:
  """Removes a file if that is possible."""
  try:
    path.unlink(missing_ok=True)
  except OSError:  # a file that could not be written may not be removable
    pass


def write_csv(path: pathlib.Path, lines: Sequence[Mapping[str, Any]]) -> None:
  """Writes a table with a header; None becomes an empty cell.

  Args:
    path: path of the file.
    lines: at least one, all with the same columns.

  Raises:
    errors.UserError: if the file cannot be written.
  """
  text = io.StringIO()
  table = csv.DictWriter(text, list(lines[0]), lineterminator='\n')
  table.writeheader()
  table.writerows(lines)
  write(path, text.getvalue().encode())
