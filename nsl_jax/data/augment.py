"""Random views of normalized images, inside the jitted step."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nsl_jax import errors
from nsl_jax.types import Array, Augment, Key, Moving

AUGMENT = 'augment'  # name of views in a profile
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


class Pixels(NamedTuple):
  """The way from normalized images to [0, 1] and back."""

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

  >>> translate(jnp.ones((1, 4, 4, 1)), jax.random.key(0), pixels=2).shape
  (1, 4, 4, 1)
  """
  return shift(images, key, pixels=pixels)[0]


def shift(images: Array, key: Key, *, pixels: int) -> tuple[Array, Array]:
  """`translate`, and how far: f32[B, 2] pixels to the right and down."""
  offset = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1)
  view = _moved(images, offset, (pixels, pixels), f'translate:{pixels}')
  return view, (pixels - offset[:, ::-1]).astype(jnp.float32)


def translate_x(images: Array, key: Key, *, pixels: int) -> Array:
  """`translate` to the left or right only; `pixels` less than W (F-D15)."""
  columns = jax.random.randint(key, (images.shape[0],), 0, 2 * pixels + 1)
  offset = jnp.stack([jnp.zeros_like(columns), columns], axis=1)
  return _moved(images, offset, (0, pixels), f'translate_x:{pixels}')


def _moved(
  images: Array, offset: Array, pad: tuple[int, int], step: str
) -> Array:
  """Crops at `offset` i32[B, 2] of images that are reflected at the borders.

  `step` is what a message calls it.
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
  """Turns the hue of RGB images, keeping HSV's saturation and value.

  Args:
    images: f32[B, H, W, 3] in [0, 1].
    turns: f32[B, 1, 1, 1], of the whole circle.
  """
  value = images.max(-1, keepdims=True)
  chroma = value - images.min(-1, keepdims=True)
  red, green, blue = jnp.split(images, 3, axis=-1)
  gray = chroma == 0.0  # has no hue, and must not give 0 / 0 in a gradient
  unit = jnp.where(gray, 1.0, chroma)
  # Not `value == red`: a compiler may compute a channel twice, and round it
  # differently.
  sixths = jnp.where(
    (red >= green) & (red >= blue),
    (green - blue) / unit,
    jnp.where(
      green >= blue, 2.0 + (blue - red) / unit, 4.0 + (red - green) / unit
    ),
  )
  # A channel is `value` less what of `chroma` the distance to its own hue
  # takes away.
  own = jnp.array([5.0, 3.0, 1.0]).reshape(1, 1, 1, 3)
  away = (own + sixths + 6.0 * turns) % 6.0
  return value - chroma * jnp.clip(jnp.minimum(away, 4.0 - away), 0.0, 1.0)


def recolor(images: Array, amounts: Array, order: Array) -> Array:
  """Brightness, contrast, saturation and hue, each changed once.

  The first three blend an image with black, with the mean of its gray levels,
  and with its gray levels; an amount of 1 changes nothing.

  Args:
    images: f32[B, H, W, 3] in [0, 1].
    amounts: f32[B, 4], three factors and a part of the circle.
    order: i32[B, 4], which of the four is changed first, second ...

  Returns:
    f32[B, H, W, 3] in [0, 1].
  """
  luma = jnp.array([0.299, 0.587, 0.114]).reshape(1, 1, 1, 3)
  for place in range(4):
    which = order[:, place].reshape(-1, 1, 1, 1)
    amount = jnp.take_along_axis(amounts, order[:, place : place + 1], axis=1)
    amount = amount.reshape(-1, 1, 1, 1)
    gray = (images * luma).sum(-1, keepdims=True)
    other = jnp.where(
      which == _SATURATION, gray, gray.mean((1, 2), keepdims=True)
    )
    other = jnp.where(which == _BRIGHTNESS, 0.0, other)
    blend = jnp.clip(amount * images + (1.0 - amount) * other, 0.0, 1.0)
    images = jnp.where(which == _HUE, turn_hue(images, amount), blend)
  return images


def draw_jitter(
  key: Key, count: int, strengths: tuple[float, float, float, float]
) -> tuple[Array, Array]:
  """Amounts and orders of `recolor` for each of `count` images.

  Factors are uniform in 1 - s ... 1 + s, but not below 0, the hue's turn in
  -s ... s; all 24 orders are equally likely.
  """
  sizes, places = jax.random.split(key)
  center = jnp.array([1.0, 1.0, 1.0, 0.0])
  strength = jnp.array(strengths)
  low = center - strength
  low = low.at[:_HUE].set(jnp.maximum(low[:_HUE], 0.0))
  share = jax.random.uniform(sizes, (count, 4))
  amounts = low[None] + share * (center + strength - low)[None]
  return amounts, jax.random.uniform(places, (count, 4)).argsort(axis=1)


def jitter(
  images: Array,
  key: Key,
  *,
  strengths: tuple[float, float, float, float],
  pixels: Pixels,
) -> Array:
  """Color jitter: `recolor` by amounts and in an order drawn per image.

  Args:
    images: f32[B, H, W, 3], normalized.
    key: typed key.
    strengths: of brightness, contrast, saturation and hue.
    pixels: the way to [0, 1], where it works and clips, and back.

  Raises:
    errors.UserError: for images without colors.
  """
  if images.shape[-1] != 3:
    raise errors.UserError(
      f'jitter needs images of 3 channels, not {images.shape[-1]}: leave it '
      'out of config.data.augment and config.data.strong'
    )
  unit = jnp.clip(pixels.unit(images), 0.0, 1.0)
  drawn = draw_jitter(key, images.shape[0], strengths)
  return pixels.normalized(recolor(unit, *drawn))


GetPixels = Callable[[], Pixels] | None


class Operation(NamedTuple):
  """A kind of augmentation, as a config names it.

  Attributes:
    usage: how it is written.
    parse: `(what follows the colon, way to colors) -> Augment`; raises
      ValueError for a value that it cannot have.
    shifts: the same for a view that tells how far it moved each image; None
      where points stay, or do not follow.
    moves: whether images move, and points would have to follow.
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
  if pixels is None:
    raise errors.UserError(
      'jitter changes colors, and these images have none: leave it out of '
      'config.data.augment and config.data.strong'
    )
  strengths = brightness, contrast, saturation, hue
  return functools.partial(jitter, strengths=strengths, pixels=pixels())


# Another augmentation is one more entry.
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
}


def _of_function(module: str, name: str) -> Operation:
  """A function `(images f32[B, H, W, C], key) -> images` of anybody's."""
  function = getattr(errors.import_module(module, 'augmentation'), name, None)
  if function is None:
    raise errors.UserError(f'module {module} has no function {name!r}')
  return Operation(f'{module}:{name}', lambda *_: function, moves=True)


def _parse(
  steps: str, field: str
) -> Iterator[tuple[str, Operation, str, errors.UserError]]:
  """Each step, its operation, its value, and the error for a wrong value."""
  usages = ', '.join(one.usage for one in OPERATIONS.values())
  for step in filter(None, (step.strip() for step in steps.split(','))):
    name, colon, value = step.partition(':')
    wrong = errors.UserError(
      f'{field}: {step!r} is none of {usages} (a hue of at most 0.5), nor '
      'package.module:function'
    )
    if name in OPERATIONS and bool(value) == bool(colon):
      yield step, OPERATIONS[name], value, wrong
    elif '.' in name and value:
      yield step, _of_function(name, value), value, wrong
    else:
      raise wrong


def build(
  steps: str, *, field: str = 'config.data.augment', pixels: GetPixels = None
) -> Augment:
  """The view that a list such as `flip,translate:2,noise:0.15` describes.

  Args:
    steps: names with their strength, comma-separated, in order; '' for none.
      `package.module:function` is a function of images and a key.
    field: what messages call it.
    pixels: the way to [0, 1] and back, called if a step needs one.

  Raises:
    errors.UserError: for a step that does not exist.
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
  """`build` for images whose labels are points: the same view, and by how far
  it moved each image, f32[B, 2] pixels to the right and down.

  Raises:
    errors.UserError: for a step that does not exist, or after which nobody
      could tell where a point is.
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
