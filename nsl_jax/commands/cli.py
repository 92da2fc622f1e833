"""Shared by all commands: one-line errors and exit statuses."""

import argparse
import io
import os
import pathlib
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
from absl import logging

from nsl_jax import errors, files, memory
from nsl_jax.data import cache
from nsl_jax.training import checkpoint, loop, processes

OUT_OF_TIME = 75  # exit status of a run that --max_hours ends


def fail(message: object, status: int) -> NoReturn:
  """Prints one line and exits; --verbosity=1 prints the traceback first."""
  _print_error(message)
  sys.exit(status)


def _print_error(message: object) -> None:
  words = ' '.join(sys.argv[1:]).replace('=', ' ')
  if '--verbosity 1' in words:
    traceback.print_exc()
  line = ' '.join(str(message).split())
  print(f'error: {line}', file=sys.stderr)


def _keep_compilations() -> None:
  """Caches compiled programs in JAX_COMPILATION_CACHE_DIR, or next to the
  decoded data."""
  if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    folder = str(cache.directory() / 'compiled')
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


@contextmanager
def _readers_may_leave() -> Iterator[None]:
  """Exits silently, as by SIGPIPE, when the reader of the output is gone.

  SIGPIPE itself stays ignored, since it would also end a run when a connection
  to another process breaks.
  """
  try:
    try:
      yield
    finally:
      sys.stdout.flush()  # here, since Python's flush at exit would complain
  except BrokenPipeError:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
      os.dup2(nowhere, stream.fileno())
    sys.exit(128 + signal.SIGPIPE)


def run_command(body: Callable[[], None], *, keep_memory: bool = True) -> None:
  """Runs `body`, and turns its errors into one line and an exit status.

  Freed memory is kept for the next training step unless `keep_memory` is False:
  a command that reads many files would hold more and more of it in pieces.

  The status is 2 for wrong input, 1 for a run that cannot continue, and 128
  plus the signal for a run that was stopped and can be resumed, or whose output
  is not read. A run that can be resumed also ends with 75, when its time is
  over, and with 69, when one of its processes is lost. Other errors print a
  traceback and end the process at once.
  """
  logging.set_verbosity(logging.WARNING)
  for stream in (sys.stdout, sys.stderr):  # names may not be in its encoding
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')
  if keep_memory:
    memory.keep()
  checkpoint.log_no_errors()
  with _readers_may_leave():
    _run(body)


def _run(body: Callable[[], None]) -> None:
  try:
    _keep_compilations()
    body()
  except errors.UserError as error:
    _print_error(error)
    if processes.is_joined():
      processes.leave(2)
    sys.exit(2)
  except errors.UnreadableFiles as error:
    fail(error, 64 + min(error.count, 63))
  except (errors.TrainingError, errors.WriteError) as error:
    if processes.is_joined() and isinstance(error, errors.WriteError):
      processes.await_loss()  # which also is an error of writing
    _print_error(error)
    processes.leave(1)  # a writer may hang
  except BrokenPipeError:
    raise
  except loop.Interrupted as stop:
    print(f'{stop}; the same command resumes', file=sys.stderr)
    if stop.signal == loop.OUT_OF_TIME:
      sys.exit(OUT_OF_TIME)
    sys.exit(128 + stop.signal)
  except KeyboardInterrupt:
    print('stopped; the same command starts again', file=sys.stderr)
    sys.exit(128 + signal.SIGINT)
  except Exception:
    if processes.is_joined():
      processes.await_loss()
    traceback.print_exc()
    processes.leave(1)


# Common names of an option -> field of the config.
_FIELDS = {
  'lr': 'optimizer.lr',
  'learning_rate': 'optimizer.lr',
  'batch_size': 'batch.labeled',
  'steps': 'steps',
  'seed': 'seed',
  'seeds': 'seeds',
  'epochs': 'steps',
  'method': 'method.name',
  'model': 'model.name',
  'data': 'data.name',
  'data_dir': 'data.dir',
  'labels': 'data.labeled',
}


def path_of(option: str) -> Callable[[str], files.Path]:
  """What reads an option that names a path on a disk or in a bucket."""
  return lambda word: files.path_of(word, option)


def local_path(word: str) -> pathlib.Path:
  """Reads an option that names a path on a disk; `~` is the home folder."""
  return pathlib.Path(word).expanduser()


class Parser(argparse.ArgumentParser):
  """argparse with unwrapped descriptions, no abbreviated options, checked
  folders, and one-line errors."""

  def __init__(self, command: str, description: str | None):
    super().__init__(
      prog=f'python -m nsl_jax {command}',
      description=description,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    self._trains = command == 'train'
    self.add_argument(
      '--verbosity', type=int, default=0, help='1 shows tracebacks'
    )

  def parse_known_args(  # type: ignore[override]
    self, args: Sequence[str] | None = None, namespace: Any = None
  ) -> tuple[Any, list[str]]:
    """Reports an unknown option before missing ones, and refuses invalid
    paths."""
    for word in sys.argv[1:] if args is None else args:
      name = word.partition('=')[0]
      written_out = name in self._option_string_actions
      if name.startswith('--') and name != '--' and not written_out:
        hint = self.hint(name)
        self.error(f'no such option: {name}; {hint}')
    options, unknown = super().parse_known_args(args, namespace)
    for name, value in vars(options).items():
      for path in value if isinstance(value, list) else [value]:
        if isinstance(path, pathlib.Path):
          errors.refuse_address(path, f'--{name}')
    return options, unknown

  def _written(self, name: str) -> str:
    """An argument as the user writes it."""
    written = {a.dest: a.option_strings[-1:] for a in self._actions}
    return ''.join(written[name]) or name

  def refuse_ignored(
    self, options: argparse.Namespace, acts_in: Mapping[str, Collection[str]]
  ) -> set[str]:
    """Checks that every argument that is set has an effect.

    Args:
      options: the parsed arguments.
      acts_in: by argument that selects a mode, the others that act in it.

    Returns:
      Names of the arguments that are set.

    Raises:
      errors.UserError: for arguments without an effect.
    """
    given = {
      name
      for name, value in vars(options).items()
      if value not in (self.get_default(name), []) and name != 'verbosity'
    }
    for mode, acts in acts_in.items():
      ignored = sorted(map(self._written, given - {mode, *acts}))
      if mode in given and ignored:
        raise errors.UserError(
          f'{self._written(mode)} ignores {", ".join(ignored)}: omit it'
        )
    return given

  def hint(self, name: str) -> str:
    """A suggestion for an unknown option."""
    field = _FIELDS.get(name.removeprefix('--'))
    if field and self._trains:
      return f'did you mean --config.{field}?'
    return errors.did_you_mean(name, self._option_string_actions)

  def _print_message(self, message: str, file: Any = None) -> None:
    """As in argparse, but raises if the output is closed."""
    (file or sys.stderr).write(message)

  def error(self, message: str) -> NoReturn:
    """Raises the message as a one-line error (status 2)."""
    fail(f'{message}; see --help', 2)
