"""Classification or points: meaning of outputs, losses and metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsl_jax import errors, losses
from nsl_jax.types import Array, Batch, Components, Key, Task, Views

_FAILED = 0.1  # failure: a larger mean error, in units of the eye distance
_MEAN, _STD = 'target_mean', 'target_std'


def _class_metrics(
  logits: Array, labels: Array, fitted: Mapping[str, Array]
) -> dict[str, Array]:
  return {
    'error': jnp.argmax(logits, axis=-1) != labels,
    'cross_entropy': losses.cross_entropy(logits, labels),
  }


def _inner_of_classes(logits: Array, target: Array, variant: str) -> Array:
  """A sum over images and classes for both variants: the released inner rates,
  100 and 50 times the outer rate, are for a sum (F-L4).
  """
  return jnp.sum((jax.nn.softmax(logits) - target) ** 2)


CLASSIFICATION = Task(
  name='classification',
  loss_name='cross_entropy',
  fit=lambda labels: {},
  encode=lambda fitted, labels: labels,
  loss=losses.cross_entropy,
  target=jax.nn.softmax,
  disagreement=losses.squared_error,
  inner=_inner_of_classes,
  metrics=_class_metrics,
)


def _fit_points(labels: np.ndarray) -> dict[str, np.ndarray]:
  """Mean and standard deviation (N - 1) of every coordinate, f32[P] in pixels,
  before any shift, as in L2I's released code (F-L11). A coordinate without
  variance, or of a single row, is not scaled.
  """
  std = np.zeros(labels.shape[1])
  if len(labels) > 1:
    std = labels.std(0, dtype=np.float64, ddof=1)
  return {
    _MEAN: labels.mean(0, dtype=np.float64).astype(np.float32),
    _STD: np.where(std < 1e-6, 1.0, std).astype(np.float32),
  }


def _encode_points(
  fitted: Mapping[str, np.ndarray], labels: np.ndarray
) -> np.ndarray:
  encoded: np.ndarray = (labels - fitted[_MEAN][None]) / fitted[_STD][None]
  return encoded


def points_of(fitted: Mapping[str, Array], outputs: Array) -> Array:
  """Outputs f32[B, P] as coordinates in pixels."""
  return outputs * fitted[_STD][None] + fitted[_MEAN][None]


def _point_metrics(
  outputs: Array, labels: Array, fitted: Mapping[str, Array]
) -> dict[str, Array]:
  error = losses.interocular_error(points_of(fitted, outputs), labels)
  return {'error': error, 'failure': error > _FAILED}


def _inner_of_points(outputs: Array, target: Array, variant: str) -> Array:
  """A mean over images and coordinates; V2 compares the tanh of both, as in
  L2I's released code (F-L11).
  """
  if variant == 'v2':
    outputs, target = jnp.tanh(outputs), jnp.tanh(target)
  return jnp.mean((outputs - target) ** 2)


REGRESSION = Task(
  name='regression',
  loss_name='squared_error',
  fit=_fit_points,
  encode=_encode_points,
  loss=losses.mean_square,
  target=lambda outputs: outputs,
  disagreement=lambda outputs, target: losses.mean_square(
    outputs, jax.lax.stop_gradient(target)
  ),
  inner=_inner_of_points,
  metrics=_point_metrics,
)
TASKS = {task.name: task for task in (CLASSIFICATION, REGRESSION)}


def find(name: str) -> Task:
  """The task of this name.

  Raises:
    errors.UserError: if no task has this name.
  """
  if name not in TASKS:
    raise errors.UserError(
      f'config.task={name!r}: {errors.did_you_mean(name, TASKS)}'
    )
  return TASKS[name]


def of(components: Components) -> Task:
  """The task that a method is built for."""
  return components.task or CLASSIFICATION


def check_method(
  components: Components,
  name: str,
  options: Mapping[str, Any],
  supported: Sequence[str],
) -> None:
  """Checks that a method supports the task.

  Args:
    components: components of the method.
    name: name of the method.
    options: its options; terms need classes.
    supported: names of the tasks that it supports.

  Raises:
    errors.UserError: if it does not support the task.
  """
  task = of(components)
  if task.name not in supported:
    raise errors.UserError(
      f'method {name!r} is not for config.task={task.name}: use supervised, '
      'pseudo_label_l2i or l2i'
    )
  if task is REGRESSION and options.get('terms'):
    raise errors.UserError(
      f'config.task=regression: {", ".join(options["terms"])} is about '
      'classes, take it out of the terms'
    )


def scale_of(fitted: Mapping[str, Array]) -> Array | None:
  """`Batch.scale` from the arrays stored with the normalization."""
  return fitted.get(_STD)


def view(
  components: Components, images: Array, key: Key
) -> tuple[Array, Array | None]:
  """A random view of images, and the shift of each, f32[B, 2] pixels to the
  right and down; None if labels do not shift with images.
  """
  if components.moving is None:
    return components.augment(images, key), None
  return components.moving(images, key)


def shift_labels(
  labels: Array, move: Array | None, scale: Array | None
) -> Array:
  """Labels of images that `view` shifted.

  Args:
    labels: f32[B, P] points, standardized, or labels that do not shift.
    move: f32[B, 2] pixels; None for no shift.
    scale: f32[P] pixels.
  """
  if move is None or scale is None:
    return labels
  return labels + _in_labels(move, scale)


def _in_labels(move: Array, scale: Array) -> Array:
  """Pixels f32[B, 2] as a change of standardized points f32[B, P]."""
  return jnp.tile(move, (1, scale.shape[0] // 2)) / scale[None]


def augment_labeled(
  components: Components,
  images: Array,
  labels: Array,
  scale: Array | None,
  key: Key,
) -> tuple[Array, Array]:
  """A view of images, and their labels in that view."""
  images, move = view(components, images, key)
  return images, shift_labels(labels, move, scale)


def draw_views(
  components: Components, batch: Batch, keys: Sequence[Key]
) -> Views:
  """One view of the labeled images and two of the unlabeled ones."""
  x, y = augment_labeled(components, batch.x, batch.y, batch.scale, keys[0])
  student_view, student_shift = view(components, batch.u, keys[1])
  teacher_view, teacher_shift = view(components, batch.u, keys[2])
  change = None
  if (
    student_shift is not None
    and teacher_shift is not None
    and batch.scale is not None
  ):
    change = _in_labels(student_shift - teacher_shift, batch.scale)
  return Views(x, student_view, teacher_view, y, change)


def imputed(components: Components, outputs: Array, views: Views) -> Array:
  """The targets for `views.student_view` from outputs for `views.teacher_view`:
  f32[B_u, K] probabilities, or points shifted to the other crop.
  """
  target = of(components).target(outputs)
  return target if views.change is None else target + views.change
