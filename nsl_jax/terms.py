"""Losses on unlabelled rows that can be added to any method."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from nsl_jax import errors, losses, negatives, schedules
from nsl_jax.types import Array, Aux, Batch, Key, Schedule, Term


def _fixed(sample: negatives.Sampler) -> negatives.Rowwise:
  """The same negatives for the same image at every step (F-N17)."""
  def one(belief: Array, side: Mapping[str, Array], index: Array) -> Array:
    key = jax.random.fold_in(jax.random.key(0), index)
    row = {name: value[None] for name, value in side.items()}
    return sample(belief[None], row, key)[0]

  return jax.vmap(one)


def ns3l(
    *, sampler: str, passes: int, redraw: bool = True, **options
) -> Term:
  """NS3L (its section 4.3) with any sampler of negative labels.

  Args:
    sampler: name of a sampler in `negatives`; `threshold` is the paper's.
    passes: 1 takes negatives and probabilities from the same logits, which is
      Algorithm 1 as printed; 2 takes the negatives from the clean pass and the
      probabilities from one more stochastic pass of the same images, as the
      authors' module does (F-N2).
    redraw: draw new negatives at every step, or keep those of each image
      (F-N17).
    **options: the sampler's own (`threshold`, `count`, `exclude`).

  Raises:
    errors.UserError: for an unknown sampler or option, or other `passes`.
  """
  sample = negatives.build(sampler, **options)
  if passes not in (1, 2):
    raise errors.UserError(f'ns3l passes must be 1 or 2, not {passes}')

  def term(aux: Aux, batch: Batch, key: Key) -> Array:
    draw, view = jax.random.split(key)
    belief = jax.lax.stop_gradient(aux.belief_u)
    if redraw:
      negative = sample(belief, batch.side, draw)
    else:
      negative = _fixed(sample)(belief, batch.side, batch.u_index)
    logits = aux.logits_u
    if passes == 2:
      if aux.again is None:
        raise errors.UserError(
            'this method has no second pass for ns3l: set passes=1'
        )
      logits = aux.again(view)
    return losses.none_of(logits, negative)

  return term


def pseudo_label(*, threshold: float) -> Term:
  """Pseudo-Label on the clean pass (family O)."""
  def term(aux: Aux, batch: Batch, key: Key) -> Array:
    return losses.pseudo_label(
        aux.logits_u, aux.belief_u, threshold=threshold
    )

  return term


_TERMS: dict[str, Callable[..., Term]] = {
    'ns3l': ns3l, 'pseudo_label': pseudo_label,
}
_WEIGHT = ('weight', 'ramp', 'ramp_steps')


def from_config(
    config: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Schedule, Term]]:
  """Terms with their weights, from `{name: {weight, ramp, ...options}}`.

  Raises:
    errors.UserError: for an unknown term or option.
  """
  built = {}
  for name, fields in config.items():
    if name not in _TERMS:
      raise errors.UserError(
          f'unknown term {name!r}: {errors.did_you_mean(name, _TERMS)}'
      )
    missing = [field for field in _WEIGHT if field not in fields]
    if missing:
      raise errors.UserError(f'term {name!r} lacks {", ".join(missing)}')
    options = {k: v for k, v in fields.items() if k not in _WEIGHT}
    weight = schedules.weight(*(fields[field] for field in _WEIGHT))
    try:
      built[name] = (weight, _TERMS[name](**options))
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
