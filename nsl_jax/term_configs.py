"""Terms as a config writes them: `{name: {weight, ramp, ramp_steps, ...}}`."""

from collections.abc import Mapping
from typing import Any

from nsl_jax import errors, negatives, schedules
from nsl_jax import terms as terms_lib
from nsl_jax.types import Schedule, Term

_WEIGHT = ('weight', 'ramp', 'ramp_steps')
_HOLD = 'hold_steps'  # may be left out


def from_config(
    config: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Schedule, Term]]:
  """Terms with their weights, from `{name: {weight, ramp, ...options}}`.

  Raises:
    errors.UserError: for an unknown term or option.
  """
  built = {}
  for name, fields in config.items():
    if name not in terms_lib.TERMS:
      raise errors.UserError(
          f'unknown term {name!r}: {errors.did_you_mean(name, terms_lib.TERMS)}'
      )
    missing = [field for field in _WEIGHT if field not in fields]
    if missing:
      raise errors.UserError(f'term {name!r} lacks {", ".join(missing)}')
    value, ramp, ramp_steps = (fields[field] for field in _WEIGHT)
    weight = schedules.weight(value, ramp, ramp_steps, fields.get(_HOLD, 0))
    options = {
        k: v for k, v in fields.items() if k not in (*_WEIGHT, _HOLD)
    }
    try:
      built[name] = (weight, terms_lib.TERMS[name](**options))
    except TypeError as error:
      raise errors.UserError(f'term {name!r}: {error}') from error
  return built


def with_own(
    name: str, options: Mapping[str, Any], terms: Mapping[str, Any]
) -> dict[str, Any]:
  """A method's own term, then those added to it by the config.

  Raises:
    errors.UserError: if the config adds the method's own term again.
  """
  if name in terms:
    raise errors.UserError(
        f'the method {name} has the term {name} already: set it in '
        'config.method, not in config.method.terms'
    )
  return {name: options, **terms}


def side_tables(config: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
  """Names of the side tables that the terms look up."""
  samplers = [f['sampler'] for f in config.values() if 'sampler' in f]
  return tuple(sorted({t for s in samplers for t in negatives.side_tables(s)}))


def refuse_single_images(
    name: str, config: Mapping[str, Mapping[str, Any]]
) -> None:
  """Refuses terms that look an image up, for a method whose rows are mixed.

  Raises:
    errors.UserError: if there is one.
  """
  kept = any(not fields.get('redraw', True) for fields in config.values())
  if kept or side_tables(config):
    raise errors.UserError(
        f'a mixed row is no single image: with {name} the ns3l sampler must '
        'be threshold or uniform, with redraw=true'
    )


def needs_push(config: Mapping[str, Mapping[str, Any]]) -> bool:
  """Whether a term wants `CleanPass.push`."""
  return any(fields.get('mode') == 'exact' for fields in config.values())
