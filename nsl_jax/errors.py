"""How a command ends that does not end well, each with its exit status."""

import difflib
import importlib
import re
from collections.abc import Iterable
from types import ModuleType


class UserError(Exception):
  """Wrong input; the message is one line that names the fix (exit status 2)."""


class TrainingError(Exception):
  """A run that cannot go on, such as a loss that is not finite (status 1)."""


class WriteError(Exception):
  """A disk that takes no more; the message is one line, without what is saved
  and from where the run goes on (status 1)."""


class UnreadableFiles(Exception):
  """A command that did its work but for some files that cannot be read; `count`
  is their number (status 64 + count, at most 127)."""

  def __init__(self, message: str, count: int):
    super().__init__(message)
    self.count = count


def refuse_address(path: object, option: str) -> None:
  """Refuses the address of a bucket, of which a local folder would be made.

  Args:
    path: as it was given, or as pathlib has it: `gs:/bucket/run`. A single
      letter before the colon is a drive.
    option: what was set to it.

  Raises:
    UserError: if it is one.
  """
  if re.match(r'[A-Za-z][A-Za-z0-9+.-]+:/', str(path)):
    raise UserError(
      f'{option}={path} is an address, and only local folders can be '
      'written: name one, such as where that bucket is mounted'
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
  """A hint to append to a message: the nearest known word, or all of them."""
  known = sorted(known)
  near = difflib.get_close_matches(word, known, n=1)
  if near:
    return f'did you mean {near[0]!r}?'
  return 'known: ' + ', '.join(known)


def import_module(name: str, kind: str) -> ModuleType:
  """A module by its dotted name, such as a method outside of the package.

  Raises:
    UserError: if there is none; `kind` is what it should be.
  """
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    raise UserError(
      f'unknown {kind} {name!r}: {error}; run from the folder that holds it '
      'or set PYTHONPATH'
    ) from error
