"""One file per method; its name in a config is the file's name."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from nsl_jax import compose, errors, tasks
from nsl_jax.types import Method, Tools


def names() -> list[str]:
  """Names of all methods."""
  return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> Any:
  """The module of a method.

  It has `build(tools, **options) -> Method`, or `recipe(tools, **options) ->
  compose.Recipe` if it is a loss on one network that others may build on;
  `DEFAULTS`, options of the paper's main row from which benchmarks and tests
  start; and `TASKS`, the tasks that it is for, if it is not for classes alone.

  Raises:
    errors.UserError: if there is none of that name.
  """
  if name not in names():
    raise errors.UserError(
        f'unknown method {name!r}: {errors.did_you_mean(name, names())}'
    )
  return importlib.import_module(f'{__name__}.{name}')


def build(config: Mapping[str, Any], tools: Tools) -> Method:
  """Builds the method that `config['name']` names from its other fields.

  Raises:
    errors.UserError: for an unknown method, or fields it does not take.
  """
  options = {k: v for k, v in config.items() if k != 'name'}
  module = find(config['name'])
  make = getattr(module, 'build', None) or module.recipe
  try:
    inspect.signature(make).bind(tools, **options)
  except TypeError as error:
    raise errors.UserError(f'method {config["name"]!r}: {error}') from error
  known = getattr(module, 'TASKS', (tasks.CLASSIFICATION.name,))
  tasks.check_method(tools, config['name'], options, known)
  made = make(tools, **options)
  if isinstance(made, compose.Recipe):
    return compose.method_of(made, tools)
  return made
