"""Learning to impute: after each step of a host, change the labels that it
imputes so that learning them helps on held-out images (Li, Foo & Bilen).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from nsl_jax import compose, errors, imputation, schedules, tasks
from nsl_jax.methods import mixmatch, soft_label
from nsl_jax.types import (
    Array, Batch, Key, Method, Metrics, Params, Schedule, State, Tools, Update,
)

# V2 on the Pseudo-Label of its Table 2 at Adam's 0.003.
DEFAULTS: dict[str, Any] = {
    'host': {'name': 'soft_label', **soft_label.DEFAULTS}, 'variant': 'v2',
    'inner_rate': 0.15,
}
TASKS = tuple(tasks.TASKS)
_WATCHED = 256  # test images, the first ones
_HOSTS: dict[str, Callable[..., compose.Recipe]] = {
    'mixmatch': mixmatch.recipe, 'soft_label': soft_label.recipe,
}
_CHOICES = {
    'variant': ('v1', 'v2'),
    'imputer': ('student', 'host'),
    'label_space': ('logits', 'labels'),
    'gradient': ('nested', 'tangent', 'last_layer', 'last_layer_step'),
}


def build(
    tools: Tools, *, host: Mapping[str, Any], variant: str, inner_rate: float,
    inner_steps: int = 1, inner_supervised: bool = False,
    label_rate: float = 1.0, label_space: str = 'logits',
    imputer: str = 'student', gradient: str = 'nested', watch: bool = False,
    follow_rate: bool = False,
) -> Method:
  """Builds a host and the step that follows each of its own.

  Args:
    tools: what it is built from.
    host: `name` (soft_label or mixmatch) and options of the host.
    variant: `v1` moves the labels, then learns them; `v2` moves the
      parameters that impute them.
    inner_rate: learning rate of the inner step, on a sum over images and
      classes, or on a mean over images and points (F-L4); of `last_layer` a
      mere factor of the gradient.
    inner_steps: number of inner steps.
    inner_supervised: add the labelled loss to the inner one (F-L3); for one
      step it changes theta* only.
    label_rate: V1's step on the labels; 0 learns them as they are, to tell what
      the second update alone does.
    label_space: whether V1 moves `logits`, as the code does, or `labels`,
      which are then put back on the simplex (F-L5). Points just move.
    imputer: who imputes in this step: the `student` by its softmax, as the
      code has it, or the `host` in its own way (F-L8).
    gradient: `nested` and, for one inner step, `tangent` are the same number,
      see `bilevel.label_gradient`; `last_layer` is the closed form for many
      classes (appendix A.3), which knows neither of the other two inner
      options; `last_layer_step` the same after a step of that layer on the sum
      of cross-entropies, for which `inner_rate` is to be small (F-L12).
    watch: report the loss on the held-out batch, and that of some test images,
      before and after the step that is added (L2I Figure 2); and, as
      `virtual_before` and `virtual_after`, what the step is made to lower: the
      held-out loss at theta* of the old and of the changed labels, in V2 those
      that the changed parameters impute (F-L24). `last_layer` has no theta*:
      both are the loss as it is.
    follow_rate: count `inner_rate` in what the optimiser's rate then is.

  Raises:
    errors.UserError: for an unknown choice, a number out of range, or options
      that contradict each other.
  """
  _check_choices(variant=variant, imputer=imputer, label_space=label_space,
                 gradient=gradient)
  for field, value in ('inner_rate', inner_rate), ('inner_steps', inner_steps):
    if not value > 0:
      raise errors.UserError(f'l2i {field}={value}: must be > 0')
  if not label_rate >= 0:
    raise errors.UserError(f'l2i label_rate={label_rate}: must be >= 0')
  task = tasks.of(tools)
  closed = gradient.startswith('last_layer')
  if closed and task is tasks.REGRESSION:
    raise errors.UserError(
        f'l2i gradient={gradient} is for classes: use gradient=nested'
    )
  if closed and (inner_steps != 1 or inner_supervised):
    raise errors.UserError(
        f'l2i gradient={gradient} is for one step on imputed labels: leave '
        'inner_steps at 1 and inner_supervised at false, or use gradient=nested'
    )
  recipe = _recipe(tools, host)
  if imputer == 'host' and recipe.impute is None:
    raise errors.UserError(
        'l2i imputer=host: hard labels have no gradient, use imputer=student '
        'or host.hard=false'
    )
  through = functools.partial(
      imputation.through_step, steps=inner_steps, tangent=gradient == 'tangent',
      labelled=inner_supervised,
      unlabelled=lambda said, z: task.inner(said, z, variant),
  )
  if gradient == 'tangent' and inner_steps != 1:
    raise errors.UserError(
        f'l2i inner_steps={inner_steps}: gradient=tangent is for one, use '
        'gradient=nested'
    )
  from_last_layer = functools.partial(
      imputation.last_layer, step=gradient == 'last_layer_step'
  )
  space = 'points' if task is tasks.REGRESSION else label_space
  step = impute_and_learn(
      tools, recipe, variant=variant, host_imputes=imputer == 'host',
      inner_rate=_rate(tools, inner_rate, follow_rate),
      move=functools.partial(imputation.moved, rate=label_rate, space=space),
      gradient=from_last_layer if closed else through,
      watch=watch,
  )
  return Method(
      compose.single_network(tools, *recipe.slots),
      compose.finish_step(step, tools, *recipe.after),
      compose.student(tools), recipe.side, _WATCHED if watch else 0,
      compose.recompute(tools),
  )


def _check_choices(**given: str) -> None:
  for field, value in given.items():
    if value not in _CHOICES[field]:
      raise errors.UserError(
          f'l2i {field}={value!r}: '
          f'{errors.did_you_mean(value, _CHOICES[field])}'
      )


def _rate(tools: Tools, value: float, follow: bool) -> Schedule:
  if not follow:
    return optax.constant_schedule(value)
  rate = tools.learning_rate
  if rate is None:
    raise errors.UserError('l2i follow_rate: the optimiser has no rate')
  return lambda step: value * rate(step)


def _recipe(tools: Tools, host: Mapping[str, Any]) -> compose.Recipe:
  options = {k: v for k, v in host.items() if k != 'name'}
  name = host.get('name')
  if name not in _HOSTS:
    raise errors.UserError(
        f'l2i host {name!r}: {errors.did_you_mean(str(name), _HOSTS)}'
    )
  known = TASKS if name == 'soft_label' else (tasks.CLASSIFICATION.name,)
  tasks.check_method(tools, name, options, known)
  try:
    return _HOSTS[name](tools, **options)
  except TypeError as error:
    raise errors.UserError(f'l2i host {name!r}: {error}') from error


def impute_and_learn(
    tools: Tools, recipe: compose.Recipe, *, variant: str, host_imputes: bool,
    inner_rate: Schedule, move: Callable[[Array, Array], Array],
    gradient: imputation.Gradient, watch: bool,
) -> Update:
  """The host's step, then the one that L2I adds, by the same optimiser at the
  same rate.

  Args:
    tools: network, optimiser, views.
    recipe: the host.
    variant: see `build`.
    host_imputes: whether the host does, not the student.
    inner_rate: step -> learning rate of the inner step.
    move: `(labels, their gradient) -> labels`, V1's step.
    gradient: how labels should change.
    watch: see `build`.
  """
  host_impute = recipe.impute if host_imputes else None
  task = tasks.of(tools)

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    if batch.held_x is None or batch.held_y is None:
      raise errors.UserError(
          'l2i needs batches that judge its steps: set config.batch.holdout'
      )
    first, hold, *rest = jax.random.split(key, 5)
    judged = tasks.known_view(
        tools, batch.held_x, batch.held_y, batch.scale, hold
    )
    state, metrics, views = compose.advance(
        recipe.loss, tools.tx, state, batch, first
    )
    if tools.ema_decay and task is tasks.REGRESSION:
      # The released code averages landmarks' weights after both steps (F-L11).
      state, _ = compose.follow(compose.EMA, tools.ema_decay)(
          state, batch, first
      )
    if views is None:
      raise errors.UserError('l2i needs a host that makes two views')
    passes = imputation.make_passes(
        tools, host_impute, state, views, judged, rest
    )
    z, back = jax.vjp(passes.impute, state.params)
    metrics['held'], change, stats = gradient(
        passes, state.params, z, judged[1], inner_rate(state.step)
    )
    if variant == 'v2':
      grads = back(change)[0]
    else:
      better = move(z, change)
      grads = jax.grad(lambda params: task.disagreement(
          passes.learnt(params)[0].logits, better).mean())(state.params)
    opt = schedules.at_step(state.opt, state.step)
    params, opt = compose.apply_gradients(tools.tx, grads, opt, state.params)
    if watch:
      labels = passes.impute(params) if variant == 'v2' else better
      metrics['virtual_before'] = metrics['held']
      metrics['virtual_after'] = gradient(
          passes, state.params, labels, judged[1], inner_rate(state.step)
      )[0]
      metrics |= _losses_around(passes, state.params, params, batch)
    return state.replace(params=params, opt=opt, stats=stats), metrics

  return update


def _losses_around(
    passes: imputation.Passes, before: Params, after: Params, batch: Batch
) -> Metrics:
  """Losses of the held-out and of some test images with either weights."""
  found = {}
  for when, params in (('before', before), ('after', after)):
    found[f'held_{when}'] = passes.held(params)[0]
    if batch.watched is not None:
      found[f'test_{when}'] = passes.loss_of(params, *batch.watched)[0]
  return found
