"""The two ways a command ends early: wrong input, or a run that broke."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """Wrong input; the message is one line that names the fix (exit status 2)."""


class TrainingError(Exception):
  """A run that cannot go on, such as a loss that is not finite (status 1)."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
  """A hint to append to a message: the nearest known word, or all of them."""
  known = sorted(known)
  near = difflib.get_close_matches(word, known, n=1)
  if near:
    return f'did you mean {near[0]!r}?'
  return 'known: ' + ', '.join(known)
