"""Losses add, updates compose: the combinators and the stock init/predict."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from nsl_jax import errors
from nsl_jax.types import (
    Array, Augment, Aux, Batch, Key, Loss, Metrics, Model, Outputs, Params,
    Schedule, State, Stats, Term, Tools, Update,
)

EMA = 'ema'  # slot of the averaged weights kept for evaluation


def joint_pass(
    model: Model, augment: Augment
) -> Callable[[Params, Stats, Batch, Key], tuple[Outputs, Outputs, Stats]]:
  """One application of the network to labelled and unlabelled images together.

  They share one batch and its statistics, and every call draws its own
  augmentation and dropout (family O).
  """
  def run(params, stats, batch, key):
    view, noise = jax.random.split(key)
    images = jnp.concatenate([batch.x, batch.u])
    outputs, stats = model.apply(
        params, stats, augment(images, view), train=True, key=noise
    )
    cut = batch.x.shape[0]
    labelled = jax.tree.map(lambda leaf: leaf[:cut], outputs)
    unlabelled = jax.tree.map(lambda leaf: leaf[cut:], outputs)
    return labelled, unlabelled, stats

  return run


def add_terms(
    loss: Loss, terms: Mapping[str, tuple[Schedule, Term]]
) -> Loss:
  """The loss plus weighted terms over the rows it shares in `Aux`."""
  if not terms:
    return loss

  def total(
      params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    base, *rest = jax.random.split(key, len(terms) + 1)
    value, aux = loss(params, state, batch, base)
    if not aux.logits_u.shape[0]:
      raise errors.UserError(
          f'{", ".join(terms)} needs unlabelled images: set '
          'config.batch.unlabelled'
      )
    metrics = dict(aux.metrics)
    for (name, (weight, term)), term_key in zip(terms.items(), rest):
      metrics[name] = term(aux, batch, term_key).sum() / aux.total
      value = value + weight(state.step) * metrics[name]
    return value, aux._replace(metrics=metrics)

  return total


def descend(loss: Loss, tx: optax.GradientTransformation) -> Update:
  """One optimiser step on the loss."""
  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    def value_and_rest(params):
      value, aux = loss(params, state, batch, key)
      return value, (aux.stats, aux.slots, aux.metrics)

    grad = jax.value_and_grad(value_and_rest, has_aux=True)
    (value, (stats, slots, metrics)), grads = grad(state.params)
    change, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, change)
    state = state.replace(params=params, opt=opt, stats=stats, slots=slots)
    return state, {'loss': value, **metrics}

  return update


def follow(slot: str, decay: float) -> Update:
  """Moves the averaged weights in a slot: decay * old + (1 - decay) * new."""
  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    moved = optax.incremental_update(
        state.params, state.slots[slot], 1.0 - decay
    )
    return state.replace(slots={**state.slots, slot: moved}), {}

  return update


def sequence(*updates: Update) -> Update:
  """Runs the updates in order on the same batch, each with its own key."""
  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    metrics: Metrics = {}
    for part, part_key in zip(updates, jax.random.split(key, len(updates))):
      state, more = part(state, batch, part_key)
      metrics.update(more)
    return state, metrics

  return update


def train_on(loss: Loss, tools: Tools) -> Update:
  """The stock update: descend, then move the evaluation average if any."""
  step = descend(loss, tools.tx)
  if not tools.ema_decay:
    return step
  return sequence(step, follow(EMA, tools.ema_decay))


def single_network(tools: Tools) -> Callable[[Key], State]:
  """Stock init: one network, its optimiser, the evaluation average if any."""
  def init(key: Key) -> State:
    network, steps = jax.random.split(key)
    params, stats = tools.model.init(network, tools.image_shape)
    slots = {EMA: jax.tree.map(jnp.copy, params)} if tools.ema_decay else {}
    return State(
        step=jnp.zeros((), jnp.int32), key=steps, params=params, stats=stats,
        opt=tools.tx.init(params), slots=slots,
    )

  return init


def student(tools: Tools) -> Callable[[State, Array], Array]:
  """Stock predict: averaged weights if kept, else the trained ones; running
  batch-normalisation statistics of the trained network either way.
  """
  def predict(state: State, images: Array) -> Array:
    params = state.slots[EMA] if tools.ema_decay else state.params
    outputs, _ = tools.model.apply(params, state.stats, images, train=False)
    return outputs.logits

  return predict
