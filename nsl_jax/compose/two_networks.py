"""Two networks of the same architecture, each with a separate optimizer.

`State.params`, `stats` and `opt` are dicts with an entry per network.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nsl_jax.compose import combinators
from nsl_jax.types import (
  Array,
  Aux,
  Batch,
  Components,
  Key,
  Metrics,
  Outputs,
  Schedule,
  State,
  Term,
  Update,
)

NAMES = ('a', 'b')
Pair = dict[str, Any]  # an entry per network
PairLoss = Callable[
  [Pair, State, Batch, Key], tuple[dict[str, Array], dict[str, Aux]]
]
Apply = Callable[[Pair, Pair, Pair, Key], tuple[dict[str, Outputs], Pair]]


def other(name: str) -> str:
  """The name of the other network."""
  return NAMES[1 - NAMES.index(name)]


def keys(key: Key) -> Pair:
  """A key per network."""
  return dict(zip(NAMES, jax.random.split(key, len(NAMES))))


def forward(components: Components) -> Apply:
  """`(params, stats, images, key) -> (outputs, stats)` of both, in train mode.

  Applies one network after the other: vectorized over the two they take several
  times as long on a CPU.
  """

  def apply(
    params: Pair, stats: Pair, images: Pair, key: Key
  ) -> tuple[dict[str, Outputs], Pair]:
    results = {
      n: components.model.apply(
        params[n], stats[n], images[n], train=True, key=own_key
      )
      for n, own_key in keys(key).items()
    }
    return (
      {n: outputs for n, (outputs, _) in results.items()},
      {n: updated for n, (_, updated) in results.items()},
    )

  return apply


def init(
  components: Components, slots: Callable[[], dict[str, Any]] = dict
) -> Callable[[Key], State]:
  """Default init: both networks are initialized independently.

  Args:
    components: components of the method.
    slots: returns the initial slots of the method.
  """

  def start(key: Key) -> State:
    key_of = keys(key)
    states = {
      n: combinators.single_network(components)(key_of[n]) for n in NAMES
    }
    by_network: Callable[[str], Pair] = lambda field: {
      n: getattr(states[n], field) for n in NAMES
    }
    initial_slots = slots()
    if components.ema_decay:
      initial_slots[combinators.EMA] = jax.tree.map(
        jnp.copy, by_network('params')
      )
    return State(
      step=jnp.zeros((), jnp.int32),
      key=states['a'].key,
      params=by_network('params'),
      stats=by_network('stats'),
      opt=by_network('opt'),
      slots=initial_slots,
    )

  return start


def add_terms(
  loss: PairLoss, terms: Mapping[str, tuple[Schedule, Term]]
) -> PairLoss:
  """The loss plus weighted terms on the rows of each network."""
  if not terms:
    return loss

  def loss_with_terms(
    params: Pair, state: State, batch: Batch, key: Key
  ) -> tuple[dict[str, Array], dict[str, Aux]]:
    base, draws = jax.random.split(key)
    values, aux = loss(params, state, batch, base)
    with_terms = {
      n: combinators.plus_terms(values[n], aux[n], terms, state, batch, own_key)
      for n, own_key in keys(draws).items()
    }
    return (
      {n: value for n, (value, _) in with_terms.items()},
      {n: network_aux for n, (_, network_aux) in with_terms.items()},
    )

  return loss_with_terms


def gradient_step(loss: PairLoss, tx: optax.GradientTransformation) -> Update:
  """One optimizer step of both networks.

  Args:
    loss: returns a value and an `Aux` per network; a value must not have a
      gradient in the parameters of the other network.
    tx: the optimizer of each network.
  """

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    def total(params: Pair) -> tuple[Array, Any]:
      values, aux = loss(params, state, batch, key)
      aux_of = {n: (aux[n].stats, aux[n].slots, aux[n].metrics) for n in NAMES}
      return jnp.stack([values[n] for n in NAMES]).sum(), (values, aux_of)

    grad = jax.value_and_grad(total, has_aux=True)
    (_, (values, aux_of)), grads = grad(state.params)
    params, opt, stats = {}, {}, {}
    slots, metrics = dict(state.slots), {}
    for n in NAMES:
      params[n], opt[n] = combinators.apply_gradients(
        tx, grads[n], state.opt[n], state.params[n]
      )
      stats[n], own_slots, own_metrics = aux_of[n]
      slots.update(own_slots)
      metrics[f'loss_{n}'] = values[n]
      metrics.update({f'{k}_{n}': v for k, v in own_metrics.items()})
    metrics['loss'] = metrics['loss_a'] + metrics['loss_b']
    state = state.replace(params=params, opt=opt, stats=stats, slots=slots)
    return state, metrics

  return update


def recompute(components: Components) -> Callable[[State, Array, Key], State]:
  """`Method.recompute` of both networks, on the same images."""

  def recomputed(state: State, images: Array, key: Key) -> State:
    params = (
      state.slots[combinators.EMA] if components.ema_decay else state.params
    )
    return state.replace(
      stats={
        n: combinators.batch_statistics(
          components, params[n], state.stats[n], images, own
        )
        for n, own in keys(key).items()
      }
    )

  return recomputed


def predict(
  components: Components,
) -> Callable[[State, Array], dict[str, Array]]:
  """Logits of each network, with averaged weights if there are any."""

  def submodels(state: State, images: Array) -> dict[str, Array]:
    params = (
      state.slots[combinators.EMA] if components.ema_decay else state.params
    )
    return {
      n: components.model.apply(params[n], state.stats[n], images, train=False)[
        0
      ].logits
      for n in NAMES
    }

  return submodels
