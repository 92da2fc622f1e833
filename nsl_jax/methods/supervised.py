"""Supervised: cross-entropy on the labelled images, plus any terms.

The base of every method that is one clean pass and terms on its logits.
"""

from collections.abc import Mapping
from typing import Any

import jax

from nsl_jax import compose, losses, terms as terms_lib
from nsl_jax.types import (
    Array, Aux, Batch, Key, Loss, Method, Params, State, Tools,
)

DEFAULTS: dict[str, Any] = {'terms': {}}


def supervised_loss(tools: Tools) -> Loss:
  """Sum of cross-entropy over all rows of the batch, labelled or not.

  Each labelled row and each unlabelled row of a term weighs 1 / (B_l + B_u),
  the normaliser of family O (F-N3); without unlabelled rows it is the mean.
  """
  forward = compose.joint_pass(tools.model, tools.augment)

  def loss(
      params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    labelled, unlabelled, stats = forward(params, state.stats, batch, key)
    total = batch.x.shape[0] + batch.u.shape[0]
    value = losses.cross_entropy(labelled.logits, batch.y).sum() / total

    def again(view_key: Key) -> Array:
      return forward(params, state.stats, batch, view_key)[1].logits

    aux = Aux(
        logits_u=unlabelled.logits,
        belief_u=jax.lax.stop_gradient(jax.nn.softmax(unlabelled.logits)),
        total=total, again=again, stats=stats, slots=state.slots,
        metrics={'cross_entropy': value},
    )
    return value, aux

  return loss


def build(
    tools: Tools, *, terms: Mapping[str, Mapping[str, Any]]
) -> Method:
  """Cross-entropy plus the configured terms."""
  loss = compose.add_terms(
      supervised_loss(tools), terms_lib.from_config(terms)
  )
  return Method(
      compose.single_network(tools),
      compose.train_on(loss, tools),
      compose.student(tools),
      terms_lib.side_tables(terms),
  )
