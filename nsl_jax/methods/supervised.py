"""Supervised: the loss of the labeled images plus any terms.

The base of every method that consists of one forward pass and terms.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import terms as terms_lib
from nsl_jax.compose import combinators, forward, tasks
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
  TermInputs,
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

  `forward.forward_passes` defines the divisors of this sum and of a term.
  `tie` is the weight of the squared difference of the network's two heads, a
  mean over the rows of the first pass. With `second_pass_rows='unlabeled'` a
  second pass of the trained network also updates the statistics, as in DNLL's
  released code (F-D11).
  """
  passes = forward.forward_passes(
    components,
    shared_batch_norm=shared_batch_norm,
    linearize=linearize,
    second_pass_rows=second_pass_rows,
  )
  task = tasks.of(components)

  def loss(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    (logits, y), forward_pass, stats = passes.first_pass(
      params, state, batch, key
    )
    labeled, unlabeled = passes.totals(batch)
    value = task.loss(logits, y).sum() / labeled
    metrics = {task.loss_name: value}
    if tie:
      metrics['tie'] = jnp.mean(
        (forward_pass.logits - forward_pass.consistency) ** 2
      )
      value = value + tie * metrics['tie']
    logits_u = forward_pass.unlabeled(forward_pass.logits)

    def second_pass(key: Key, given_params: Params | None = None) -> Array:
      used_params = params if given_params is None else given_params
      return passes.second_pass(used_params, state, batch, key)

    def second_pass_with_stats(stats: Stats, key: Key) -> tuple[Array, Stats]:
      return passes.second_pass_with_stats(
        jax.lax.stop_gradient(params), stats, batch, key
      )

    inputs = TermInputs(
      logits_u,
      target_probs=jax.lax.stop_gradient(task.target(logits_u)),
      normalizer=unlabeled,
      consistency_u=forward_pass.unlabeled(forward_pass.consistency),
      second_pass=second_pass,
      second_pass_with_stats=second_pass_with_stats
      if second_pass_rows == 'unlabeled'
      else None,
      forward_pass=forward_pass,
    )
    return value, Aux(inputs, stats, state.slots, metrics)

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
    shared_batch_norm: see `forward.forward_passes`.
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
    shared_batch_norm: see `forward.forward_passes`.
    slots: slots that start as copies of the network.
    tie: see `supervised_loss`.
    second_pass_rows: see `forward.forward_passes`.
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
