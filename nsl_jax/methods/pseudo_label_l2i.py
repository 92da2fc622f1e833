"""Soft labels from another view, by the network or by its average: Pseudo-Label
and Mean Teacher as hosts of Learning to Impute (Li, Foo & Bilen 2020, section 3
and appendix A.2, https://arxiv.org/abs/1912.10364).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import errors, losses, options, schedules, terms as terms_lib
from nsl_jax.compose import combinators, tasks
from nsl_jax.methods import mixmatch
from nsl_jax.methods.mean_teacher import warm_up
from nsl_jax.types import (
  Array,
  Aux,
  Batch,
  Components,
  Key,
  Loss,
  Params,
  Schedule,
  State,
  TermInputs,
)

TASKS = tuple(tasks.TASKS)


def pseudo_label_loss(
  components: Components,
  *,
  weight: Schedule,
  teacher: bool,
  hard: bool,
  interleave: bool,
) -> Loss:
  """Mean labeled loss plus `weight` times the mean squared difference between
  the prediction for one view and the constant prediction for another.

  With `hard` it is the cross-entropy with the most probable class of the other
  view. The paper's section 3 describes that; its appendix A.2 and the released
  code have the squared difference, for which the weight of 75 is made (F-L10).
  Points are shifted from the other view to this one.

  Labeled and unlabeled images form two chunks, interleaved so that both are in
  the statistics of each batch, as in MixMatch; the imputing pass is a separate
  batch. Both chunks update the statistics, as in L2I's code (F-L23).
  """
  task = tasks.of(components)
  differ = losses.cross_entropy if hard else task.disagreement

  def loss(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    if interleave and batch.x.shape[0] != batch.u.shape[0]:
      raise errors.UserError(
        'pseudo_label_l2i interleaves equal batches: set config.batch.labeled '
        'and config.batch.unlabeled to the same number, or '
        'config.method.interleave=false'
      )
    first, *view_keys, imputing, passing = jax.random.split(key, 5)
    views = tasks.draw_views(components, batch, (first, *view_keys))
    imputer = state.slots[combinators.TEACHER] if teacher else params
    teacher_logits = _logits(
      components, imputer, state, views.teacher_view, imputing
    )
    z = jax.lax.stop_gradient(tasks.imputed(components, teacher_logits, views))
    if hard:
      z = jax.nn.one_hot(z.argmax(axis=-1), z.shape[-1], dtype=z.dtype)
    logits, stats = _forward_of_both(
      components,
      params,
      state,
      views.x,
      views.student_view,
      interleave,
      passing,
    )
    cut = views.x.shape[0]
    logits_u = logits[cut:]
    labeled_loss = task.loss(logits[:cut], views.y).mean()
    parts = {
      task.loss_name: labeled_loss,
      'soft_label': differ(logits_u, z).mean(),
    }
    parts['soft_label_weight'] = jnp.asarray(weight(state.step))
    value = labeled_loss + parts['soft_label_weight'] * parts['soft_label']

    def second_pass(key: Key, given_params: Params | None = None) -> Array:
      view, noise = jax.random.split(key)
      chosen = params if given_params is None else given_params
      return _logits(
        components, chosen, state, components.augment(batch.u, view), noise
      )

    inputs = TermInputs(
      logits_u, z, normalizer=logits_u.shape[0], second_pass=second_pass
    )
    return value, Aux(inputs, stats, state.slots, parts, views)

  return loss


def _logits(
  components: Components, params: Params, state: State, view: Array, key: Key
) -> Array:
  outputs, _ = components.model.apply(
    params, state.stats, view, train=True, key=key
  )
  return outputs.logits


def _forward_of_both(
  components: Components,
  params: Params,
  state: State,
  x: Array,
  u: Array,
  interleave: bool,
  key: Key,
) -> tuple[Array, Any]:
  """Logits of labeled and unlabeled rows, and updated statistics."""
  images = jnp.concatenate([x, u])
  if interleave:
    return mixmatch.interleaved_pass(
      components, params, state.stats, images, 2, key, moved_by='all'
    )
  outputs, stats = components.model.apply(
    params, state.stats, images, train=True, key=key
  )
  return outputs.logits, stats


@options.declare(decay='[0, 1)', **schedules.RAMPED)
def build(
  components: Components,
  *,
  terms: Mapping[str, Mapping[str, Any]],
  weight: float = 75.0,
  ramp: str = 'linear',
  ramp_steps: int = 16_000,
  teacher: bool = False,
  hard: bool = False,
  decay: float = 0.999,
  warm_up_decay: bool = True,
  interleave: bool = True,
) -> combinators.SingleNetworkMethod:
  """Builds Pseudo-Label or Mean Teacher; the defaults are those of Pseudo-Label
  in Table 2.

  Args:
    components: network, optimizer and augmentation.
    terms: further terms, on the view that is trained on.
    weight: weight of the unlabeled loss.
    ramp: ramp of the weight.
    ramp_steps: length of the ramp.
    teacher: impute with an average of past weights instead of the network.
    hard: impute the most probable class, with cross-entropy as the loss.
    decay: decay of the average.
    warm_up_decay: increase the decay from 0, see `mean_teacher.warm_up`.
    interleave: see `pseudo_label_loss`; otherwise all images form one batch.

  Raises:
    errors.UserError: if `hard` is set for points.
  """
  if hard and tasks.of(components) is tasks.REGRESSION:
    raise errors.UserError(
      'pseudo_label_l2i hard=true is for classes: set it false'
    )
  loss = pseudo_label_loss(
    components,
    weight=schedules.ramped(weight=weight, ramp=ramp, ramp_steps=ramp_steps),
    teacher=teacher,
    hard=hard,
    interleave=interleave,
  )
  rule = warm_up(decay) if warm_up_decay else decay

  slots = (combinators.TEACHER,) if teacher else ()
  return combinators.SingleNetworkMethod(
    combinators.add_terms(loss, terms_lib.from_config(terms)),
    after=tuple(combinators.ema_update(slot, rule) for slot in slots),
    slots=slots,
    per_image_tables=terms_lib.per_image_tables(terms),
  )
