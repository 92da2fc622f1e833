"""Views of a config."""

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
  """The view of a config, and its strong view, or None if it has none.

  Args:
    config: the config.
    image_shape: (H, W, C).
    fitted: returns the arrays of the normalization; only called if a view has
      to invert it, since the fit may take long.

  Raises:
    errors.UserError: for an unknown step, or one unsuitable for the images.
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
  """The view of a config that also returns the shift of images, for points.

  Raises:
    errors.UserError: for a step that points cannot follow.
  """
  return augment.build_moving(
    config.data.augment, pixels=_pixels(config, fitted)
  )


def _pixels(
  config: ml_collections.ConfigDict, fitted: Fitted
) -> Callable[[], augment.Pixels]:
  """The conversion of normalized images to colors; fitted at its first use."""
  kind = config.data.normalize

  def pixels() -> augment.Pixels:
    arrays = fitted()
    return augment.Pixels(
      functools.partial(normalize.invert, kind, arrays),
      functools.partial(normalize.from_unit, kind, arrays),
    )

  return pixels
