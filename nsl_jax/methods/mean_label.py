"""The mean of the labelled targets for every image: what a network of points is
to be better than (Learning to Impute, Table 1).
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from nsl_jax.compose import combinators, tasks
from nsl_jax.types import Array, Batch, Key, Method, Metrics, State, Tools

TASKS = (tasks.REGRESSION.name,)


def build(tools: Tools, *, terms: Mapping[str, Mapping[str, Any]]) -> Method:
  """Builds the method, which learns nothing.

  Points are standardised by the mean of the labelled ones, so that 0 is it.

  Args:
    tools: what it is built from; its network is not asked.
    terms: none, as they are about classes.
  """
  task = tasks.of(tools)

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    value = task.loss(jnp.zeros_like(batch.y), batch.y).mean()
    return state, {'loss': value, task.loss_name: value}

  network = combinators.student(tools)  # for the number of points alone

  def predict(state: State, images: Array) -> Array:
    return jnp.zeros_like(network(state, images))

  return Method(combinators.single_network(tools), update, predict)
