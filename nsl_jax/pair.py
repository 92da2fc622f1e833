"""Two networks of one shape trained side by side, each with its own optimiser.

What one network keeps in `State.params`, `stats` and `opt` is here a dict of
the two by name; `both` and `split` go back and forth.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nsl_jax import compose
from nsl_jax.types import (
    Array, Aux, Batch, Key, Metrics, Outputs, Params, Schedule, State, Stats,
    Term, Tools, Update,
)

NAMES = ('a', 'b')
Pair = dict[str, Any]  # the same thing of either network
PairLoss = Callable[
    [Pair, State, Batch, Key], tuple[dict[str, Array], dict[str, Aux]]
]
Apply = Callable[[Pair, Pair, Pair, Key], tuple[dict[str, Outputs], Pair]]


def other(name: str) -> str:
  """The name of the other network."""
  return NAMES[1 - NAMES.index(name)]


def keys(key: Key) -> Pair:
  """A key for either."""
  return dict(zip(NAMES, jax.random.split(key, len(NAMES))))


def forward(tools: Tools, *, batched: bool) -> Apply:
  """`(params, stats, images, key) -> (outputs, stats)` of both, in train mode.

  Args:
    tools: the network.
    batched: as one computation with a leading axis of two, instead of one
      network after the other. The values are the same but for rounding, and
      for the dropout that is drawn.
  """
  def one(
      params: Params, stats: Stats, images: Array, key: Key
  ) -> tuple[Outputs, Stats]:
    return tools.model.apply(params, stats, images, train=True, key=key)

  def in_turn(params, stats, images, key):
    drawn = keys(key)
    found = {
        n: one(params[n], stats[n], images[n], drawn[n]) for n in NAMES
    }
    return ({n: outputs for n, (outputs, _) in found.items()},
            {n: moved for n, (_, moved) in found.items()})

  def at_once(params, stats, images, key):
    trees = ([tree[n] for n in NAMES] for tree in (params, stats, images))
    stacked = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *tree)
        for tree in trees
    ]
    drawn = jax.random.split(key, len(NAMES))
    outputs, moved = jax.vmap(one)(*stacked, drawn)
    pick = lambda tree: {
        n: jax.tree.map(lambda leaf: leaf[at], tree)
        for at, n in enumerate(NAMES)
    }
    return pick(outputs), pick(moved)

  return at_once if batched else in_turn


def init(
    tools: Tools, slots: Callable[[], dict[str, Any]] = dict
) -> Callable[[Key], State]:
  """Stock init: both networks drawn independently.

  Args:
    tools: what the method is built from.
    slots: makes what else the method remembers at the start.
  """
  def start(key: Key) -> State:
    drawn = keys(key)
    states = {n: compose.single_network(tools)(drawn[n]) for n in NAMES}
    split = lambda field: {n: getattr(states[n], field) for n in NAMES}
    kept = slots()
    if tools.ema_decay:
      kept[compose.EMA] = jax.tree.map(jnp.copy, split('params'))
    return State(
        step=jnp.zeros((), jnp.int32), key=states['a'].key,
        params=split('params'), stats=split('stats'), opt=split('opt'),
        slots=kept,
    )

  return start


def another_pass(
    tools: Tools, params: Params, stats: Stats, batch: Batch
) -> Callable[..., Array]:
  """`Aux.again` of one of the networks."""
  def again(key: Key, others: Params | None = None) -> Array:
    view, noise = jax.random.split(key)
    outputs, _ = tools.model.apply(
        params if others is None else others, stats,
        tools.augment(batch.u, view), train=True, key=noise,
    )
    return outputs.logits

  return again


def add_terms(
    loss: PairLoss, terms: Mapping[str, tuple[Schedule, Term]]
) -> PairLoss:
  """The loss plus weighted terms on the rows of either network."""
  if not terms:
    return loss

  def total(params, state, batch, key):
    base, drawn = jax.random.split(key)
    values, aux = loss(params, state, batch, base)
    found = {
        n: compose.plus_terms(
            values[n], aux[n], terms, state, batch, own
        ) for n, own in keys(drawn).items()
    }
    return ({n: value for n, (value, _) in found.items()},
            {n: more for n, (_, more) in found.items()})

  return total


def descend(
    loss: PairLoss, tx: optax.GradientTransformation, *, in_turn: bool = False
) -> Update:
  """One optimiser step of both networks.

  Args:
    loss: a value and an Aux of either; its value must not have a gradient in
      the other's parameters.
    tx: the optimiser of each.
    in_turn: `b` learns from an `a` that has already made its step, on the
      same views and negative labels drawn from the same noise, instead of
      both at once.
  """
  def advance(
      names: tuple[str, ...], state: State, batch: Batch, key: Key
  ) -> tuple[State, Metrics]:
    def total(trained):
      values, aux = loss({**state.params, **trained}, state, batch, key)
      rest = {n: (aux[n].stats, aux[n].slots, aux[n].metrics) for n in names}
      return jnp.stack([values[n] for n in names]).sum(), (values, rest)

    trained = {n: state.params[n] for n in names}
    grad = jax.value_and_grad(total, has_aux=True)
    (_, (values, rest)), grads = grad(trained)
    params, opt, stats = dict(state.params), dict(state.opt), dict(state.stats)
    slots, metrics = dict(state.slots), {}
    for n in names:
      params[n], opt[n] = compose.apply_gradients(
          tx, grads[n], opt[n], params[n]
      )
      stats[n], own_slots, own_metrics = rest[n]
      slots.update(own_slots)
      metrics[f'loss_{n}'] = values[n]
      metrics.update({f'{k}_{n}': v for k, v in own_metrics.items()})
    state = state.replace(params=params, opt=opt, stats=stats, slots=slots)
    return state, metrics

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    turns = [(n,) for n in NAMES] if in_turn else [NAMES]
    metrics: Metrics = {}
    for names in turns:
      state, more = advance(names, state, batch, jax.random.clone(key))
      metrics.update(more)
    metrics['loss'] = metrics['loss_a'] + metrics['loss_b']
    return state, metrics

  return update


def recompute(tools: Tools) -> Callable[[State, Array, Key], State]:
  """`Method.recompute` of both networks, which see the same images."""
  def recomputed(state: State, images: Array, key: Key) -> State:
    params = state.slots[compose.EMA] if tools.ema_decay else state.params
    return state.replace(stats={
        n: compose.batch_statistics(
            tools, params[n], state.stats[n], images, own
        ) for n, own in keys(key).items()
    })

  return recomputed


def predict(tools: Tools) -> Callable[[State, Array], dict[str, Array]]:
  """Logits of either network, with averaged weights if they are kept."""
  def submodels(state: State, images: Array) -> dict[str, Array]:
    params = state.slots[compose.EMA] if tools.ema_decay else state.params
    return {
        n: tools.model.apply(
            params[n], state.stats[n], images, train=False)[0].logits
        for n in NAMES
    }

  return submodels
