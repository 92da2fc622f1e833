"""The views that a config asks for, made for its images."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from nsl_jax.data import augment, normalize
from nsl_jax.types import Augment, Moving

Fitted = Callable[[], Mapping[str, Any]]


def build(
  config: ml_collections.ConfigDict,
  image_shape: tuple[int, int, int],
  fitted: Fitted,
) -> tuple[Augment, Augment | None]:
  """The view of a config, and the strong one or None if it has none.

  Args:
    config: the config.
    image_shape: (H, W, C).
    fitted: gives the arrays of the normalization; only called if a view has
      to undo it, since they may take long to fit.

  Raises:
    errors.UserError: for a step that does not exist or does not suit such
      images.
  """
  pixels = _pixels(config, fitted)
  weak = augment.build(config.data.augment, pixels=pixels)
  strong = augment.build(
    config.data.strong, field='config.data.strong', pixels=pixels
  )
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  for view in (weak, strong):
    jax.eval_shape(view, image, jax.random.key(0))
  return weak, strong if config.data.strong else None


def moving(config: ml_collections.ConfigDict, fitted: Fitted) -> Moving:
  """The view of a config together with how far it moves images, for points.

  Raises:
    errors.UserError: for a step that points do not follow.
  """
  return augment.build_moving(
    config.data.augment, pixels=_pixels(config, fitted)
  )


def _pixels(
  config: ml_collections.ConfigDict, fitted: Fitted
) -> Callable[[], augment.Pixels]:
  """The way from its normalized images to colors; fitted at its first use."""
  kind = config.data.normalize

  def pixels() -> augment.Pixels:
    arrays = fitted()
    return augment.Pixels(
      functools.partial(normalize.invert, kind, arrays),
      functools.partial(normalize.from_unit, kind, arrays),
    )

  return pixels
