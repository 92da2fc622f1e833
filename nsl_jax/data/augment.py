"""Random views of normalised images, inside the jitted step."""

import functools

import jax
import jax.numpy as jnp

from nsl_jax import errors
from nsl_jax.types import Array, Augment, Key


def flip(images: Array, key: Key) -> Array:
  """Mirrors each image left to right with probability one half."""
  mirrored = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
  return jnp.where(mirrored, images[:, :, ::-1], images)


def translate(images: Array, key: Key, *, pixels: int) -> Array:
  """Moves each image by whole pixels, reflecting at the borders.

  Uniform over -pixels ... pixels on either axis, which is the same as
  reflect-padding by `pixels` and cropping at random.

  Args:
    images: f32[B, H, W, C].
    key: typed key.
    pixels: largest move; less than H and W.

  Returns:
    f32[B, H, W, C].

  Raises:
    errors.UserError: if the images are too small to be reflected so far.
  """
  count, height, width, channels = images.shape
  if pixels >= min(height, width):
    raise errors.UserError(
        f'config.data.augment: translate:{pixels} is too far for images of '
        f'{height}x{width}'
    )
  pad = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
  padded = jnp.pad(images, pad, mode='reflect')
  offset = jax.random.randint(key, (count, 2), 0, 2 * pixels + 1)

  def crop(image: Array, at: Array) -> Array:
    return jax.lax.dynamic_slice(
        image, (at[0], at[1], 0), (height, width, channels)
    )

  return jax.vmap(crop)(padded, offset)


def noise(images: Array, key: Key, *, std: float) -> Array:
  """Adds N(0, std^2) to every value."""
  return images + std * jax.random.normal(key, images.shape, images.dtype)


def _parse(step: str) -> Augment:
  name, _, value = step.partition(':')
  try:
    if step == 'flip':
      return flip
    if name == 'translate' and int(value) >= 0:
      return functools.partial(translate, pixels=int(value))
    if name == 'noise' and 0.0 <= float(value) < float('inf'):
      return functools.partial(noise, std=float(value))
  except ValueError:
    pass
  raise errors.UserError(
      f'config.data.augment: {step!r} is none of flip, translate:PIXELS, '
      'noise:STD'
  )


def build(steps: str) -> Augment:
  """The view that a list such as `flip,translate:2,noise:0.15` describes.

  Args:
    steps: names with their strength, comma-separated, in order; '' for none.

  Raises:
    errors.UserError: for a step that does not exist.
  """
  parts = [_parse(step.strip()) for step in steps.split(',') if step.strip()]

  def view(images: Array, key: Key) -> Array:
    for part, part_key in zip(parts, jax.random.split(key, len(parts) or 1)):
      images = part(images, part_key)
    return images

  return view
