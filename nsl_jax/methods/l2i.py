"""Learning to impute: after each step of a host, change the labels that it
imputes so that learning them helps on held-out images (Li, Foo & Bilen).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nsl_jax import bilevel, compose, errors, losses
from nsl_jax.methods import mixmatch, soft_label
from nsl_jax.types import (
    Array, Batch, Key, Method, Metrics, Outputs, Params, State, Stats, Tools,
    Update,
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
Pass = Callable[[Params], tuple[Any, Any]]
Gradient = Callable[..., tuple[Array, Array]]


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
      classes (F-L4).
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
      classes (appendix A.3), which `inner_rate` multiplies and the other two
      inner options leave as it is (F-L12).
    watch: report the loss on the held-out batch before and after.

  Raises:
    errors.UserError: for an unknown choice or a number out of range.
  """
  given = {'variant': variant, 'imputer': imputer, 'label_space': label_space,
           'gradient': gradient}
  for field, known in _CHOICES.items():
    if given[field] not in known:
      raise errors.UserError(
          f'l2i {field}={given[field]!r}: '
          f'{errors.did_you_mean(given[field], known)}'
      )
  for field, value in (('inner_rate', inner_rate), ('label_rate', label_rate),
                       ('inner_steps', inner_steps)):
    if not value > 0:
      raise errors.UserError(f'l2i {field}={value}: must be > 0')
  recipe = _recipe(tools, host)
  step = impute_and_learn(
      tools, recipe, variant=variant, host_imputes=imputer == 'host',
      label_rate=label_rate, on_labels=label_space == 'labels', watch=watch,
      gradient=functools.partial(
          _last_layer if gradient == 'last_layer' else _through_step,
          rate=inner_rate, steps=inner_steps, nested=gradient == 'nested',
          labelled=inner_supervised,
      ),
  )
  return Method(
      compose.single_network(tools, *recipe.slots),
      compose.finish_step(step, tools, *recipe.after),
      compose.student(tools), recipe.side,
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
  """The host's step, then the one that L2I adds, by the same optimiser; the
  options are those of `build`.
  """
  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    if batch.held_x is None or batch.held_y is None:
      raise errors.UserError(
          'l2i needs batches that judge its steps: set config.batch.holdout'
      )
    first, hold, impute_key, learn_key = jax.random.split(key, 4)
    state, metrics, views = compose.advance(
        recipe.loss, tools.tx, state, batch, first
    )
    if views is None or recipe.impute is None:
      raise errors.UserError('l2i needs a host that makes two views')
    held_x, held_y = tools.augment(batch.held_x, hold), batch.held_y
    host_impute = recipe.impute
    forward = functools.partial(
        tools.model.apply, stats=state.stats, train=True
    )

    def impute(params: Params) -> Array:
      if host_imputes:
        return host_impute(params, state, views, impute_key)
      outputs, _ = forward(params, images=views[1], key=impute_key)
      return jax.nn.softmax(outputs.logits)

    def learnt(params: Params) -> tuple[Outputs, Stats]:
      noise = jax.random.clone(learn_key)  # the same in every pass
      return forward(params, images=views[0], key=noise)

    def known(params: Params) -> Array:
      outputs, _ = forward(params, images=batch.x, key=None)
      return losses.cross_entropy(outputs.logits, batch.y).sum()

    def held(params: Params) -> tuple[Array, Outputs]:
      outputs, _ = forward(params, images=held_x, key=None)  # F-L13
      return losses.cross_entropy(outputs.logits, held_y).mean(), outputs

    z, back = jax.vjp(impute, state.params)
    metrics['held'], change = gradient(
        learnt, held, known, state.params, z, batch
    )
    if variant == 'v2':
      grads = back(change)[0]
    else:
      better = _moved(z, change, label_rate, on_labels)
      grads = jax.grad(lambda params: losses.squared_error(
          learnt(params)[0].logits, better).mean())(state.params)
    _, stats = learnt(state.params)
    moves, opt = tools.tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, moves)
    if watch:
      metrics['held_before'] = held(state.params)[0]
      metrics['held_after'] = held(params)[0]
    return state.replace(params=params, opt=opt, stats=stats), metrics

  return update


def _moved(z: Array, change: Array, rate: float, on_labels: bool) -> Array:
  """V1's labels after a step against their gradient, rows of sum 1."""
  if on_labels:
    moved = jnp.maximum(z - rate * change, 0.0)
    total = moved.sum(axis=-1, keepdims=True)
    return jnp.where(total > 0.0, moved / jnp.maximum(total, 1e-12), z)
  logits = jnp.log(jnp.maximum(z, 1e-30))
  return jax.nn.softmax(logits - rate * bilevel.to_logits(change, z))


def _through_step(
    learnt: Pass, held: Pass, known: Callable[[Params], Array],
    params: Params, z: Array, batch: Batch, *, rate: float, steps: int,
    nested: bool, labelled: bool,
) -> tuple[Array, Array]:
  """The held-out loss after the inner step, and its gradient in the labels."""
  def inner(params: Params, z: Array) -> Array:
    outputs, _ = learnt(params)
    value = jnp.sum((jax.nn.softmax(outputs.logits) - z) ** 2)
    return value + (known(params) if labelled else 0.0)

  return bilevel.label_gradient(
      inner, lambda params: held(params)[0], params, z, rate=rate,
      steps=steps, nested=nested,
  )


def _last_layer(
    learnt: Pass, held: Pass, known: Any, params: Params, z: Array,
    batch: Batch, *, rate: float, **unused,
) -> tuple[Array, Array]:
  """The same in closed form, the features held constant and no step made."""
  value, outputs = held(params)
  found, _ = learnt(params)
  probs = jax.nn.softmax(outputs.logits)
  true = jax.nn.one_hot(batch.held_y, z.shape[-1], dtype=z.dtype)
  change = bilevel.last_layer_gradient(
      found.features, outputs.features, probs, true, rate=rate
  )
  return value, jax.lax.stop_gradient(change)
