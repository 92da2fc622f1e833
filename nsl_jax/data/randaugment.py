"""RandAugment of FixMatch on batches of 8-bit images, with Pillow's results.

Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency
and Confidence", 2020, list of transformations in the appendix,
https://arxiv.org/abs/2001.07685: each image gets a few of 14 operations, drawn
with replacement, each with a magnitude drawn uniformly from its range.

Every image of a batch has another operation, and computing all 14 for all
images would waste 13 of them. They are of three kinds, so that three stages
with parameters per image do any of them, and a stage that an operation does not
use has the parameters of the identity:

- a table of 256 levels per image and channel: autocontrast, brightness,
  contrast, equalize, identity, posterize, solarize;
- an affine map, by the nearest pixel, black outside: rotate, shear, translate;
- a blend with another version of the image: color (gray), sharpness (smooth).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nsl_jax.types import Array, Key


class Range(NamedTuple):
  """The range of an operation's magnitude; of no effect where both are 0."""

  low: float
  high: float


# Operation -> range. Brightness, color, contrast and sharpness are the share of
# the image in a blend; rotate is in degrees; shear and translate are shares of
# the side; posterize is the number of bits kept, rounded down; solarize is the
# level from which values are inverted.
RANGES: dict[str, Range] = {
  'autocontrast': Range(0.0, 0.0),
  'brightness': Range(0.05, 0.95),
  'color': Range(0.05, 0.95),
  'contrast': Range(0.05, 0.95),
  'equalize': Range(0.0, 0.0),
  'identity': Range(0.0, 0.0),
  'posterize': Range(4.0, 8.0),
  'rotate': Range(-30.0, 30.0),
  'sharpness': Range(0.05, 0.95),
  'shear_x': Range(-0.3, 0.3),
  'shear_y': Range(-0.3, 0.3),
  'solarize': Range(0.0, 256.0),
  'translate_x': Range(-0.3, 0.3),
  'translate_y': Range(-0.3, 0.3),
}
NAMES = tuple(RANGES)
_STAGES = ('table', 'move', 'blend')
_STAGE_OF = {
  **dict.fromkeys(RANGES, 'table'),
  **dict.fromkeys(
    ('rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y'), 'move'
  ),
  **dict.fromkeys(('color', 'sharpness'), 'blend'),
}
_LEVELS = 256
_ONE = 1 << 16  # Pillow maps pixels in fixed point with 16 bits


def randaugment(levels: Array, key: Key, *, operations: int) -> Array:
  """Applies `operations` random operations to each image, one after the other.

  Args:
    levels: u8[B, H, W, C], gray or RGB.
    key: typed key.
    operations: N.

  Returns:
    u8[B, H, W, C].
  """
  low, high = jnp.array(list(RANGES.values())).T
  for draw in jax.random.split(key, operations):
    names, sizes = jax.random.split(draw)
    which = jax.random.randint(names, levels.shape[:1], 0, len(NAMES))
    share = jax.random.uniform(sizes, levels.shape[:1])
    amount = low[which] + share * (high - low)[which]
    levels = apply(levels, which, amount)
  return levels


def apply(levels: Array, which: Array, amount: Array) -> Array:
  """One operation on each image.

  Args:
    levels: u8[B, H, W, C].
    which: i32[B], places in `NAMES`.
    amount: f32[B], magnitudes.

  Returns:
    u8[B, H, W, C].
  """
  needs = _needs(which)
  same = lambda levels, which, amount: levels
  no_table = lambda levels, which, amount: jnp.broadcast_to(
    jnp.arange(_LEVELS, dtype=jnp.uint8)[None, None],
    (levels.shape[0], levels.shape[-1], _LEVELS),
  )
  operation = which, amount
  levels = _if_needed(needs['move'], _move, same, levels, *operation)
  table = _if_needed(needs['table'], _tables, no_table, levels, *operation)
  levels = _look_up(levels, table)
  return _if_needed(needs['blend'], _blend, same, levels, *operation)


def _if_needed(
  needed: Array,
  stage: Callable[..., Array],
  otherwise: Callable[..., Array],
  *arguments: Array,
) -> Array:
  """A stage, skipped on a CPU if no image of the batch needs it.

  The condition also keeps XLA from fusing a stage into the next one, where it
  is computed anew for every use: five times as long. An accelerator would wait
  for the host to read the condition.
  """
  if jax.default_backend() != 'cpu':
    return stage(*arguments)
  result: Array = jax.lax.cond(needed, stage, otherwise, *arguments)
  return result


def _needs(which: Array) -> dict[str, Array]:
  """bool[] by stage: whether any image has an operation of that stage."""
  stage = jnp.array([_STAGES.index(_STAGE_OF[name]) for name in NAMES])[which]
  return {name: (stage == at).any() for at, name in enumerate(_STAGES)}


def _is(which: Array, name: str, axes: int = 0) -> Array:
  """bool[B, 1, ...] with `axes` axes of 1: images with this operation."""
  return (which == NAMES.index(name)).reshape((-1,) + (1,) * axes)


def _luma(levels: Array) -> Array:
  """Pillow's gray levels, i32[B, H, W, 1]."""
  if levels.shape[-1] == 1:
    return levels.astype(jnp.int32)
  # The weights 0.299, 0.587 and 0.114 in 16 bits.
  weights = jnp.array([19595, 38470, 7471]).reshape(1, 1, 1, 3)
  summed = (levels.astype(jnp.int32) * weights).sum(-1, keepdims=True)
  return (summed + (1 << 15)) >> 16


def _between(first: Array, second: Array, share: Array) -> Array:
  """Pillow's blend of levels, rounded down: `first` at a share of 0."""
  first, second = first.astype(jnp.float32), second.astype(jnp.float32)
  return (first + share * (second - first)).astype(jnp.int32)


def _tables(levels: Array, which: Array, amount: Array) -> Array:
  """The new level of each level, u8[B, C, 256]."""
  luma = _luma(levels)
  level = jnp.arange(_LEVELS, dtype=jnp.int32)[None]
  share = amount[:, None]
  mean = jnp.floor(luma.astype(jnp.float32).mean((1, 2)) + 0.5)
  bits = 8 - jnp.floor(share).astype(jnp.int32)
  inverted = jnp.where(level < share, level, _LEVELS - 1 - level)
  pick = lambda name, table, otherwise: jnp.where(
    _is(which, name, 1), table, otherwise
  )
  table = pick(
    'brightness', _between(jnp.zeros_like(level), level, share), level
  )
  table = pick('contrast', _between(mean, level, share), table)
  table = pick('posterize', (level >> bits) << bits, table)
  table = pick('solarize', inverted, table)[:, None]
  table = jnp.where(_is(which, 'autocontrast', 2), _stretch(levels), table)
  table = jnp.where(_is(which, 'equalize', 2), _equalize(levels), table)
  return table.astype(jnp.uint8)


def _stretch(levels: Array) -> Array:
  """Tables that spread the levels of each channel over 0 ... 255."""
  level = jnp.arange(_LEVELS, dtype=jnp.int32)[None, None]
  low, high = (
    extreme[:, :, None].astype(jnp.int32)
    for extreme in (levels.min((1, 2)), levels.max((1, 2)))
  )
  spread = (255 * (level - low)) // jnp.maximum(high - low, 1)
  return jnp.where(high > low, jnp.clip(spread, 0, 255), level)


def _equalize(levels: Array) -> Array:
  """Tables that make the cumulative histogram of each channel linear."""
  _, height, width, channels = levels.shape
  place = _starts(channels) + levels.astype(jnp.int32)

  def count_levels(place: Array) -> Array:
    count = jnp.zeros(channels * _LEVELS, jnp.int32)
    return count.at[place.ravel()].add(1, mode='promise_in_bounds')

  # By image, so that several devices need nothing of one another.
  count = jax.vmap(count_levels)(place).reshape(-1, channels, _LEVELS)
  top = jnp.take_along_axis(
    count, levels.max((1, 2))[:, :, None].astype(jnp.int32), axis=-1
  )
  step = (height * width - top) // 255
  before = jnp.cumsum(count, axis=-1) - count
  even = (step // 2 + before) // jnp.maximum(step, 1)
  level = jnp.arange(_LEVELS, dtype=jnp.int32)[None, None]
  return jnp.where(step > 0, jnp.minimum(even, 255), level)


def _look_up(levels: Array, table: Array) -> Array:
  """The entry of each level in the table of its image and channel."""
  batch, _, _, channels = levels.shape
  place = _starts(channels) + levels.astype(jnp.int32)
  return _gather(table.reshape(batch, channels * _LEVELS), place)


def _starts(channels: int) -> Array:
  """Where the table of each channel starts, i32[1, 1, 1, C]."""
  return jnp.arange(channels).reshape(1, 1, 1, -1) * _LEVELS


def _gather(values: Array, place: Array) -> Array:
  """Of each image the values [B, n, ...] at the places i32[B, ...].

  As a single gather from all images it would make each of several devices fetch
  those of the others.
  """
  of_image = lambda values, place: values.at[place].get(
    mode='promise_in_bounds'
  )
  gathered: Array = jax.vmap(of_image)(values, place)
  return gathered


def _fixed(value: Array) -> Array:
  """A number in fixed point."""
  return jnp.floor(value * _ONE + 0.5).astype(jnp.int32)


def _matrices(
  shape: tuple[int, ...], which: Array, amount: Array
) -> tuple[Array, ...]:
  """The maps from a pixel of the result to one of the image, in fixed point.

  Returns:
    Six of i32[B]: x' = (a x + b y + c), y' = (d x + e y + f) at whole x and y,
    whose centers are at 1/2.
  """
  _, height, width, _ = shape
  pick = lambda name, value: jnp.where(_is(which, name), value, 0.0)
  angle = jnp.deg2rad(pick('rotate', amount))
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  b, d = pick('shear_x', amount) - sin, pick('shear_y', amount) + sin
  middle_x, middle_y = width / 2, height / 2
  c = middle_x - cos * middle_x + sin * middle_y
  f = middle_y - sin * middle_x - cos * middle_y
  c = c + width * pick('translate_x', amount)
  f = f + height * pick('translate_y', amount)
  starts = c + 0.5 * (cos + b), f + 0.5 * (d + cos)
  return (
    _fixed(cos),
    _fixed(b),
    _fixed(starts[0]),
    _fixed(d),
    _fixed(cos),
    _fixed(starts[1]),
  )


def _move(levels: Array, which: Array, amount: Array) -> Array:
  """The nearest pixel under an affine map; black outside of the image."""
  batch, height, width, channels = levels.shape
  matrices = _matrices(levels.shape, which, amount)
  a, b, c, d, e, f = (part.reshape(-1, 1, 1) for part in matrices)
  x, y = jnp.arange(width)[None, None], jnp.arange(height)[None, :, None]
  column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
  inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
  place = jnp.where(inside, row * width + column, 0)
  pixels = levels.reshape(batch, height * width, channels)
  gathered = _gather(pixels, place)
  return jnp.where(inside[..., None], gathered, 0)


def _blend(levels: Array, which: Array, amount: Array) -> Array:
  """Color and sharpness; the image itself for all other operations."""
  sharpness = _is(which, 'sharpness', 3)
  blends = sharpness | _is(which, 'color', 3)
  share = jnp.where(blends, amount.reshape(-1, 1, 1, 1), 1.0)
  degenerate = jnp.where(sharpness, _smooth(levels), _luma(levels))
  return _between(degenerate, levels, share).astype(jnp.uint8)


def _smooth(levels: Array) -> Array:
  """Pillow's filter SMOOTH: rounded 3x3 means with a weight of 5 at the center,
  and the border as it was.
  """
  _, height, width, _ = levels.shape
  values = levels.astype(jnp.float32)
  summed = values
  for axis in (1, 2):
    widths = [(0, 0)] * 4
    widths[axis] = (1, 1)
    padded = jnp.pad(summed, widths)
    size = summed.shape[axis]
    before, center, after = (
      jax.lax.slice_in_dim(padded, at, at + size, axis=axis) for at in range(3)
    )
    summed = before + center + after
  mean = jnp.floor((summed + 4.0 * values) / 13.0 + 0.5)
  rows, columns = jnp.arange(height), jnp.arange(width)
  inner_rows = ((rows > 0) & (rows < height - 1)).reshape(1, -1, 1, 1)
  inner_columns = ((columns > 0) & (columns < width - 1)).reshape(1, 1, -1, 1)
  return jnp.where(inner_rows & inner_columns, mean, values)
