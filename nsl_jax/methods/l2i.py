"""Learning to Impute: after each step of a host method, a bilevel step updates
the imputed labels (V1), or the parameters that impute them (V2), to lower the
loss on held-out labeled images.

Li, Foo & Bilen, "Learning to Impute: A General Framework for Semi-supervised
Learning", 2020, https://arxiv.org/abs/1912.10364. V1 is L2I-L and V2 is L2I-O
in the released code (F-L1).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from nsl_jax import errors, options, schedules
from nsl_jax.compose import combinators, imputation, tasks
from nsl_jax.methods import fixmatch, mixmatch, pseudo_label_l2i
from nsl_jax.types import (
  Array,
  Batch,
  Components,
  Key,
  Method,
  Metrics,
  Params,
  Schedule,
  State,
  Update,
)

TASKS = tuple(tasks.TASKS)
_WATCHED = 256  # the first test images, whose loss is logged
HOSTS: dict[str, Callable[..., combinators.SingleNetworkMethod]] = {
  'fixmatch': fixmatch.build,
  'mixmatch': mixmatch.build,
  'pseudo_label_l2i': pseudo_label_l2i.build,
}


@options.declare(
  variant=('v1', 'v2'),
  inner_rate='> 0',
  label_rate='>= 0',
  label_space=('logits', 'labels'),
  gradient=('nested', 'last_layer'),
)
def build(
  components: Components,
  *,
  host: Mapping[str, Any],
  variant: str = 'v2',
  inner_rate: float = 0.15,
  label_rate: float = 1.0,
  label_space: str = 'logits',
  gradient: str = 'nested',
  log_test_loss: bool = False,
  follow_rate: bool = False,
) -> Method:
  """Builds a host and the step that follows each host step; the defaults are
  V2 on the Pseudo-Label of Table 2 at Adam's rate of 0.003.

  Args:
    components: network, optimizer and augmentation.
    host: `name` (one of `HOSTS`) and options of the host.
    variant: `v1` updates the labels, then trains on them; `v2` updates the
      parameters that impute them. Both impute by the student's softmax, as in
      appendix A.2 and the released code, whatever the host does (F-L8).
    inner_rate: learning rate of the inner step, on a sum over images and
      classes, or on a mean over images and points. The paper states none; the
      released code takes 100 (V1) and 50 (V2) times the optimizer's rate on the
      sum, 1 and 10 times on the mean (F-L4). With `last_layer` a factor of the
      gradient.
    label_rate: V1's step size on the labels; 0 trains on unchanged labels, to
      isolate the effect of the second update.
    label_space: whether V1 updates `logits`, as the released code, or `labels`,
      as the paper, followed by renormalization (F-L5). Points need neither.
    gradient: `nested` differentiates through the inner step, see
      `bilevel.label_gradient`; `last_layer` is the closed form for many
      classes without second derivatives (appendix A.3, F-L12).
    log_test_loss: log the loss of the held-out batch and of some test images
      before and after the second update (L2I Figure 2), and as `virtual_before`
      and `virtual_after` what the update of the labels lowers: the held-out
      loss at theta* with the old and the updated labels, in V2 those that the
      updated parameters impute (F-L24). With `last_layer` there is no theta*,
      and both are the loss at theta.
    follow_rate: make `inner_rate` a factor of the optimizer's current rate.

  Raises:
    errors.UserError: for an unknown host or option, or contradicting options.
  """
  task = tasks.of(components)
  closed = gradient == 'last_layer'
  if closed and task is tasks.REGRESSION:
    raise errors.UserError(
      f'l2i gradient={gradient} is for classes: use gradient=nested'
    )
  recipe = _recipe(components, host)
  through = functools.partial(
    imputation.meta_gradient,
    unlabeled=lambda logits, z: task.inner(logits, z, variant),
  )
  space = 'points' if task is tasks.REGRESSION else label_space
  step = impute_and_learn(
    components,
    recipe,
    variant=variant,
    inner_rate=_rate(components, inner_rate, follow_rate),
    move=functools.partial(
      imputation.updated_labels, rate=label_rate, space=space
    ),
    gradient=imputation.last_layer_meta_gradient if closed else through,
    log_test_loss=log_test_loss,
  )
  return Method(
    combinators.single_network(
      components, *recipe.slots, further_slots=recipe.further_slots
    ),
    combinators.finish_step(step, components, *recipe.after),
    combinators.predict_with_ema(components),
    recipe.per_image_tables,
    _WATCHED if log_test_loss else 0,
    combinators.recompute(components),
  )


def _rate(components: Components, value: float, follows: bool) -> Schedule:
  if not follows:
    constant: Schedule = optax.constant_schedule(value)
    return constant
  rate = components.learning_rate
  if rate is None:
    raise errors.UserError('l2i follow_rate: the optimizer has no rate')
  return lambda step: value * rate(step)


def _recipe(
  components: Components, host: Mapping[str, Any]
) -> combinators.SingleNetworkMethod:
  host_options = {k: v for k, v in host.items() if k != 'name'}
  name = host.get('name')
  if name not in HOSTS:
    raise errors.UserError(
      f'l2i host {name!r}: {errors.did_you_mean(str(name), HOSTS)}'
    )
  supported = (
    TASKS if name == 'pseudo_label_l2i' else (tasks.CLASSIFICATION.name,)
  )
  tasks.check_method(components, name, host_options, supported)
  recipe: combinators.SingleNetworkMethod = options.call(
    HOSTS[name], f'l2i host {name!r}', components, **host_options
  )
  return recipe


def impute_and_learn(
  components: Components,
  recipe: combinators.SingleNetworkMethod,
  *,
  variant: str,
  inner_rate: Schedule,
  move: Callable[[Array, Array], Array],
  gradient: imputation.Gradient,
  log_test_loss: bool,
) -> Update:
  """The host's step, then that of L2I, with the same optimizer and rate.

  After V1 the weight of the loss on the updated labels is 1, as in the released
  code; the paper states none (F-L6).

  Args:
    components: network, optimizer, views.
    recipe: the host.
    variant: see `build`.
    inner_rate: step -> learning rate of the inner step.
    move: `(labels, their gradient) -> labels`, V1's step.
    gradient: the gradient of the held-out loss in the labels.
    log_test_loss: see `build`.
  """
  task = tasks.of(components)

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    if batch.meta_x is None or batch.meta_y is None:
      raise errors.UserError(
        'l2i needs held-out batches that evaluate its steps: set '
        'config.batch.holdout'
      )
    first, hold, *pass_keys = jax.random.split(key, 5)
    meta_batch = tasks.augment_labeled(
      components, batch.meta_x, batch.meta_y, batch.scale, hold
    )
    state, metrics, views = combinators.loss_step(
      recipe.loss, components.tx, state, batch, first
    )
    if components.ema_decay and task is tasks.REGRESSION:
      # For landmarks the released code averages weights after both steps, in
      # classification after the second only (F-L11).
      state, _ = combinators.ema_update(combinators.EMA, components.ema_decay)(
        state, batch, first
      )
    if views is None:
      raise errors.UserError('l2i needs a host that makes two views')
    passes = imputation.make_passes(
      components, state, views, meta_batch, pass_keys
    )
    z, back = jax.vjp(passes.impute, state.params)
    metrics['held'], change, stats = gradient(
      passes, state.params, z, meta_batch[1], inner_rate(state.step)
    )
    if variant == 'v2':
      grads = back(change)[0]
    else:
      better = move(z, change)
      grads = jax.grad(
        lambda params: task.disagreement(
          passes.student_view(params)[0].logits, better
        ).mean()
      )(state.params)
    opt = schedules.at_step(state.opt, state.step)
    params, opt = combinators.apply_gradients(
      components.tx, grads, opt, state.params
    )
    if log_test_loss:
      labels = passes.impute(params) if variant == 'v2' else better
      metrics['virtual_before'] = metrics['held']
      metrics['virtual_after'] = gradient(
        passes, state.params, labels, meta_batch[1], inner_rate(state.step)
      )[0]
      metrics |= _losses_around(passes, state.params, params, batch)
    return state.replace(params=params, opt=opt, stats=stats), metrics

  return update


def _losses_around(
  passes: imputation.Passes, before: Params, after: Params, batch: Batch
) -> Metrics:
  """Losses of the held-out and of some test images, before and after."""
  values = {}
  for moment, params in (('before', before), ('after', after)):
    values[f'held_{moment}'] = passes.held(params)[0]
    if batch.probe_images is not None:
      values[f'test_{moment}'] = passes.loss_of(params, *batch.probe_images)[0]
  return values
