"""The compiled step: rows in, state in and out, nothing fetched."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from nsl_jax import errors
from nsl_jax.compose import tasks
from nsl_jax.training import kernels, sharding as mesh_lib
from nsl_jax.types import Array, Batch, Data, Method, Metrics, State

READ = 'read'  # name of reading a batch in a profile
IMAGES = '_images'  # `labeled_images` are the images at the rows `labeled`
Normalize = Callable[[Mapping[str, Array], Array], Array]
Rows = Mapping[str, Array]
Read = Callable[[Any, Rows], Batch]
Step = Callable[[State, Any, Rows], tuple[State, Metrics]]
TrainSteps = Callable[[State, Any, Rows], tuple[State, Metrics]]


@jax.named_scope(READ)
def make_batch(normalize: Normalize, data: Data, rows: Rows) -> Batch:
  """The batch at those rows; hidden labels stay behind.

  Args:
    normalize: `(fitted arrays, u8 images) -> f32 images`.
    data: the set on the device.
    rows: `labeled` i32[B_l], `unlabeled` i32[B_u], and `holdout` i32[B_h] if
      the method wants it; where the images are not on the device also
      `labeled_images` u8[B_l, H, W, C] and so on.
  """

  def images_at(name: str) -> Array:
    streamed = rows.get(name + IMAGES)
    images = data.images[rows[name]] if streamed is None else streamed
    return normalize(data.normalization, images)

  labeled, unlabeled = rows['labeled'], rows['unlabeled']
  held: dict[str, Array] = {}
  if 'holdout' in rows:
    held_out = rows['holdout']
    held['meta_x'] = images_at('holdout')
    held['meta_y'] = data.labels[held_out]
  probe_images = None
  if data.probe_images is not None:
    images, labels = data.probe_images
    probe_images = normalize(data.normalization, images), labels
  return Batch(
    x=images_at('labeled'),
    y=data.labels[labeled],
    u=images_at('unlabeled'),
    u_index=unlabeled,
    per_image_tables={
      name: table[unlabeled] for name, table in data.per_image_tables.items()
    },
    scale=tasks.scale_of(data.normalization),
    probe_images=probe_images,
    num_unlabeled=data.num_unlabeled,
    label_shares=data.label_shares,
    **held,
  )


def one_step(method: Method, make_batch: Read) -> Step:
  """Read, update, step + 1. Keys come from (state.key, state.step) alone."""

  def step(state: State, data: Any, rows: Rows) -> tuple[State, Metrics]:
    key = jax.random.fold_in(state.key, state.step)
    state, metrics = method.update(state, make_batch(data, rows), key)
    metrics = {name: _scalar(name, value) for name, value in metrics.items()}
    # The norm is there to notice parameters that are no longer finite.
    metrics = {**metrics, 'params_norm': optax.tree.norm(state.params)}
    return state.replace(step=state.step + 1), metrics

  return step


def _scalar(name: str, value: Any) -> Array:
  if jnp.shape(value):
    raise errors.UserError(
      f'the metric {name} has the shape {jnp.shape(value)}: give its mean'
    )
  return jnp.asarray(value)


def use_precision(precision: str) -> None:
  """Sets the arithmetic of matrix products: exact in `float32` only."""
  jax.config.update(
    'jax_default_matmul_precision',
    'highest' if precision == 'float32' else 'default',
  )


def initial_state(method: Method, seed: int, mesh: Mesh) -> State:
  """The state of a seed before its first step, whole on every device."""
  init = jax.jit(
    method.init,
    out_shardings=mesh_lib.replicated_sharding(mesh),
    compiler_options=kernels.once(),
  )
  return init(jax.random.key(seed))


def make_train_steps(
  step: Step, *, mesh: Mesh, compiler_options: dict[str, Any] | None = None
) -> TrainSteps:
  """A compiled `(state, data, rows) -> (state, history)` of several steps.

  `rows` have a leading axis of steps. Every number of steps is compiled once,
  so that the trip count is static and an accelerator need not wait for the
  host after each step. `state` is donated. `history` holds every metric of
  every step, f32[steps], in order.

  `compiler_options` are those of `kernels.options`.

  A single step is not wrapped in a loop: on CPU convolutions inside a rolled
  loop are many times slower.
  """

  def chunk(state, data, rows):
    body = lambda state, batch_rows: step(state, data, batch_rows)
    if len(next(iter(rows.values()))) > 1:
      return jax.lax.scan(body, state, rows)
    state, metrics = body(state, jax.tree.map(lambda r: r[0], rows))
    return state, jax.tree.map(lambda m: m[None], metrics)

  return jax.jit(
    chunk,
    donate_argnums=0,
    out_shardings=mesh_lib.replicated_sharding(mesh),
    compiler_options=compiler_options,
  )
