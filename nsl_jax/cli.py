"""What every command shares: one-line errors and exit statuses."""

import pathlib
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import jax
from absl import app, flags, logging

from nsl_jax import errors, loop
from nsl_jax.data import cache


def fail(message: object, status: int) -> NoReturn:
  """Prints one line and exits; with --verbosity=1 the traceback before it."""
  if any(word in sys.argv for word in ('--verbosity=1', '-v=1')):
    traceback.print_exc()
  line = ' '.join(str(message).split())
  print(f'error: {line}', file=sys.stderr)
  sys.exit(status)


def _keep_compilations() -> None:
  """Compiled programs outlive the process, in JAX_COMPILATION_CACHE_DIR or
  beside the decoded data."""
  if jax.config.jax_compilation_cache_dir is None:
    folder = str(cache.directory() / 'compiled')
    jax.config.update('jax_compilation_cache_dir', folder)


def _parse(argv: list[str]) -> list[str]:
  for word in argv:  # config files import their neighbours as `configs.x`
    if word.startswith('--config='):
      path = pathlib.Path(word.partition('=')[2].partition(':')[0])
      sys.path.insert(0, str(path.resolve().parent.parent))
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    fail(error, 2)
  except errors.UserError as error:
    fail(error, 2)
  except FileNotFoundError as error:
    missing = getattr(error, 'filename', None) or error
    fail(f'no config file {missing}: see the folder configs/', 2)
  except Exception as error:  # a config file may raise anything
    fail(error.args[0] if error.args else repr(error), 2)


def run(body: Callable[[], None]) -> None:
  """Parses the flags and runs `body`, turning what it raises into an exit.

  0 for success, 2 for wrong input, 1 for a run that cannot go on, and 128
  plus the signal for one that was stopped and can be resumed.
  """
  def main(argv: list[str]) -> None:
    if len(argv) > 1:
      fail(f'what is {argv[1]!r}? options start with --, see --help', 2)
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)
    _keep_compilations()
    try:
      body()
    except errors.UserError as error:
      fail(error, 2)
    except errors.TrainingError as error:
      fail(error, 1)
    except loop.Interrupted as stop:
      print(f'{stop}; the same command resumes', file=sys.stderr)
      sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
      print('stopped; the same command starts again', file=sys.stderr)
      sys.exit(128 + signal.SIGINT)

  app.run(main, flags_parser=_parse)
