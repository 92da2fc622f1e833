"""Mean Teacher: the supervised loss plus consistency with a teacher of averaged
weights (Tarvainen & Valpola, "Mean teachers are better role models", 2017).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import errors, options, schedules, terms as terms_lib
from nsl_jax.compose import combinators, forward
from nsl_jax.methods import supervised
from nsl_jax.types import Array, Components, Key, Method, Schedule, State

_STATS = 'teacher_stats'  # slot of the average of the running statistics


def warm_up(decay: float) -> Schedule:
  """min(1 - 1 / (step + 1), decay): the first update copies the student (rule
  of the code of Mean Teacher and L2I).
  """

  def at(step: Array | int) -> Array:
    return jnp.minimum(1.0 - 1.0 / (step + 1.0), decay)

  return at


@options.declare(
  decay='[0, 1)',
  tie='>= 0',
  eval_with=('student', 'teacher'),
  second_pass_rows=forward.SECOND_PASS_ROWS,
  **schedules.RAMPED,
)
def build(
  components: Components,
  *,
  terms: Mapping[str, Mapping[str, Any]],
  decay: float = 0.95,
  warm_up_decay: bool = False,
  shared_batch_norm: bool = True,
  tie: float = 0.0,
  eval_with: str = 'student',
  second_pass_rows: str = 'all',
  weight: float = 8.0,
  ramp: str = 'sigmoid',
  ramp_steps: int = 50_000,
  hold_steps: int = 0,
) -> Method:
  """Builds Mean Teacher; the defaults are those of family O.

  Args:
    components: network, optimizer and augmentation.
    terms: further terms.
    decay: decay of the teacher's weights.
    warm_up_decay: increase the decay from 0, see `warm_up`.
    shared_batch_norm: see `forward.forward_passes`.
    tie: weight of the squared difference of the network's two heads.
    eval_with: the `student`, with its evaluation average if there is one, or
      the `teacher`, with an average of the student's running statistics.
    second_pass_rows: `all` (family O) or `unlabeled` (family D), see
      `forward.forward_passes`.
    weight: weight of the consistency with the teacher.
    ramp: ramp of the weight, see `schedules.ramped`.
    ramp_steps: length of the ramp.
    hold_steps: interval between changes of the weight.

  Raises:
    errors.UserError: if `eval_with` is the teacher and there is another
      average.
  """
  options_of_term = dict(
    weight=weight, ramp=ramp, ramp_steps=ramp_steps, hold_steps=hold_steps
  )
  all_terms = terms_lib.with_own('mean_teacher', options_of_term, terms)
  by_teacher = eval_with == 'teacher'
  if by_teacher and components.ema_decay:
    raise errors.UserError(
      'mean_teacher eval_with=teacher excludes another average: set '
      'config.ema_decay to 0'
    )
  rule = warm_up(decay) if warm_up_decay else decay
  moves = [combinators.ema_update(combinators.TEACHER, rule)]
  if by_teacher:
    moves.append(combinators.ema_update(_STATS, rule, of='stats'))
  method = supervised.with_terms(
    components,
    all_terms,
    *moves,
    shared_batch_norm=shared_batch_norm,
    slots=(combinators.TEACHER,),
    tie=tie,
    second_pass_rows=second_pass_rows,
  )
  return _by_teacher(method, components) if by_teacher else method


def _by_teacher(method: Method, components: Components) -> Method:
  """The method, evaluated with its teacher."""

  def init(key: Key) -> State:
    state = method.init(key)
    stats = jax.tree.map(jnp.copy, state.stats)
    return state.replace(slots={**state.slots, _STATS: stats})

  def predict(state: State, images: Array) -> Array:
    params, stats = (state.slots[k] for k in (combinators.TEACHER, _STATS))
    outputs, _ = components.model.apply(params, stats, images, train=False)
    return outputs.logits

  def recompute(state: State, images: Array, key: Key) -> State:
    params, stats = (state.slots[k] for k in (combinators.TEACHER, _STATS))
    stats = combinators.batch_statistics(components, params, stats, images, key)
    return state.replace(slots={**state.slots, _STATS: stats})

  return method._replace(init=init, predict=predict, recompute=recompute)
