"""Mean Teacher: supervised plus agreement with an average of past weights."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import compose, errors, term_configs, terms as terms_lib
from nsl_jax.methods import supervised
from nsl_jax.types import Array, Key, Method, Schedule, State, Tools

# Family O.
DEFAULTS: dict[str, Any] = {
    'weight': 8.0, 'ramp': 'sigmoid', 'ramp_steps': 50_000, 'decay': 0.95,
    'terms': {},
}
_STATS = 'teacher_stats'  # slot of what the running statistics average to
_JUDGED = ('student', 'teacher')


def warm_up(decay: float) -> Schedule:
  """min(1 - 1 / (step + 1), decay): the first update copies (L2I's rule)."""
  def at(step: Array | int) -> Array:
    return jnp.minimum(1.0 - 1.0 / (step + 1.0), decay)

  return at


def build(
    tools: Tools, *, terms: Mapping[str, Mapping[str, Any]], decay: float,
    warm_up_decay: bool = False, joint: bool = True, tie: float = 0.0,
    judged: str = 'student', second_pass: str = 'all', **options
) -> Method:
  """Builds Mean Teacher.

  Args:
    tools: what it is built from.
    terms: further terms.
    decay: of the teacher's weights.
    warm_up_decay: let the decay grow from 0, see `warm_up`.
    joint: see `compose.passes`.
    tie: weight of the squared difference of the network's two heads.
    judged: the `student`, by its evaluation average if there is one, or the
      `teacher`, with the student's running statistics averaged as its weights
      are.
    second_pass: `all` (family O) or `unlabelled` (family D), see
      `compose.passes`.
    **options: the fields of the term `mean_teacher`.

  Raises:
    errors.UserError: if the decay is not in [0, 1), or `judged` is another or
      has no say.
  """
  if not 0.0 <= decay < 1.0:
    raise errors.UserError(f'mean_teacher decay={decay}: must be in [0, 1)')
  if judged not in _JUDGED:
    raise errors.UserError(
        f'mean_teacher judged={judged!r}: '
        f'{errors.did_you_mean(judged, _JUDGED)}'
    )
  own = term_configs.with_own('mean_teacher', options, terms)
  by_teacher = judged == 'teacher'
  if by_teacher and tools.ema_decay:
    raise errors.UserError(
        'mean_teacher judged=teacher judges no other average: set '
        'config.ema_decay to 0'
    )
  rule = warm_up(decay) if warm_up_decay else decay
  moves = [compose.follow(terms_lib.TEACHER, rule)]
  if by_teacher:
    moves.append(compose.follow(_STATS, rule, of='stats'))
  method = supervised.with_terms(
      tools, own, *moves, joint=joint, slots=(terms_lib.TEACHER,), tie=tie,
      second_pass=second_pass,
  )
  return _by_teacher(method, tools) if by_teacher else method


def _by_teacher(method: Method, tools: Tools) -> Method:
  """The method, judged by its teacher."""
  def init(key: Key) -> State:
    state = method.init(key)
    stats = jax.tree.map(jnp.copy, state.stats)
    return state.replace(slots={**state.slots, _STATS: stats})

  def predict(state: State, images: Array) -> Array:
    params, stats = (state.slots[k] for k in (terms_lib.TEACHER, _STATS))
    outputs, _ = tools.model.apply(params, stats, images, train=False)
    return outputs.logits

  def recompute(state: State, images: Array, key: Key) -> State:
    params, stats = (state.slots[k] for k in (terms_lib.TEACHER, _STATS))
    stats = compose.batch_statistics(tools, params, stats, images, key)
    return state.replace(slots={**state.slots, _STATS: stats})

  return method._replace(init=init, predict=predict, recompute=recompute)
