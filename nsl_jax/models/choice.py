"""Which network images of a size get where nobody names one."""

from typing import Any, NamedTuple

_LARGE = 64  # shorter side up to which maps of the full size are affordable
_FOUR_STAGES = 48  # above it three stages of wide_resnet leave a map over 12x12
_WIDE = 24  # from here on
_GRAY = 32
_LEAST = 4  # side that small_cnn takes


class Choice(NamedTuple):
  """A network for images of one size.

  Attributes:
    name: a key of `models.NETWORKS`.
    options: those of its options that are not the default.
    reason: why, in one line.
  """

  name: str
  options: dict[str, Any]
  reason: str


def choose(image_shape: tuple[int, int, int]) -> Choice:
  """The network for images of that size.

  Args:
    image_shape: (H, W, C); features are (1, 1, C).

  >>> name, options, reason = choose((64, 64, 3))
  >>> name, options
  ('wide_resnet', {'stages': 4})
  >>> choose((1, 1, 20)).reason
  'mlp for vectors of 20 features'
  """
  height, width, channels = image_shape
  side = min(height, width)
  size = f'{height}x{width}x{channels}'
  if height == width == 1:
    return Choice('mlp', {}, f'mlp for vectors of {channels} features')
  if side < _LEAST:
    reason = f'mlp for {size} images, too narrow to convolve'
    return Choice('mlp', {}, reason)
  if side > _LARGE:
    reason = f'resnet18 for {size} images, whose sides are above {_LARGE}'
    return Choice('resnet18', {}, reason)
  if side < _WIDE:
    reason = f'small_cnn for {size} images, of a side below {_WIDE}'
    return Choice('small_cnn', {}, reason)
  if channels == 1 and side <= _GRAY:
    return Choice('small_cnn', {}, f'small_cnn for gray {size} images')
  if side > _FOUR_STAGES:
    reason = f'wide_resnet of four stages for {size} images'
    return Choice('wide_resnet', {'stages': 4}, reason)
  return Choice('wide_resnet', {}, f'wide_resnet for {size} images')
