"""Progress on a terminal as a bar, elsewhere as a line from time to time."""

import sys
from typing import Any, TextIO

import tqdm

_LINE_S = 10.0  # seconds between the lines
_LINE = (
  '{desc}: {percentage:.1f}% {n_fmt}/{total_fmt} '
  '[{elapsed}<{remaining}, {rate_fmt}{postfix}]\n'
)


def progress(
  *items: Any, file: TextIO | None = None, **options: Any
) -> tqdm.tqdm:
  """Returns a bar.

  Args:
    *items: what to iterate over, if anything.
    file: where to write; None for standard error.
    **options: of `tqdm.tqdm`.
  """
  file = file or sys.stderr
  if not file.isatty():  # such as a log
    options.update(mininterval=_LINE_S, bar_format=_LINE)
  return tqdm.tqdm(
    *items, file=file, dynamic_ncols=True, smoothing=0.05, **options
  )
