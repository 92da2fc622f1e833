"""Losses add, updates compose: combinators, and default init and predict."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nsl_jax import errors, parameters
from nsl_jax.types import (
  Array,
  Aux,
  Batch,
  Components,
  Key,
  Loss,
  Method,
  Metrics,
  Params,
  Schedule,
  State,
  Stats,
  Term,
  TermInputs,
  Update,
  Views,
)

OPTIMIZER = 'optimizer'  # scope of its operations in a profile
EMA = 'ema'  # slot of the averaged weights kept for evaluation
TEACHER = 'teacher'  # slot of the averaged network of Mean Teacher


class SingleNetworkMethod(NamedTuple):
  """A loss on one network, from which `to_method` makes a method.

  Attributes:
    loss: the training loss.
    after: updates after the optimizer step.
    slots: slots that start as copies of the network.
    per_image_tables: names of the per-image tables of its terms.
    further_slots: returns slots that start as other arrays.
  """

  loss: Loss
  after: tuple[Update, ...] = ()
  slots: tuple[str, ...] = ()
  per_image_tables: tuple[str, ...] = ()
  further_slots: Callable[[], dict[str, Any]] = dict


def add_terms(loss: Loss, terms: Mapping[str, tuple[Schedule, Term]]) -> Loss:
  """The loss plus weighted terms over the rows of its `Aux`."""
  if not terms:
    return loss

  def with_terms(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    base, *term_keys = jax.random.split(key, len(terms) + 1)
    value, aux = loss(params, state, batch, base)
    return _plus(value, aux, terms, state, batch, term_keys)

  return with_terms


def plus_terms(
  value: Array,
  aux: Aux,
  terms: Mapping[str, tuple[Schedule, Term]],
  state: State,
  batch: Batch,
  key: Key,
) -> tuple[Array, Aux]:
  """The value of a loss plus weighted terms over the rows of its `Aux`."""
  keys = jax.random.split(key, len(terms))
  return _plus(value, aux, terms, state, batch, list(keys))


def _plus(
  value: Array,
  aux: Aux,
  terms: Mapping[str, tuple[Schedule, Term]],
  state: State,
  batch: Batch,
  keys: list[Key],
) -> tuple[Array, Aux]:
  if not aux.inputs.logits_u.shape[0]:
    raise errors.UserError(
      f'{", ".join(terms)} needs unlabeled images: set config.batch.unlabeled'
    )
  metrics = dict(aux.metrics)
  inputs = aux.inputs._replace(stats=aux.stats, slots=aux.slots)
  for (name, (weight, term)), key in zip(terms.items(), keys):
    if {name, f'{name}_weight'} & {'loss', *metrics}:
      raise errors.UserError(
        f'a metric of the method is named like the term {name!r}: give the '
        'term another name'
      )
    rows = term(inputs, batch, key)
    if isinstance(rows, tuple) and len(rows) == 2:
      rows, stats = rows
      inputs = inputs._replace(stats=stats)
    _check_rows(name, rows, inputs.logits_u.shape[0])
    metrics[name] = rows.mean()  # over its rows, whatever the normalizer
    metrics[f'{name}_weight'] = jnp.asarray(weight(state.step))
    share = rows if rows.ndim == 0 else rows.sum() / inputs.normalizer
    value = value + metrics[f'{name}_weight'] * share
  return value, aux._replace(metrics=metrics, stats=inputs.stats)


def _check_rows(name: str, rows: Any, count: int) -> None:
  """Refuses other shapes and types, whose mean would be another loss."""
  if (
    not isinstance(rows, jax.Array)
    or rows.shape not in ((), (count,))
    or not jnp.issubdtype(rows.dtype, jnp.floating)
  ):
    raise errors.UserError(
      f'the term {name!r} returns {errors.described(rows)}: return the loss of '
      f'each row, float32[{count}], or their mean, float32[]'
    )


def _check_loss(result: Any) -> None:
  """Refuses what `loss_step` cannot take a gradient of."""
  aux = result[1] if isinstance(result, tuple) and len(result) == 2 else None
  if not isinstance(aux, Aux):
    raise errors.UserError(
      f'the loss of the method returns {errors.described(result)}: return '
      '(float32[], Aux)'
    )
  value = result[0]
  if not isinstance(value, jax.Array) or value.shape:
    raise errors.UserError(
      f'the loss of the method is {errors.described(value)}: return its mean, '
      'float32[], and an Aux'
    )


def loss_step(
  loss: Loss,
  tx: optax.GradientTransformation,
  state: State,
  batch: Batch,
  key: Key,
) -> tuple[State, Metrics, Views | None]:
  """One optimizer step on the loss; also returns the views in its `Aux`."""

  def value_and_aux(params: Params) -> tuple[Array, Any]:
    result = loss(params, state, batch, key)
    _check_loss(result)
    value, aux = result
    return value, (aux.stats, aux.slots, aux.metrics, aux.views)

  grad = jax.value_and_grad(value_and_aux, has_aux=True)
  (value, (stats, slots, metrics, views)), grads = grad(state.params)
  params, opt = apply_gradients(tx, grads, state.opt, state.params)
  state = state.replace(params=params, opt=opt, stats=stats, slots=slots)
  return state, {'loss': value, **metrics}, views


def apply_gradients(
  tx: optax.GradientTransformation,
  grads: Params,
  opt: optax.OptState,
  params: Params,
) -> tuple[Params, optax.OptState]:
  """One step of the optimizer: new parameters and its new state."""
  with jax.named_scope(OPTIMIZER):
    change, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, change), opt


def gradient_step(loss: Loss, tx: optax.GradientTransformation) -> Update:
  """One optimizer step on the loss."""

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    state, metrics, _ = loss_step(loss, tx, state, batch, key)
    return state, metrics

  return update


def ema_update(
  slot: str, decay: float | Schedule, *, of: str = 'params'
) -> Update:
  """Updates the moving average in a slot: decay * old + (1 - decay) * new.

  `decay` may be a schedule of the step, counted from 0; `of` is the averaged
  field of the state, `params` or `stats`.
  """

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    rate = decay(state.step) if callable(decay) else decay
    with jax.named_scope(OPTIMIZER):
      averaged = optax.incremental_update(
        getattr(state, of), state.slots[slot], 1.0 - rate
      )
    return state.replace(slots={**state.slots, slot: averaged}), {}

  return update


def decoupled_weight_decay(
  rate: float, learning_rate: Schedule, *, on: str = 'kernels'
) -> Update:
  """weight * (1 - rate * learning rate), of `kernels` or of `all` weights.

  MixMatch decays weights after the update of their average, so the decay is
  not part of the optimizer. MixMatch decays kernels only; the PyTorch port that
  L2I uses also decays biases and batch normalization (F-L21).
  """

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    with jax.named_scope(OPTIMIZER):
      factor = 1.0 - rate * learning_rate(state.step)
      decayed = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
          leaf * factor if on == 'all' or parameters.is_kernel(path) else leaf
        ),
        state.params,
      )
    return state.replace(params=decayed), {}

  return update


def sequence(*updates: Update) -> Update:
  """Runs updates in order on the same batch, each with a separate key."""

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    metrics: Metrics = {}
    for part, part_key in zip(updates, jax.random.split(key, len(updates))):
      state, part_metrics = part(state, batch, part_key)
      metrics.update(part_metrics)
    return state, metrics

  return update


def train_on(loss: Loss, components: Components, *after: Update) -> Update:
  """The default update: a gradient step, then `finish_step`."""
  return finish_step(gradient_step(loss, components.tx), components, *after)


def finish_step(step: Update, components: Components, *after: Update) -> Update:
  """The step, then the update of the evaluation average and the weight decay if
  they are configured, then the updates `after`. Adds the learning rate to the
  metrics of the step.
  """
  updates = [_with_rate(step, components.learning_rate)]
  if components.ema_decay:
    updates.append(ema_update(EMA, components.ema_decay))
  if components.weight_decay and components.learning_rate is not None:
    updates.append(
      decoupled_weight_decay(
        components.weight_decay,
        components.learning_rate,
        on=components.weight_decay_on,
      )
    )
  updates.extend(after)
  return sequence(*updates) if len(updates) > 1 else updates[0]


def _with_rate(step: Update, rate: Schedule | None) -> Update:
  if rate is None:
    return step

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    next_state, metrics = step(state, batch, key)
    return next_state, {
      **metrics,
      'learning_rate': jnp.asarray(rate(state.step)),
    }

  return update


def single_network(
  components: Components,
  *copies: str,
  further_slots: Callable[[], dict[str, Any]] = dict,
) -> Callable[[Key], State]:
  """Default init: one network and its optimizer, with copies of its weights in
  the named slots and in that of the evaluation average, if there is one, and
  the further slots.
  """
  names = (*copies, EMA) if components.ema_decay else copies

  def init(key: Key) -> State:
    network, steps = jax.random.split(key)
    params, stats = components.model.init(network, components.image_shape)
    slots = {name: jax.tree.map(jnp.copy, params) for name in names}
    return State(
      step=jnp.zeros((), jnp.int32),
      key=steps,
      params=params,
      stats=stats,
      opt=components.tx.init(params),
      slots={**slots, **further_slots()},
    )

  return init


def num_outputs(components: Components) -> int:
  """K, from the shape of the network's outputs."""

  def logits(key: Key) -> Array:
    params, stats = components.model.init(key, components.image_shape)
    image = jnp.zeros((1, *components.image_shape))
    return components.model.apply(params, stats, image, train=False)[0].logits

  outputs: int = jax.eval_shape(logits, jax.random.key(0)).shape[-1]
  return outputs


def to_method(recipe: SingleNetworkMethod, components: Components) -> Method:
  """The method of a `SingleNetworkMethod`."""
  return Method(
    single_network(
      components, *recipe.slots, further_slots=recipe.further_slots
    ),
    train_on(recipe.loss, components, *recipe.after),
    predict_with_ema(components),
    recipe.per_image_tables,
    recompute=recompute(components),
  )


def batch_statistics(
  components: Components, params: Params, stats: Stats, images: Array, key: Key
) -> Stats:
  """The running statistics of a single batch in an augmented view.

  With a count of 0 a batch replaces the statistics, see `layers.BatchNorm`.
  Another `mean` or `var` is taken for a moving average m s + (1 - m) b of a
  momentum that is not known here, and passes that begin with s of 0 and of 1
  give b. Statistics of other names move as in a step.
  """
  view, noise = jax.random.split(key)
  images = components.augment(images, view)
  paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(stats)[0]]
  counted = {path[:-1] for path in paths if parameters.is_named(path, 'count')}

  def is_average(path: parameters.Path) -> bool:
    named = parameters.is_named(path, 'mean', 'var')
    return named and path[:-1] not in counted

  def updated(start: float) -> Stats:
    begun = jax.tree_util.tree_map_with_path(
      lambda path, leaf: (
        jnp.zeros_like(leaf)
        if parameters.is_named(path, 'count')
        else jnp.full_like(leaf, start)
        if is_average(path)
        else leaf
      ),
      stats,
    )
    _, moved = components.model.apply(
      params, begun, images, train=True, key=noise
    )
    return moved

  from_zeros = updated(0.0)
  if not any(map(is_average, paths)):
    return from_zeros

  def of_batch(path: parameters.Path, old: Any, low: Any, high: Any) -> Any:
    if not is_average(path):
      return low
    # The momentum is that of the value that the batch moves least, as it
    # rounds least.
    least = jnp.argmin(jnp.abs(low))
    momentum = high.ravel()[least] - low.ravel()[least]
    return jnp.where(momentum < 1.0, low / (1.0 - momentum), old)

  return jax.tree_util.tree_map_with_path(
    of_batch, stats, from_zeros, updated(1.0)
  )


def recompute(components: Components) -> Callable[[State, Array, Key], State]:
  """Default `Method.recompute`, with the weights of `predict_with_ema`."""

  def recomputed(state: State, images: Array, key: Key) -> State:
    params = state.slots[EMA] if components.ema_decay else state.params
    stats = batch_statistics(components, params, state.stats, images, key)
    return state.replace(stats=stats)

  return recomputed


def predict_with_ema(components: Components) -> Callable[[State, Array], Array]:
  """Default predict: with the averaged weights if there are any, else with the
  trained ones, and with the running statistics of the trained network.
  """

  def predict(state: State, images: Array) -> Array:
    params = state.slots[EMA] if components.ema_decay else state.params
    outputs, _ = components.model.apply(
      params, state.stats, images, train=False
    )
    return outputs.logits

  return predict


def require_second_pass(
  inputs: TermInputs, name: str, remedy: str = ''
) -> Callable[..., Array]:
  """The second pass of a method, for a term that needs it.

  Raises:
    errors.UserError: if the method has no second pass; `name` is the term, and
      `remedy` the end of the line.
  """
  if inputs.second_pass is None:
    raise errors.UserError(f'this method has no second pass for {name}{remedy}')
  return inputs.second_pass


def second_head(inputs: TermInputs) -> Array:
  """Logits of the network's second head, or of its only head."""
  if inputs.consistency_u is None:
    return inputs.logits_u
  return inputs.consistency_u


def teacher_params(inputs: TermInputs, name: str) -> Params:
  """Weights of the teacher.

  Raises:
    errors.UserError: if the method has no teacher; `name` is the term.
  """
  if TEACHER not in inputs.slots:
    raise errors.UserError(
      f'the term {name} needs the method mean_teacher, which keeps the teacher'
    )
  return inputs.slots[TEACHER]
