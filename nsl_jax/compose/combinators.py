"""Losses add, updates compose: the combinators and the stock init/predict."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nsl_jax import errors
from nsl_jax.compose import tasks
from nsl_jax.types import (
  Array,
  Aux,
  Batch,
  CleanPass,
  Key,
  Loss,
  Method,
  Metrics,
  Params,
  Schedule,
  State,
  Stats,
  Term,
  Tools,
  Update,
  Views,
)

OPTIMIZER = 'optimizer'  # name of its operations in a profile
EMA = 'ema'  # slot of the averaged weights kept for evaluation


class Recipe(NamedTuple):
  """A method of one network before its update is made.

  Attributes:
    loss: what it descends on.
    after: updates that follow the optimiser's.
    slots: slots that start as copies of the network.
    side: names of the side tables of its terms.
  """

  loss: Loss
  after: tuple[Update, ...] = ()
  slots: tuple[str, ...] = ()
  side: tuple[str, ...] = ()


class Passes(NamedTuple):
  """How the images of a batch go through the network.

  Attributes:
    clean: `(params, State, Batch, key) -> ((labelled logits, labels),
      CleanPass, statistics)`; the labels have moved with their images, and
      only the labelled images' batch moves the statistics.
    again: `(params, State, Batch, key) -> f32[B_u, K]` of one more pass.
    again_moving: `(params, statistics, Batch, key)` -> the same, and the
      statistics that the pass has moved.
    totals: `Batch -> (n_x, n_u)`, what sums over labelled and over unlabelled
      rows are divided by.
  """

  clean: Callable[..., tuple[tuple[Array, Array], CleanPass, Stats]]
  again: Callable[[Params, State, Batch, Key], Array]
  again_moving: Callable[[Params, Stats, Batch, Key], tuple[Array, Stats]]
  totals: Callable[[Batch], tuple[int, int]]


SECOND_PASSES = ('all', 'unlabelled')


def passes(
  tools: Tools, *, joint: bool, push: bool, second_pass: str = 'all'
) -> Passes:
  """The passes of a family, and what the mean of a term is over.

  Labelled and unlabelled images go through the network

  - `joint`, `second_pass='all'` (family O, F-N3): in one batch, at every pass;
    the labelled loss and every term are sums divided by B_l + B_u;
  - `joint`, `second_pass='unlabelled'` (Mean Teacher of family D, F-D11): in
    one batch at the clean pass, by whose B_l + B_u the labelled loss is
    divided; further passes, of a teacher say, see the unlabelled images alone,
    and a term is a mean over these;
  - not `joint` (family M): in two batches, each with a mean of its own; further
    passes see the unlabelled images alone.

  Passes that perturb images (`CleanPass.same`, `fresh`) have the rows of the
  clean pass.

  Args:
    tools: network and augmentation.
    joint: see above.
    push: give `CleanPass.push`, for which the clean pass is linearised.
    second_pass: see above.
  """
  alone = not joint or second_pass == 'unlabelled'

  def forward(params: Params, stats: Stats, view: Array, key: Key):
    return tools.model.apply(params, stats, view, train=True, key=key)

  def moving(images: Array, key: Key) -> tuple[Array, Key, Array | None]:
    drawn, noise = jax.random.split(key)
    view, shift = tasks.view(tools, images, drawn)
    return view, noise, shift

  def augmented(images: Array, key: Key) -> tuple[Array, Key]:
    return moving(images, key)[:2]

  def rows(batch: Batch, alone: bool) -> tuple[Array, int]:
    if alone:
      return batch.u, 0
    return jnp.concatenate([batch.x, batch.u]), batch.x.shape[0]

  def clean(params, state, batch, key):
    first, second = (key, key) if joint else jax.random.split(key)
    images, cut = rows(batch, not joint)
    view, noise, shift = moving(images, second)

    def network(view: Array) -> tuple[tuple[Array, Array], Stats]:
      outputs, stats = forward(params, state.stats, view, noise)
      return (outputs.logits, outputs.consistency), stats

    def fresh(images: Array, key: Key) -> Array:
      return forward(params, state.stats, *augmented(images, key))[0].logits

    linear = None
    if push:
      heads, move, stats = jax.linearize(network, view, has_aux=True)
      linear = lambda change: move(change)[0]
    else:
      heads, stats = network(view)
    logits, consistency = heads
    if joint:
      labelled, shift = logits[:cut], None if shift is None else shift[:cut]
    else:
      own, own_noise, shift = moving(batch.x, first)
      outputs, stats = forward(params, state.stats, own, own_noise)
      labelled = outputs.logits
    labels = tasks.moved(batch.y, shift, batch.scale)
    found = CleanPass(
      images=images,
      view=view,
      logits=logits,
      consistency=consistency,
      push=linear,
      same=lambda view: network(view)[0][0],
      fresh=fresh,
      unlabelled=lambda rows: rows[cut:],
    )
    return (labelled, labels), found, stats

  def again_moving(params, stats, batch, key):
    images, cut = rows(batch, alone)
    outputs, moved = forward(params, stats, *augmented(images, key))
    return outputs.logits[cut:], moved

  def again(params, state, batch, key):
    return again_moving(params, state.stats, batch, key)[0]

  def totals(batch: Batch) -> tuple[int, int]:
    labelled, unlabelled = batch.x.shape[0], batch.u.shape[0]
    both = labelled + unlabelled
    return both if joint else labelled, unlabelled if alone else both

  return Passes(clean, again, again_moving, totals)


def add_terms(loss: Loss, terms: Mapping[str, tuple[Schedule, Term]]) -> Loss:
  """The loss plus weighted terms over the rows it shares in `Aux`."""
  if not terms:
    return loss

  def total(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    base, *rest = jax.random.split(key, len(terms) + 1)
    value, aux = loss(params, state, batch, base)
    return _plus(value, aux, terms, state, batch, rest)

  return total


def plus_terms(
  value: Array,
  aux: Aux,
  terms: Mapping[str, tuple[Schedule, Term]],
  state: State,
  batch: Batch,
  key: Key,
) -> tuple[Array, Aux]:
  """A loss's value plus weighted terms over the rows of its Aux."""
  drawn = jax.random.split(key, len(terms))
  return _plus(value, aux, terms, state, batch, list(drawn))


def _plus(
  value: Array,
  aux: Aux,
  terms: Mapping[str, tuple[Schedule, Term]],
  state: State,
  batch: Batch,
  keys: list[Key],
) -> tuple[Array, Aux]:
  if not aux.logits_u.shape[0]:
    raise errors.UserError(
      f'{", ".join(terms)} needs unlabelled images: set config.batch.unlabelled'
    )
  metrics = dict(aux.metrics)
  shared = aux._replace(run=state.key)
  for (name, (weight, term)), key in zip(terms.items(), keys):
    rows = term(shared, batch, key)
    if isinstance(rows, tuple):
      rows, stats = rows
      shared = shared._replace(stats=stats)
    metrics[name] = rows.mean()  # over its own rows, whatever it is divided by
    metrics[f'{name}_weight'] = jnp.asarray(weight(state.step))
    share = rows if rows.ndim == 0 else rows.sum() / aux.total
    value = value + metrics[f'{name}_weight'] * share
  return value, aux._replace(metrics=metrics, stats=shared.stats)


def advance(
  loss: Loss,
  tx: optax.GradientTransformation,
  state: State,
  batch: Batch,
  key: Key,
) -> tuple[State, Metrics, Views | None]:
  """One optimiser step on the loss, and the views that its Aux tells of."""

  def value_and_rest(params):
    value, aux = loss(params, state, batch, key)
    return value, (aux.stats, aux.slots, aux.metrics, aux.views)

  grad = jax.value_and_grad(value_and_rest, has_aux=True)
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
  """One step of the optimiser: new parameters and its new state."""
  with jax.named_scope(OPTIMIZER):
    change, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, change), opt


def descend(loss: Loss, tx: optax.GradientTransformation) -> Update:
  """One optimiser step on the loss."""

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    state, metrics, _ = advance(loss, tx, state, batch, key)
    return state, metrics

  return update


def follow(slot: str, decay: float | Schedule, *, of: str = 'params') -> Update:
  """Moves the average in a slot: decay * old + (1 - decay) * new.

  `decay` may be a schedule of the step, counted from 0; `of` is the field of
  the state that is averaged, the weights or the statistics.
  """

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    keep = decay(state.step) if callable(decay) else decay
    with jax.named_scope(OPTIMIZER):
      moved = optax.incremental_update(
        getattr(state, of), state.slots[slot], 1.0 - keep
      )
    return state.replace(slots={**state.slots, slot: moved}), {}

  return update


def shrink(
  rate: float, learning_rate: Schedule, *, on: str = 'kernels'
) -> Update:
  """weight * (1 - rate * learning rate), of `kernels` or of `all` weights.

  MixMatch's weight decay, which comes after the average has been moved; that
  order is why it is not part of the optimiser. It leaves biases and batch norm
  alone, L2I's code does not (F-L21).
  """

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    with jax.named_scope(OPTIMIZER):
      factor = 1.0 - rate * learning_rate(state.step)
      shrunk = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
          leaf * factor if on == 'all' or _is_kernel(path) else leaf
        ),
        state.params,
      )
    return state.replace(params=shrunk), {}

  return update


def _is_kernel(path: tuple[Any, ...]) -> bool:
  return _is_named(path, 'kernel', 'v')


def _is_named(path: tuple[Any, ...], *names: str) -> bool:
  return getattr(path[-1], 'key', None) in names


def sequence(*updates: Update) -> Update:
  """Runs the updates in order on the same batch, each with its own key."""

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    metrics: Metrics = {}
    for part, part_key in zip(updates, jax.random.split(key, len(updates))):
      state, more = part(state, batch, part_key)
      metrics.update(more)
    return state, metrics

  return update


def train_on(loss: Loss, tools: Tools, *after: Update) -> Update:
  """The stock update: descend, then what `finish_step` does."""
  return finish_step(descend(loss, tools.tx), tools, *after)


def finish_step(step: Update, tools: Tools, *after: Update) -> Update:
  """After the step move the evaluation average if there is one, shrink the
  weights if there is weight decay, then do whatever else follows. The learning
  rate is reported with the step's metrics.
  """
  updates = [_with_rate(step, tools.learning_rate)]
  if tools.ema_decay:
    updates.append(follow(EMA, tools.ema_decay))
  if tools.weight_decay and tools.learning_rate is not None:
    updates.append(
      shrink(tools.weight_decay, tools.learning_rate, on=tools.weight_decay_on)
    )
  updates.extend(after)
  return sequence(*updates) if len(updates) > 1 else updates[0]


def _with_rate(step: Update, rate: Schedule | None) -> Update:
  if rate is None:
    return step

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    after, metrics = step(state, batch, key)
    return after, {**metrics, 'learning_rate': jnp.asarray(rate(state.step))}

  return update


def single_network(tools: Tools, *copies: str) -> Callable[[Key], State]:
  """Stock init: one network and its optimiser, and a copy of its weights in
  the slots named and in that of the evaluation average if there is one.
  """
  names = (*copies, EMA) if tools.ema_decay else copies

  def init(key: Key) -> State:
    network, steps = jax.random.split(key)
    params, stats = tools.model.init(network, tools.image_shape)
    slots = {name: jax.tree.map(jnp.copy, params) for name in names}
    return State(
      step=jnp.zeros((), jnp.int32),
      key=steps,
      params=params,
      stats=stats,
      opt=tools.tx.init(params),
      slots=slots,
    )

  return init


def method_of(recipe: Recipe, tools: Tools) -> Method:
  """The method of one network that a recipe is."""
  return Method(
    single_network(tools, *recipe.slots),
    train_on(recipe.loss, tools, *recipe.after),
    student(tools),
    recipe.side,
    recompute=recompute(tools),
  )


def batch_statistics(
  tools: Tools, params: Params, stats: Stats, images: Array, key: Key
) -> Stats:
  """The running statistics after a single batch, in an augmented view.

  The first batch replaces what the statistics were, see `layers.BatchNorm`.
  """
  first = jax.tree_util.tree_map_with_path(
    lambda path, leaf: (
      jnp.zeros_like(leaf) if _is_named(path, 'count') else leaf
    ),
    stats,
  )
  view, noise = jax.random.split(key)
  _, moved = tools.model.apply(
    params, first, tools.augment(images, view), train=True, key=noise
  )
  return moved


def recompute(tools: Tools) -> Callable[[State, Array, Key], State]:
  """Stock `Method.recompute`, of the weights that `student` predicts with."""

  def recomputed(state: State, images: Array, key: Key) -> State:
    params = state.slots[EMA] if tools.ema_decay else state.params
    stats = batch_statistics(tools, params, state.stats, images, key)
    return state.replace(stats=stats)

  return recomputed


def student(tools: Tools) -> Callable[[State, Array], Array]:
  """Stock predict: averaged weights if kept, else the trained ones; running
  batch-normalisation statistics of the trained network either way.
  """

  def predict(state: State, images: Array) -> Array:
    params = state.slots[EMA] if tools.ema_decay else state.params
    outputs, _ = tools.model.apply(params, state.stats, images, train=False)
    return outputs.logits

  return predict


def second_pass(aux: Aux, name: str) -> Callable[..., Array]:
  """The further pass of a method that a term asks for.

  Raises:
    errors.UserError: if the method has none; `name` is the term.
  """
  if aux.again is None:
    raise errors.UserError(f'this method has no second pass for {name}')
  return aux.again


def second_head(aux: Aux) -> Array:
  """Logits of the network's second head, or of its only one."""
  return aux.logits_u if aux.consistency_u is None else aux.consistency_u


TEACHER = 'teacher'  # slot of the averaged network that a student follows


def teacher_params(aux: Aux, name: str) -> Params:
  """Weights of the teacher.

  Raises:
    errors.UserError: if the method keeps none; `name` is the term.
  """
  if TEACHER not in aux.slots:
    raise errors.UserError(
      f'the term {name} needs the method mean_teacher, which keeps the teacher'
    )
  return aux.slots[TEACHER]
