"""Commands in the process of the tests, which need not import JAX anew."""

import contextlib
import io
import sys
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

from nsl_jax.commands import cli
from nsl_jax.training import processes


class Done(NamedTuple):
  """Exit status, and what was printed."""

  status: int
  out: str
  err: str


def run(main: Callable[[list[str]], None], *words: str) -> Done:
  """Runs a command as the command line does.

  Args:
    main: of the command's module.
    *words: of the command line.
  """
  out, err = io.StringIO(), io.StringIO()
  with (
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    mock.patch.object(cli, '_keep_compilations'),
    mock.patch.object(processes, 'leave', side_effect=sys.exit),
  ):
    try:
      cli.run_command(lambda: main(list(words)), keep_memory=False)
      status = 0
    except SystemExit as stop:
      status = stop.code
  return Done(status, out.getvalue(), err.getvalue())
