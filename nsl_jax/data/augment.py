"""Random views of normalized images, inside the jitted step."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nsl_jax import errors, references
from nsl_jax.data import randaugment as randaugment_lib
from nsl_jax.types import Array, Augment, Key, Moving

AUGMENT = 'augment'  # scope of augmentation in a profile
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


class Pixels(NamedTuple):
  """Conversion of normalized images to [0, 1] and back."""

  unit: Callable[[Array], Array]
  normalized: Callable[[Array], Array]


def flip(images: Array, key: Key) -> Array:
  """Mirrors each image left to right with probability one half.

  >>> images = jnp.arange(2.0).reshape(1, 1, 2, 1)
  >>> flip(images, jax.random.key(0)).ravel().tolist() in ([0, 1], [1, 0])
  True
  """
  mirrored = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
  return jnp.where(mirrored, images[:, :, ::-1], images)


def translate(images: Array, key: Key, *, pixels: int) -> Array:
  """Shifts each image by whole pixels, reflecting at the borders.

  The shift is uniform over -pixels ... pixels on each axis, which is the same
  as reflect-padding by `pixels` and cropping at random.

  Args:
    images: f32[B, H, W, C].
    key: typed key.
    pixels: largest shift; less than H and W.

  Returns:
    f32[B, H, W, C].

  Raises:
    errors.UserError: if the images are too small for the reflection.

  >>> translate(jnp.ones((1, 4, 4, 1)), jax.random.key(0), pixels=2).shape
  (1, 4, 4, 1)
  """
  return shift(images, key, pixels=pixels)[0]


def shift(images: Array, key: Key, *, pixels: int) -> tuple[Array, Array]:
  """`translate`, and the shift: f32[B, 2] pixels to the right and down."""
  offset = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1)
  view = _moved(images, offset, (pixels, pixels), f'translate:{pixels}')
  return view, (pixels - offset[:, ::-1]).astype(jnp.float32)


def translate_x(images: Array, key: Key, *, pixels: int) -> Array:
  """`translate` to the left or right only; `pixels` less than W.

  DNLL's strong view of SVHN, whose size the paper does not state (F-D15).
  """
  columns = jax.random.randint(key, (images.shape[0],), 0, 2 * pixels + 1)
  offset = jnp.stack([jnp.zeros_like(columns), columns], axis=1)
  return _moved(images, offset, (0, pixels), f'translate_x:{pixels}')


def _moved(
  images: Array, offset: Array, pad: tuple[int, int], step: str
) -> Array:
  """Crops at `offset` i32[B, 2] of images that are reflected at the borders.

  `step` names the operation in messages.
  """
  shape = images.shape[1:]
  if pad[0] >= shape[0] or pad[1] >= shape[1]:
    raise errors.UserError(
      f'{step} is too far for images of {shape[0]}x{shape[1]}: move them '
      'less in config.data.augment and config.data.strong'
    )
  widths = ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0))
  padded = jnp.pad(images, widths, mode='reflect')

  def crop(image: Array, at: Array) -> Array:
    return jax.lax.dynamic_slice(image, (at[0], at[1], 0), shape)

  return jax.vmap(crop)(padded, offset)


def noise(images: Array, key: Key, *, std: float) -> Array:
  """Adds N(0, std^2) to every value.

  >>> noise(jnp.ones((1, 2, 2, 1)), jax.random.key(0), std=0.0).mean()
  Array(1., dtype=float32)
  """
  return images + std * jax.random.normal(key, images.shape, images.dtype)


def turn_hue(images: Array, turns: Array) -> Array:
  """Rotates the hue of RGB images, keeping HSV's saturation and value.

  Args:
    images: f32[B, H, W, 3] in [0, 1].
    turns: f32[B, 1, 1, 1], fractions of the hue circle.
  """
  value = images.max(-1, keepdims=True)
  chroma = value - images.min(-1, keepdims=True)
  red, green, blue = jnp.split(images, 3, axis=-1)
  gray = chroma == 0.0  # without hue; would give 0 / 0 in a gradient
  unit = jnp.where(gray, 1.0, chroma)
  # Not `value == red`: the compiler may compute a channel twice with different
  # rounding.
  sixths = jnp.where(
    (red >= green) & (red >= blue),
    (green - blue) / unit,
    jnp.where(
      green >= blue, 2.0 + (blue - red) / unit, 4.0 + (red - green) / unit
    ),
  )
  # A channel is `value` minus a part of `chroma` that grows with the distance
  # to its hue.
  offsets = jnp.array([5.0, 3.0, 1.0], jnp.float32).reshape(1, 1, 1, 3)
  away = (offsets + sixths + 6.0 * turns) % 6.0
  return value - chroma * jnp.clip(jnp.minimum(away, 4.0 - away), 0.0, 1.0)


def recolor(images: Array, amounts: Array, order: Array) -> Array:
  """Changes brightness, contrast, saturation and hue once each.

  The first three blend an image with black, with the mean of its gray levels,
  and with its gray levels; an amount of 1 is the identity.

  Args:
    images: f32[B, H, W, 3] in [0, 1].
    amounts: f32[B, 4], three factors and a fraction of the hue circle.
    order: i32[B, 4], the order of the four changes.

  Returns:
    f32[B, H, W, 3] in [0, 1].
  """
  luma = jnp.array([0.299, 0.587, 0.114], jnp.float32).reshape(1, 1, 1, 3)
  for place in range(4):
    which = order[:, place].reshape(-1, 1, 1, 1)
    amount = jnp.take_along_axis(amounts, order[:, place : place + 1], axis=1)
    amount = amount.reshape(-1, 1, 1, 1)
    gray = (images * luma).sum(-1, keepdims=True)
    degenerate = jnp.where(
      which == _SATURATION, gray, gray.mean((1, 2), keepdims=True)
    )
    degenerate = jnp.where(which == _BRIGHTNESS, 0.0, degenerate)
    blend = jnp.clip(amount * images + (1.0 - amount) * degenerate, 0.0, 1.0)
    images = jnp.where(which == _HUE, turn_hue(images, amount), blend)
  return images


def draw_jitter(
  key: Key, count: int, strengths: tuple[float, float, float, float]
) -> tuple[Array, Array]:
  """Amounts and orders of `recolor` for each of `count` images.

  Factors are uniform in max(0, 1 - s) ... 1 + s, the rotation of the hue in
  -s ... s; all 24 orders are equally likely.
  """
  sizes, places = jax.random.split(key)
  center = jnp.array([1.0, 1.0, 1.0, 0.0], jnp.float32)
  strength = jnp.array(strengths, jnp.float32)
  low = center - strength
  low = low.at[:_HUE].set(jnp.maximum(low[:_HUE], 0.0))
  share = jax.random.uniform(sizes, (count, 4), jnp.float32)
  amounts = low[None] + share * (center + strength - low)[None]
  return amounts, jax.random.uniform(places, (count, 4)).argsort(axis=1)


def jitter(
  images: Array,
  key: Key,
  *,
  strengths: tuple[float, float, float, float],
  pixels: Pixels,
) -> Array:
  """Color jitter: `recolor` with amounts and order drawn per image.

  Args:
    images: f32[B, H, W, 3], normalized.
    key: typed key.
    strengths: of brightness, contrast, saturation and hue.
    pixels: conversion to [0, 1], where colors are changed and clipped, and
      back.

  Raises:
    errors.UserError: for gray images.
  """
  if images.shape[-1] != 3:
    raise errors.UserError(
      f'jitter needs images of 3 channels, not {images.shape[-1]}: leave it '
      'out of config.data.augment and config.data.strong'
    )
  unit = jnp.clip(pixels.unit(images), 0.0, 1.0)
  draws = draw_jitter(key, images.shape[0], strengths)
  return pixels.normalized(recolor(unit, *draws))


def randaugment(
  images: Array, key: Key, *, operations: int, pixels: Pixels
) -> Array:
  """RandAugment of FixMatch, on the images rounded to 8 bits.

  Args:
    images: f32[B, H, W, C], normalized, gray or RGB.
    key: typed key.
    operations: number of operations on each image.
    pixels: conversion to [0, 1] and back.

  Raises:
    errors.UserError: for features.
  """
  _refuse_features(images, 'randaugment')
  unit = jnp.clip(pixels.unit(images), 0.0, 1.0)
  levels = jnp.round(unit * 255.0).astype(jnp.uint8)
  levels = randaugment_lib.randaugment(levels, key, operations=operations)
  return pixels.normalized(levels.astype(jnp.float32) / 255.0)


def cutout(images: Array, key: Key, *, share: float, pixels: Pixels) -> Array:
  """A gray square on each image, whose center is any pixel (DeVries & Taylor,
  "Improved regularization of convolutional neural networks with Cutout", 2017).

  Args:
    images: f32[B, H, W, C], normalized.
    key: typed key.
    share: side of the square, as a share of the width of the image. What lies
      outside of the image is cut off.
    pixels: conversion from [0, 1], where gray is 1/2.

  Raises:
    errors.UserError: for features.

  >>> plain = Pixels(lambda images: images, lambda images: images)
  >>> images, key = jnp.ones((1, 4, 4, 1)), jax.random.key(0)
  >>> cutout(images, key, share=2.0, pixels=plain).ravel()[:3]
  Array([0.5, 0.5, 0.5], dtype=float32)
  """
  _refuse_features(images, 'cutout')
  batch, height, width, channels = images.shape
  side = round(share * width)
  limits = jnp.array([height, width])
  centers = jax.random.randint(key, (batch, 2), 0, limits[None])
  starts = centers - side // 2
  hit = [
    (place >= starts[:, axis : axis + 1])
    & (place < starts[:, axis : axis + 1] + side)
    for axis, place in enumerate(
      (jnp.arange(height)[None], jnp.arange(width)[None])
    )
  ]
  gray = pixels.normalized(jnp.full((1, 1, 1, channels), 0.5))
  inside = hit[0][:, :, None, None] & hit[1][:, None, :, None]
  return jnp.where(inside, gray, images)


def _refuse_features(images: Array, step: str) -> None:
  if images.shape[1:3] == (1, 1):
    raise errors.UserError(
      f'{step} is for images, and these are features: leave it out of '
      'config.data.augment and config.data.strong'
    )


GetPixels = Callable[[], Pixels] | None


class Operation(NamedTuple):
  """An augmentation that a config can name.

  Attributes:
    usage: its syntax.
    parse: `(text after the colon, conversion of pixels) -> Augment`; raises
      ValueError for an invalid value.
    shifts: the same for a view that also returns the shift of each image; None
      if it does not shift images, or points cannot follow.
    moves: whether it moves image content.
  """

  usage: str
  parse: Callable[[str, GetPixels], Augment]
  shifts: Callable[[str, GetPixels], Moving] | None = None
  moves: bool = False


def _whole(text: str) -> int:
  if int(text) < 0:
    raise ValueError(text)
  return int(text)


def _finite(text: str) -> float:
  if not 0.0 <= float(text) < math.inf:
    raise ValueError(text)
  return float(text)


def _flip(text: str, pixels: GetPixels) -> Augment:
  if text:
    raise ValueError(text)
  return flip


def _jitter(text: str, pixels: GetPixels) -> Augment:
  brightness, contrast, saturation, hue = map(_finite, text.split(':'))
  if hue > 0.5:
    raise ValueError(text)
  strengths = brightness, contrast, saturation, hue
  return functools.partial(
    jitter, strengths=strengths, pixels=_needed(pixels, 'jitter')
  )


def _needed(pixels: GetPixels, step: str) -> Pixels:
  if pixels is None:
    raise errors.UserError(
      f'{step} changes colors, and these images have none: leave it out of '
      'config.data.augment and config.data.strong'
    )
  return pixels()


def _randaugment(text: str, pixels: GetPixels) -> Augment:
  operations = _whole(text)
  if not operations:
    raise ValueError(text)
  return functools.partial(
    randaugment, operations=operations, pixels=_needed(pixels, 'randaugment')
  )


def _cutout(text: str, pixels: GetPixels) -> Augment:
  share = _finite(text)
  if share > 1.0:
    raise ValueError(text)
  return functools.partial(
    cutout, share=share, pixels=_needed(pixels, 'cutout')
  )


# Add an augmentation by an entry here.
OPERATIONS: dict[str, Operation] = {
  'flip': Operation('flip', _flip, moves=True),
  'translate': Operation(
    'translate:PIXELS',
    lambda text, _: functools.partial(translate, pixels=_whole(text)),
    lambda text, _: functools.partial(shift, pixels=_whole(text)),
    moves=True,
  ),
  'translate_x': Operation(
    'translate_x:PIXELS',
    lambda text, _: functools.partial(translate_x, pixels=_whole(text)),
    moves=True,
  ),
  'noise': Operation(
    'noise:STD', lambda text, _: functools.partial(noise, std=_finite(text))
  ),
  'jitter': Operation('jitter:BRIGHTNESS:CONTRAST:SATURATION:HUE', _jitter),
  'randaugment': Operation('randaugment:OPERATIONS', _randaugment, moves=True),
  'cutout': Operation('cutout:SHARE', _cutout),
}


def _of_function(module: str, name: str) -> Operation:
  """A function `(images f32[B, H, W, C], key) -> images` of another package."""
  function = references.find(f'{module}:{name}', 'augmentation')

  def checked(images: Array, key: Key) -> Array:
    found = function(images, key)
    if (
      not isinstance(found, jax.Array)
      or found.shape != images.shape
      or not jnp.issubdtype(found.dtype, jnp.floating)
    ):
      raise errors.UserError(
        f'the augmentation {module}:{name} returns {errors.described(found)}: '
        'return images of the shape that it is given, '
        f'float32{list(images.shape)}, row by row'
      )
    return found

  return Operation(f'{module}:{name}', lambda *_: checked, moves=True)


def _parse(
  steps: str, field: str
) -> Iterator[tuple[str, Operation, str, errors.UserError]]:
  """Yields each step, its operation, its value, and the error for it."""
  usages = ', '.join(operation.usage for operation in OPERATIONS.values())
  for step in filter(None, (step.strip() for step in steps.split(','))):
    name, colon, value = step.partition(':')
    wrong = errors.UserError(
      f'{field}: {step!r} is none of {usages} (a hue of at most 0.5, a share '
      'of at most 1), nor package.module:function'
    )
    if name in OPERATIONS and bool(value) == bool(colon):
      yield step, OPERATIONS[name], value, wrong
    elif value.isidentifier():
      yield step, _of_function(name, value), value, wrong
    else:
      raise wrong


def build(
  steps: str, *, field: str = 'config.data.augment', pixels: GetPixels = None
) -> Augment:
  """The view of a list such as `flip,translate:2,noise:0.15`.

  Args:
    steps: comma-separated names with their strengths, in order; '' for none.
      `package.module:function` is a function of images and a key.
    field: its name in messages.
    pixels: returns the conversion to [0, 1] and back; called only if needed.

  Raises:
    errors.UserError: for an unknown step.
  """
  parts = []
  for _, operation, value, wrong in _parse(steps, field):
    try:
      parts.append(operation.parse(value, pixels))
    except ValueError:
      raise wrong from None

  @jax.named_scope(AUGMENT)
  def view(images: Array, key: Key) -> Array:
    for part, part_key in zip(parts, jax.random.split(key, len(parts) or 1)):
      images = part(images, part_key)
    return images

  return view


def build_moving(
  steps: str, *, field: str = 'config.data.augment', pixels: GetPixels = None
) -> Moving:
  """`build` for images whose labels are points: the same view, and the shift of
  each image, f32[B, 2] pixels to the right and down.

  Raises:
    errors.UserError: for an unknown step, or one that points cannot follow.
  """
  parts: list[tuple[Augment | None, Moving | None]] = []
  for step, operation, value, wrong in _parse(steps, field):
    try:
      if operation.shifts:
        parts.append((None, operation.shifts(value, pixels)))
      else:
        parts.append((operation.parse(value, pixels), None))
    except ValueError:
      raise wrong from None
    if operation.moves and not operation.shifts:
      raise errors.UserError(
        f'{field}: points do not follow {step}: use translate:PIXELS, noise '
        'or jitter'
      )

  @jax.named_scope(AUGMENT)
  def view(images: Array, key: Key) -> tuple[Array, Array]:
    total = jnp.zeros((images.shape[0], 2), jnp.float32)
    keys = jax.random.split(key, len(parts) or 1)
    for (still, moving), part_key in zip(parts, keys):
      if moving is not None:
        images, offset = moving(images, part_key)
        total = total + offset
      elif still is not None:
        images = still(images, part_key)
    return images, total

  return view
