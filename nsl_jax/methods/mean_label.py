"""The mean of the labeled targets for every image: what a network of points is
to be better than (Learning to Impute, Table 1).
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from nsl_jax.compose import combinators, tasks
from nsl_jax.types import Array, Batch, Components, Key, Method, Metrics, State

TASKS = (tasks.REGRESSION.name,)


def build(
  components: Components, *, terms: Mapping[str, Mapping[str, Any]]
) -> Method:
  """Builds the method, which learns nothing.

  Points are standardized by the mean of the labeled ones, so that 0 is it.

  Args:
    components: what it is built from; its network is not used.
    terms: none, as they are about classes.
  """
  task = tasks.of(components)

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    value = task.loss(jnp.zeros_like(batch.y), batch.y).mean()
    return state, {'loss': value, task.loss_name: value}

  network = combinators.predict_with_ema(
    components
  )  # for the number of points alone

  def predict(state: State, images: Array) -> Array:
    return jnp.zeros_like(network(state, images))

  return Method(combinators.single_network(components), update, predict)
