"""Supervised: the task's loss on the labelled images, plus any terms.

The base of every method that is one clean pass and terms on its logits.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import terms as terms_lib
from nsl_jax.compose import combinators, tasks
from nsl_jax.types import (
  Array,
  Aux,
  Batch,
  Key,
  Loss,
  Method,
  Params,
  State,
  Stats,
  Tools,
  Update,
)

TASKS = tuple(tasks.TASKS)


def supervised_loss(
  tools: Tools,
  *,
  joint: bool = True,
  push: bool = False,
  tie: float = 0.0,
  second_pass: str = 'all',
) -> Loss:
  """Loss of the labelled images.

  `compose.passes` tells what its sum, and that of a term, is divided by. `tie`
  weighs the squared difference of the network's two heads, a mean over the rows
  of the clean pass. With `second_pass='unlabelled'` a further pass of the
  network itself moves the statistics as the clean one does, as in DNLL's
  released code.
  """
  passes = combinators.passes(
    tools, joint=joint, push=push, second_pass=second_pass
  )
  task = tasks.of(tools)

  def loss(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    (logits, y), clean, stats = passes.clean(params, state, batch, key)
    labelled, unlabelled = passes.totals(batch)
    value = task.loss(logits, y).sum() / labelled
    metrics = {task.loss_name: value}
    if tie:
      metrics['tie'] = jnp.mean((clean.logits - clean.consistency) ** 2)
      value = value + tie * metrics['tie']
    logits_u = clean.unlabelled(clean.logits)

    def again(key: Key, others: Params | None = None) -> Array:
      chosen = params if others is None else others
      return passes.again(chosen, state, batch, key)

    def again_moving(stats: Stats, key: Key) -> tuple[Array, Stats]:
      return passes.again_moving(
        jax.lax.stop_gradient(params), stats, batch, key
      )

    aux = Aux(
      logits_u=logits_u,
      belief_u=jax.lax.stop_gradient(task.belief(logits_u)),
      total=unlabelled,
      again=again,
      stats=stats,
      slots=state.slots,
      metrics=metrics,
      clean=clean,
      consistency_u=clean.unlabelled(clean.consistency),
      again_moving=again_moving if second_pass == 'unlabelled' else None,
    )
    return value, aux

  return loss


def build(
  tools: Tools, *, terms: Mapping[str, Mapping[str, Any]], joint: bool = True
) -> Method:
  """The loss plus the configured terms.

  Args:
    tools: what it is built from.
    terms: their configs.
    joint: see `combinators.passes`.
  """
  return with_terms(tools, terms, joint=joint)


def with_terms(
  tools: Tools,
  terms: Mapping[str, Mapping[str, Any]],
  *after: Update,
  joint: bool,
  slots: tuple[str, ...] = (),
  tie: float = 0.0,
  second_pass: str = 'all',
) -> Method:
  """The loss plus terms on one network.

  Args:
    tools: what it is built from.
    terms: their configs.
    *after: updates that follow the optimiser's.
    joint: see `compose.passes`.
    slots: slots that start as copies of the network.
    tie: see `supervised_loss`.
    second_pass: see `compose.passes`.
  """
  base = supervised_loss(
    tools,
    joint=joint,
    push=terms_lib.needs_linearized_pass(terms),
    tie=tie,
    second_pass=second_pass,
  )
  loss = combinators.add_terms(base, terms_lib.from_config(terms))
  recipe = combinators.Recipe(loss, after, slots, terms_lib.side_tables(terms))
  return combinators.method_of(recipe, tools)
