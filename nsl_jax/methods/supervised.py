"""Supervised: the loss of the labeled images plus any terms.

The base of every method that consists of one clean pass and terms.
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
  Components,
  Key,
  Loss,
  Method,
  Params,
  State,
  Stats,
  Update,
)

TASKS = tuple(tasks.TASKS)


def supervised_loss(
  components: Components,
  *,
  shared_batch_norm: bool = True,
  linearize: bool = False,
  tie: float = 0.0,
  second_pass_rows: str = 'all',
) -> Loss:
  """Loss of the labeled images.

  `combinators.forward_passes` defines the divisors of this sum and of a term.
  `tie` is the weight of the squared difference of the network's two heads, a
  mean over the rows of the clean pass. With `second_pass_rows='unlabeled'` a
  second pass of the trained network also updates the statistics, as in DNLL's
  released code (F-D11).
  """
  passes = combinators.forward_passes(
    components,
    shared_batch_norm=shared_batch_norm,
    linearize=linearize,
    second_pass_rows=second_pass_rows,
  )
  task = tasks.of(components)

  def loss(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    (logits, y), clean, stats = passes.clean(params, state, batch, key)
    labeled, unlabeled = passes.totals(batch)
    value = task.loss(logits, y).sum() / labeled
    metrics = {task.loss_name: value}
    if tie:
      metrics['tie'] = jnp.mean((clean.logits - clean.consistency) ** 2)
      value = value + tie * metrics['tie']
    logits_u = clean.unlabeled(clean.logits)

    def second_pass(key: Key, others: Params | None = None) -> Array:
      chosen = params if others is None else others
      return passes.second_pass(chosen, state, batch, key)

    def second_pass_with_stats(stats: Stats, key: Key) -> tuple[Array, Stats]:
      return passes.second_pass_with_stats(
        jax.lax.stop_gradient(params), stats, batch, key
      )

    aux = Aux(
      logits_u=logits_u,
      target_probs=jax.lax.stop_gradient(task.target(logits_u)),
      normalizer=unlabeled,
      second_pass=second_pass,
      stats=stats,
      slots=state.slots,
      metrics=metrics,
      forward_pass=clean,
      consistency_u=clean.unlabeled(clean.consistency),
      second_pass_with_stats=second_pass_with_stats
      if second_pass_rows == 'unlabeled'
      else None,
    )
    return value, aux

  return loss


def build(
  components: Components,
  *,
  terms: Mapping[str, Mapping[str, Any]],
  shared_batch_norm: bool = True,
) -> Method:
  """Builds the loss plus the configured terms.

  Args:
    components: network, optimizer and augmentation.
    terms: configs of the terms.
    shared_batch_norm: see `combinators.forward_passes`.
  """
  return with_terms(components, terms, shared_batch_norm=shared_batch_norm)


def with_terms(
  components: Components,
  terms: Mapping[str, Mapping[str, Any]],
  *after: Update,
  shared_batch_norm: bool,
  slots: tuple[str, ...] = (),
  tie: float = 0.0,
  second_pass_rows: str = 'all',
) -> Method:
  """The loss plus terms on one network.

  Args:
    components: network, optimizer and augmentation.
    terms: configs of the terms.
    *after: updates after the optimizer step.
    shared_batch_norm: see `combinators.forward_passes`.
    slots: slots that start as copies of the network.
    tie: see `supervised_loss`.
    second_pass_rows: see `combinators.forward_passes`.
  """
  base = supervised_loss(
    components,
    shared_batch_norm=shared_batch_norm,
    linearize=terms_lib.needs_linearized_pass(terms),
    tie=tie,
    second_pass_rows=second_pass_rows,
  )
  loss = combinators.add_terms(base, terms_lib.from_config(terms))
  recipe = combinators.SingleNetworkMethod(
    loss, after, slots, terms_lib.per_image_tables(terms)
  )
  return combinators.to_method(recipe, components)
