"""The mean of the labeled points as prediction for every image, the baseline of
L2I's Table 1 (Li, Foo & Bilen 2020, https://arxiv.org/abs/1912.10364).
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
  """Builds the method, which trains nothing.

  Points are standardized by the mean of the labeled ones, so the mean is 0.

  Args:
    components: the network is not used.
    terms: must be empty, since terms need classes.
  """
  task = tasks.of(components)

  def update(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    value = task.loss(jnp.zeros_like(batch.y), batch.y).mean()
    return state, {'loss': value, task.loss_name: value}

  network = combinators.predict_with_ema(
    components
  )  # only for the number of points

  def predict(state: State, images: Array) -> Array:
    return jnp.zeros_like(network(state, images))

  return Method(combinators.single_network(components), update, predict)
