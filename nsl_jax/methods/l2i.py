"""Learning to impute: after each step of a host, change the labels that it
imputes so that learning them helps on held-out images (Li, Foo & Bilen).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nsl_jax import bilevel, compose, errors, losses, schedules
from nsl_jax.methods import mixmatch, soft_label
from nsl_jax.types import (
    Array, Batch, Key, Method, Metrics, Outputs, Params, State, Stats, Tools,
    Update, Views,
)

# V2 on the Pseudo-Label of its Table 2 at Adam's 0.003.
DEFAULTS: dict[str, Any] = {
    'host': {'name': 'soft_label', **soft_label.DEFAULTS}, 'variant': 'v2',
    'inner_rate': 0.15,
}
_HOSTS: dict[str, Callable[..., compose.Recipe]] = {
    'mixmatch': mixmatch.recipe, 'soft_label': soft_label.recipe,
}
_CHOICES = {
    'variant': ('v1', 'v2'),
    'imputer': ('student', 'host'),
    'label_space': ('logits', 'labels'),
    'gradient': ('tangent', 'nested', 'last_layer'),
}


class Passes(NamedTuple):
  """What a step of L2I asks of the network, as functions of its parameters.

  Attributes:
    impute: f32[B_u, K], the labels z.
    learnt: outputs for the images that z is learnt on, and moved statistics.
    known: f32[], summed loss of the labelled images, as the host saw them.
    held: f32[], mean loss of the held-out images, and their outputs.
  """

  impute: Callable[[Params], Array]
  learnt: Callable[[Params], tuple[Outputs, Stats]]
  known: Callable[[Params], Array]
  held: Callable[[Params], tuple[Array, Outputs]]


# (Passes, parameters, z, held-out classes) -> what is held after the inner
# step, its gradient in z, statistics that a pass over `learnt` has moved.
Gradient = Callable[[Passes, Params, Array, Array], tuple[Array, Array, Stats]]


def build(
    tools: Tools, *, host: Mapping[str, Any], variant: str, inner_rate: float,
    inner_steps: int = 1, inner_supervised: bool = False,
    label_rate: float = 1.0, label_space: str = 'logits',
    imputer: str = 'student', gradient: str = 'tangent', watch: bool = False,
) -> Method:
  """Builds a host and the step that follows each of its own.

  Args:
    tools: what it is built from.
    host: `name` (soft_label or mixmatch) and options of the host.
    variant: `v1` moves the labels, then learns them; `v2` moves the
      parameters that impute them.
    inner_rate: learning rate of the inner step, on a sum over images and
      classes; it does not follow the optimiser's (F-L4).
    inner_steps: number of inner steps.
    inner_supervised: add the labelled loss to the inner one (F-L3); for one
      step it changes theta* only.
    label_rate: V1's step on the labels.
    label_space: whether V1 moves `logits`, as the code does, or `labels`,
      which are then put back on the simplex (F-L5).
    imputer: who imputes in this step: the `student` by its softmax, as the
      code has it, or the `host` in its own way (F-L8).
    gradient: `tangent` and `nested` are the same number, see
      `bilevel.label_gradient`; `last_layer` is the closed form for many
      classes (appendix A.3), which `inner_rate` multiplies and which knows
      neither of the other two inner options (F-L12).
    watch: report the loss on the held-out batch before and after.

  Raises:
    errors.UserError: for an unknown choice, a number out of range, or options
      that contradict each other.
  """
  _check_choices(variant=variant, imputer=imputer, label_space=label_space,
                 gradient=gradient)
  for field, value in (('inner_rate', inner_rate), ('label_rate', label_rate),
                       ('inner_steps', inner_steps)):
    if not value > 0:
      raise errors.UserError(f'l2i {field}={value}: must be > 0')
  if gradient == 'last_layer' and (inner_steps != 1 or inner_supervised):
    raise errors.UserError(
        'l2i gradient=last_layer makes no inner step: leave inner_steps at 1 '
        'and inner_supervised at false, or use gradient=tangent'
    )
  recipe = _recipe(tools, host)
  if imputer == 'host' and recipe.impute is None:
    raise errors.UserError(
        'l2i imputer=host: hard labels have no gradient, use imputer=student '
        'or host.hard=false'
    )
  through = functools.partial(
      _through_step, rate=inner_rate, steps=inner_steps,
      nested=gradient == 'nested', labelled=inner_supervised,
  )
  closed = functools.partial(_last_layer, rate=inner_rate)
  step = impute_and_learn(
      tools, recipe, variant=variant, host_imputes=imputer == 'host',
      label_rate=label_rate, on_labels=label_space == 'labels', watch=watch,
      gradient=closed if gradient == 'last_layer' else through,
  )
  return Method(
      compose.single_network(tools, *recipe.slots),
      compose.finish_step(step, tools, *recipe.after),
      compose.student(tools), recipe.side,
  )


def _check_choices(**given: str) -> None:
  for field, value in given.items():
    if value not in _CHOICES[field]:
      raise errors.UserError(
          f'l2i {field}={value!r}: '
          f'{errors.did_you_mean(value, _CHOICES[field])}'
      )


def _recipe(tools: Tools, host: Mapping[str, Any]) -> compose.Recipe:
  options = {k: v for k, v in host.items() if k != 'name'}
  name = host.get('name')
  if name not in _HOSTS:
    raise errors.UserError(
        f'l2i host {name!r}: {errors.did_you_mean(str(name), _HOSTS)}'
    )
  try:
    return _HOSTS[name](tools, **options)
  except TypeError as error:
    raise errors.UserError(f'l2i host {name!r}: {error}') from error


def impute_and_learn(
    tools: Tools, recipe: compose.Recipe, *, variant: str, host_imputes: bool,
    label_rate: float, on_labels: bool, watch: bool, gradient: Gradient,
) -> Update:
  """The host's step, then the one that L2I adds, by the same optimiser at the
  same rate; the options are those of `build`.
  """
  host_impute = recipe.impute if host_imputes else None

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    if batch.held_x is None or batch.held_y is None:
      raise errors.UserError(
          'l2i needs batches that judge its steps: set config.batch.holdout'
      )
    first, hold, *rest = jax.random.split(key, 5)
    judged = tools.augment(batch.held_x, hold), batch.held_y
    state, metrics, views = compose.advance(
        recipe.loss, tools.tx, state, batch, first
    )
    if views is None:
      raise errors.UserError('l2i needs a host that makes two views')
    passes = _passes(
        tools, host_impute, state, views, batch.y, judged, rest
    )
    z, back = jax.vjp(passes.impute, state.params)
    metrics['held'], change, stats = gradient(
        passes, state.params, z, batch.held_y
    )
    if variant == 'v2':
      grads = back(change)[0]
    else:
      better = _moved(z, change, label_rate, on_labels)
      grads = jax.grad(lambda params: losses.squared_error(
          passes.learnt(params)[0].logits, better).mean())(state.params)
    opt = schedules.at_step(state.opt, state.step)
    moves, opt = tools.tx.update(grads, opt, state.params)
    params = optax.apply_updates(state.params, moves)
    if watch:
      metrics['held_before'] = passes.held(state.params)[0]
      metrics['held_after'] = passes.held(params)[0]
    return state.replace(params=params, opt=opt, stats=stats), metrics

  return update


def _passes(
    tools: Tools, host_impute: Callable[..., Array] | None, state: State,
    views: Views, y: Array, judged: tuple[Array, Array], keys: Sequence[Key],
) -> Passes:
  """The passes of a step, each with the same dropout every time.

  Args:
    tools: network.
    host_impute: how the host imputes; None for the student by its softmax.
    state: after the host's step.
    views: what the host saw.
    y: i32[B_l], the labelled images' classes.
    judged: held-out images, augmented, and their classes.
    keys: of the dropout of three passes.
  """
  imputing, learning, knowing = keys

  def forward(
      params: Params, images: Array, key: Key | None
  ) -> tuple[Outputs, Stats]:
    noise = None if key is None else jax.random.clone(key)
    return tools.model.apply(
        params, state.stats, images, train=True, key=noise
    )

  def impute(params: Params) -> Array:
    if host_impute is not None:
      return host_impute(params, state, views, imputing)
    return jax.nn.softmax(forward(params, views.asked, imputing)[0].logits)

  def known(params: Params) -> Array:
    outputs, _ = forward(params, views.x, knowing)
    return losses.cross_entropy(outputs.logits, y).sum()

  def held(params: Params) -> tuple[Array, Outputs]:
    outputs, _ = forward(params, judged[0], None)  # F-L13
    return losses.cross_entropy(outputs.logits, judged[1]).mean(), outputs

  learnt = lambda params: forward(params, views.learnt, learning)
  return Passes(impute, learnt, known, held)


def _moved(z: Array, change: Array, rate: float, on_labels: bool) -> Array:
  """V1's labels after a step against their gradient, rows of sum 1."""
  if on_labels:
    moved = jnp.maximum(z - rate * change, 0.0)
    total = moved.sum(axis=-1, keepdims=True)
    return jnp.where(total > 0.0, moved / jnp.maximum(total, 1e-12), z)
  logits = jnp.log(jnp.maximum(z, 1e-30))
  return jax.nn.softmax(logits - rate * bilevel.to_logits(change, z))


def _through_step(
    passes: Passes, params: Params, z: Array, held_y: Array, *, rate: float,
    steps: int, nested: bool, labelled: bool,
) -> tuple[Array, Array, Stats]:
  """See `Gradient`."""
  def inner(params: Params, z: Array) -> tuple[Array, Stats]:
    outputs, stats = passes.learnt(params)
    value = jnp.sum((jax.nn.softmax(outputs.logits) - z) ** 2)
    return value + (passes.known(params) if labelled else 0.0), stats

  return bilevel.label_gradient(
      inner, lambda params: passes.held(params)[0], params, z, rate=rate,
      steps=steps, nested=nested,
  )


def _last_layer(
    passes: Passes, params: Params, z: Array, held_y: Array, *, rate: float
) -> tuple[Array, Array, Stats]:
  """See `Gradient`; in closed form, the features held constant and no step
  made.
  """
  value, held = passes.held(params)
  found, stats = passes.learnt(params)
  true = jax.nn.one_hot(held_y, z.shape[-1], dtype=z.dtype)
  change = bilevel.last_layer_gradient(
      found.features, held.features, jax.nn.softmax(held.logits), true,
      rate=rate,
  )
  return value, change, stats
