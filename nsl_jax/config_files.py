"""Finding and reading config files outside of the command line."""

import pathlib
import runpy
import sys

import ml_collections

from nsl_jax import errors


def root() -> pathlib.Path:
  """The folder that holds `configs/`: the current one, or the checkout.

  Raises:
    errors.UserError: if neither has it.
  """
  checkout = pathlib.Path(__file__).resolve().parent.parent
  for folder in (pathlib.Path.cwd(), checkout):
    if (folder / 'configs' / 'common.py').is_file():
      return folder
  raise errors.UserError(
    'no folder configs/ here: run this from a checkout of the repository'
  )


def exists(argument: str) -> bool:
  """Whether the file of a --config argument is there."""
  return (root() / argument.partition(':')[0]).is_file()


def load(argument: str, **extra) -> ml_collections.ConfigDict:
  """The locked config of `FILE[:k=v,…]`, with more arguments from `extra`.

  Raises:
    errors.UserError: if there is no such file, or it refuses an argument.
  """
  name, _, words = argument.partition(':')
  path = root() / name
  if not path.is_file():
    raise errors.UserError(f'no config file {name}: see the folder configs/')
  if str(root()) not in sys.path:
    sys.path.insert(0, str(root()))
  get_config = runpy.run_path(str(path))['get_config']
  more = [f'{key}={value}' for key, value in extra.items()]
  try:
    return get_config(','.join(filter(None, [words, *more]))).lock()
  except ValueError as error:
    raise errors.UserError(f'{name}: {error}') from error
