"""Semi-supervised image classification by what an image is not, in JAX."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from nsl_jax import (
    compose,
    data,
    errors,
    losses,
    methods,
    models,
    options,
    terms,
    types,
  )
  from nsl_jax.inference.classifier import SemiSupervisedClassifier
  from nsl_jax.inference.loading import load
  from nsl_jax.training.config import load as load_config
  from nsl_jax.training.experiment import run

__version__ = '0.1.0'
__all__ = [
  'SemiSupervisedClassifier',
  '__version__',
  'compose',
  'data',
  'errors',
  'load',
  'load_config',
  'losses',
  'methods',
  'models',
  'options',
  'run',
  'terms',
  'types',
]

# Names that are imported when they are first used: jax takes seconds.
_HOMES = {
  'SemiSupervisedClassifier': (
    'nsl_jax.inference.classifier',
    'SemiSupervisedClassifier',
  ),
  'load': ('nsl_jax.inference.loading', 'load'),
  'load_config': ('nsl_jax.training.config', 'load'),
  'run': ('nsl_jax.training.experiment', 'run'),
}
_MODULES = {name for name in __all__ if name not in {*_HOMES, '__version__'}}

_COMMANDS = ('', 'main')  # what `python -m nsl_jax` may be followed by


def __getattr__(name: str) -> Any:
  if name in _MODULES:
    return importlib.import_module(f'{__name__}.{name}')
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, attribute = _HOMES[name]
  value = getattr(importlib.import_module(module), attribute)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})


def _started() -> str | None:
  """What follows `python -m`, on Python's own command line."""
  words = iter(sys.orig_argv[1:])
  for word in words:
    if word.startswith('--'):
      if word == '--check-hash-based-pycs':
        next(words, '')
      continue
    for at, letter in enumerate(word[1:], 2):  # as in -um or -mnsl_jax.main
      if letter in 'cmWX':
        value = word[at:] or next(words, '')
        if letter in 'cm':
          return value if letter == 'm' else None
        break
  return None


def _refuse_what_is_no_command() -> None:
  """Ends `python -m nsl_jax.losses` and the like, which would do nothing.

  Python imports this package before the module that it was told to run, and
  keeps '-m' in place of its file until then.
  """
  if sys.argv[:1] != ['-m']:
    return
  package, _, module = (_started() or '').partition('.')
  if package == __name__ and module.removesuffix('__main__') not in _COMMANDS:
    print(
      f'error: {package}.{module} is no command: use python -m {package} '
      'COMMAND; without a command it lists them',
      file=sys.stderr,
    )
    sys.exit(2)


_refuse_what_is_no_command()
