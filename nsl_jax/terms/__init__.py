"""Losses on unlabeled rows that can be added to any method, one per file.

The file of a term has `build(**options) -> Term` and `DEFAULTS`, the weight and
ramp of the paper's main row. No file here imports a method.
"""

import importlib
import pkgutil
import types
from collections.abc import Mapping
from typing import Any

from nsl_jax import errors, options, references, schedules
from nsl_jax.terms import negative_samplers
from nsl_jax.types import Schedule, Term

__all__ = ['build', 'find', 'from_config', 'names']

_NOT_TERMS = ('error_perception', 'negative_samplers', 'power_iteration')


def names() -> list[str]:
  """Names of all terms in the package."""
  modules = (module.name for module in pkgutil.iter_modules(__path__))
  return sorted(name for name in modules if name not in _NOT_TERMS)


def find(name: str) -> Any:
  """The module of a term.

  Args:
    name: a file of this folder, `package.module` of another file, or
      `module:name` of a function `build(**options) -> Term` alone.

  Raises:
    errors.UserError: if no term has this name.
  """
  if ':' in name:
    part = references.find(name, 'term')
    return types.SimpleNamespace(build=part, DEFAULTS={})
  if '.' in name:
    return errors.import_module(name, 'term')
  if name not in names():
    raise errors.UserError(
      f'unknown term {name!r}: {errors.did_you_mean(name, names())}'
    )
  return importlib.import_module(f'{__name__}.{name}')


def build(name: str, **fields: Any) -> Term:
  """The term of this name with the given options.

  Raises:
    errors.UserError: for an unknown term or option.
  """
  make = find(name).build
  term: Term = options.call(make, f'term {name!r}', **fields)
  if not callable(term):
    raise errors.UserError(
      f'term {name!r} returns {type(term).__name__}: return a function '
      '(inputs, batch, key) -> f32[N]'
    )
  return term


def from_config(
  config: Mapping[str, Mapping[str, Any]],
) -> dict[str, tuple[Schedule, Term]]:
  """Terms with their weights, from `{name: {weight, ramp, ...options}}`.

  A term of another package may have any name; its field `module` is the
  `package.module` of its file, or the `module:name` of its function.

  Raises:
    errors.UserError: for an unknown term or option.
  """
  built = {}
  for name, fields in config.items():
    source = fields.get('module') or name
    fields = {**find(source).DEFAULTS, **fields}
    of_weight = options.of(schedules.ramped)
    taken = of_weight.keys() & options.of(find(source).build)
    if taken:
      raise errors.UserError(
        f'the term {name!r} has an option {min(taken)}, which is one of every '
        'term: give it another name'
      )
    weight = schedules.ramped(
      **{k: v for k, v in fields.items() if k in of_weight}
    )
    options_of_term = {
      k: v for k, v in fields.items() if k not in of_weight and k != 'module'
    }
    built[name] = (weight, build(source, **options_of_term))
  return built


def with_own(
  name: str, own: Mapping[str, Any], terms: Mapping[str, Any], method: str = ''
) -> dict[str, Any]:
  """The term of a method, then those that the config adds.

  Args:
    name: name of the term.
    own: its options.
    terms: the terms that the config adds.
    method: name of the method; '' if it is that of the term.

  Raises:
    errors.UserError: if the config adds the method's term again.
  """
  if name in terms:
    raise errors.UserError(
      f'the method {method or name} has the term {name} already: set it in '
      'config.method, not in config.method.terms'
    )
  return {name: own, **terms}


def per_image_tables(
  config: Mapping[str, Mapping[str, Any]],
) -> tuple[str, ...]:
  """Names of the per-image tables that the terms read."""
  samplers = [f['sampler'] for f in config.values() if 'sampler' in f]
  return tuple(
    sorted({t for s in samplers for t in negative_samplers.per_image_tables(s)})
  )


def refuse_single_images(
  name: str, config: Mapping[str, Mapping[str, Any]]
) -> None:
  """Refuses terms that read per-image tables, for a method with mixed rows.

  Raises:
    errors.UserError: if a term reads one.
  """
  if per_image_tables(config):
    raise errors.UserError(
      f'a mixed row is not a single image: with {name} the ns3l sampler must '
      'be threshold or uniform'
    )


def needs_linearized_pass(config: Mapping[str, Mapping[str, Any]]) -> bool:
  """Whether any term reads `ForwardPass.jvp`, by the function
  `needs_linearized_pass(**options)` of its file.
  """
  return any(
    getattr(
      find(fields.get('module') or name),
      'needs_linearized_pass',
      lambda **_: False,
    )(**fields)
    for name, fields in config.items()
  )
