"""The step of Learning to Impute: its forward passes, the gradient in the
labels, and the updated labels (Li, Foo & Bilen 2020, section 4,
https://arxiv.org/abs/1912.10364).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nsl_jax import errors
from nsl_jax.compose import bilevel, tasks
from nsl_jax.types import (
  Array,
  Components,
  Key,
  Outputs,
  Params,
  State,
  Stats,
  Views,
)


class Passes(NamedTuple):
  """Forward passes of a step of L2I, as functions of the parameters.

  Attributes:
    impute: f32[B_u, K], the labels z.
    student_view: outputs for the images with target z, and the updated
      statistics.
    held: f32[], mean loss of the held-out images, and their outputs.
    loss_of: `(parameters, images, labels)` -> the same for other images.
  """

  impute: Callable[[Params], Array]
  student_view: Callable[[Params], tuple[Outputs, Stats]]
  held: Callable[[Params], tuple[Array, Outputs]]
  loss_of: Callable[[Params, Array, Array], tuple[Array, Outputs]]


# (Passes, parameters, z, held-out classes, inner rate) -> the held-out loss
# after the inner step, its gradient in z, and the statistics updated by a pass
# over the student's view.
Gradient = Callable[..., tuple[Array, Array, Stats]]


def make_passes(
  components: Components,
  state: State,
  views: Views,
  meta_batch: tuple[Array, Array],
  keys: Sequence[Key],
) -> Passes:
  """The forward passes of a step; each always uses the same dropout.

  Args:
    components: the network.
    state: the state after the host's step.
    views: the views of the host.
    meta_batch: held-out images, augmented, and their labels.
    keys: the first two seed the dropout of the two passes.
  """
  imputing, learning, *_ = keys
  task = tasks.of(components)

  def forward(
    params: Params, images: Array, key: Key | None
  ) -> tuple[Outputs, Stats]:
    noise = None if key is None else jax.random.clone(key)
    return components.model.apply(
      params, state.stats, images, train=True, key=noise
    )

  def impute(params: Params) -> Array:
    outputs, _ = forward(params, views.teacher_view, imputing)
    return tasks.imputed(components, outputs.logits, views)

  def loss_of(
    params: Params, images: Array, labels: Array
  ) -> tuple[Array, Outputs]:
    # No dropout, as in the adapted network of the released code (F-L13).
    outputs, _ = forward(params, images, None)
    return task.loss(outputs.logits, labels).mean(), outputs

  return Passes(
    impute,
    lambda params: forward(params, views.student_view, learning),
    lambda params: loss_of(params, *meta_batch),
    loss_of,
  )


def updated_labels(
  z: Array, change: Array, *, rate: float, space: str
) -> Array:
  """V1's labels after a gradient step; probabilities still sum to 1.

  In `space` 'logits' the step is on their logits, as in the released code; in
  'labels' on z, as in the paper, followed by renormalization (F-L5).
  """
  if space == 'points':
    return z - rate * change
  if space == 'labels':
    stepped = jnp.maximum(z - rate * change, 0.0)
    total = stepped.sum(axis=-1, keepdims=True)
    return jnp.where(total > 0.0, stepped / jnp.maximum(total, 1e-12), z)
  logits = jnp.log(jnp.maximum(z, 1e-30))
  return jax.nn.softmax(logits - rate * bilevel.to_logits(change, z))


def meta_gradient(
  passes: Passes,
  params: Params,
  z: Array,
  meta_y: Array,
  rate: bilevel.Rate,
  *,
  unlabeled: Callable[[Array, Array], Array],
) -> tuple[Array, Array, Stats]:
  """The nested gradient, see `Gradient`."""

  def inner(params: Params, z: Array) -> tuple[Array, Stats]:
    outputs, stats = passes.student_view(params)
    return unlabeled(outputs.logits, z), stats

  return bilevel.label_gradient(
    inner, lambda params: passes.held(params)[0], params, z, rate=rate
  )


def last_layer_meta_gradient(
  passes: Passes, params: Params, z: Array, meta_y: Array, rate: bilevel.Rate
) -> tuple[Array, Array, Stats]:
  """The gradient in closed form, see `Gradient`: only the last layer adapts and
  held-out predictions are those before the inner step (appendix A.3, F-L12).
  """
  value, held = passes.held(params)
  outputs, stats = passes.student_view(params)
  if outputs.features is outputs.logits:
    raise errors.UserError(
      'l2i gradient=last_layer needs the features before the last layer, and '
      'this network returns logits only: let it return Outputs, or set '
      'gradient=nested'
    )
  true = jax.nn.one_hot(meta_y, z.shape[-1], dtype=z.dtype)
  change = bilevel.last_layer_gradient(
    outputs.features,
    held.features,
    jax.nn.softmax(held.logits),
    true,
    rate=rate,
  )
  return value, change / len(meta_y), stats  # C_held is a mean
