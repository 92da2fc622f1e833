"""How a command ends that does not end well, each with its exit status."""

import difflib
import importlib
import re
from collections.abc import Iterable, Sequence
from types import ModuleType

__all__ = ['TrainingError', 'UnreadableFiles', 'UserError', 'WriteError']


class UserError(Exception):
  """Wrong input; the message is one line that names the fix (exit status 2)."""


class TrainingError(Exception):
  """A run that cannot continue, such as by a loss of NaN (exit status 1)."""


class WriteError(Exception):
  """A file that cannot be written, such as on a full disk (exit status 1). The
  message is one line; the caller adds which checkpoint remains."""


class UnreadableFiles(Exception):
  """A command that did its work but for some files that cannot be read; `count`
  is their number (status 64 + count, at most 127)."""

  def __init__(self, message: str, count: int):
    super().__init__(message)
    self.count = count


def refuse_address(
  path: object, option: str, allowed: str = 'local folders'
) -> None:
  """Refuses an address, which would become a local folder.

  Args:
    path: as given, or as pathlib writes it: `gs:/bucket/run`. A single letter
      before the colon is a drive.
    option: the option that was set to it.
    allowed: what it may be set to.

  Raises:
    UserError: if the path is an address.
  """
  if re.match(r'[A-Za-z][A-Za-z0-9+.-]+:/', str(path)):
    raise UserError(
      f'{option}={path} is an address, and only {allowed} can be written: '
      'name one, such as where that bucket is mounted'
    )


def described(value: object) -> str:
  """What a function returned, in words: `float32[4, 10]`, or its type."""
  dtype, shape = (getattr(value, name, None) for name in ('dtype', 'shape'))
  if dtype is None or shape is None:
    return str(value) if value is None else type(value).__name__
  return f'{dtype}{list(shape)}'


def shown(items: Sequence[object], most: int = 5) -> str:
  """The first items in words, and how many more there are."""
  num_omitted = len(items) - most
  return ', '.join(map(str, items[:most])) + f' and {num_omitted:,} more' * (
    num_omitted > 0
  )


def did_you_mean(word: str, names: Iterable[str]) -> str:
  """A hint for an error message: the closest known word, or all of them."""
  names = sorted(names)
  near = difflib.get_close_matches(word, names, n=1)
  if near:
    return f'did you mean {near[0]!r}?'
  return 'known: ' + ', '.join(names)


def import_module(name: str, kind: str) -> ModuleType:
  """Imports a module by its dotted name, such as a method of another package.

  Raises:
    UserError: if there is no such module; `kind` names it in the message.
  """
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    raise UserError(
      f'unknown {kind} {name!r}: {error}; run from the folder that contains it '
      'or set PYTHONPATH'
    ) from error
