"""Images of any of Pillow's modes as uint8 pixels with one or three channels.

Pillow reads 16-bit color images and keeps the upper eight bits.
"""

import io
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

BACKGROUND = 255  # white, composited behind transparent pixels
# Notes on images that are converted: fact -> text.
FACTS: Mapping[str, str] = types.MappingProxyType(
  {
    'composited': 'with transparency composited on white',
    'scaled': 'of 16 bits scaled to 8',
    'dark': 'of 16 bits that use less than a sixteenth of them and lose most '
    'levels: save such images scaled to 8 or 16 bits',
    'grayed': 'converted from color to gray',
    'first_frame': 'with several frames, of which the first is read',
    'enlarged': 'smaller than the size and enlarged',
  }
)
# Key of the counts of these facts in the metadata of a prepared data set.
COUNTS = 'nsl_jax_pictures'
_WHITE = 65535  # largest 16-bit value
_STEP = _WHITE // 255
_DARK = 4096  # a camera with 12 bits stays below it


class Pixels(NamedTuple):
  """Pixels of an image.

  Attributes:
    values: u8[H, W, C].
    facts: keys of `FACTS` that apply to the image.
  """

  values: np.ndarray
  facts: tuple[str, ...] = ()


def decode(content: bytes, channels: int) -> Pixels:
  """The pixels of an image file.

  Args:
    content: bytes of the file.
    channels: 1 for gray, 3 for color.

  Raises:
    ValueError: the reason why the file cannot be read, on one line.
  """
  from PIL import Image

  with reasons(), Image.open(io.BytesIO(content)) as picture:
    return pixels(picture, channels)


@contextmanager
def reasons() -> Iterator[None]:
  """Raises why Pillow cannot read a file as a `ValueError` of one line."""
  from PIL import Image, UnidentifiedImageError

  try:
    yield
  except UnidentifiedImageError as error:  # its text has a path or an address
    raise ValueError('no image of a known format') from error
  except Image.DecompressionBombError as error:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
    raise ValueError(
      f'more than {limit} megapixels: make it smaller'
    ) from error
  except (ValueError, MemoryError):
    raise
  except Exception as error:  # Pillow raises many types for a damaged file.
    if isinstance(error, OSError) and error.strerror:  # cannot be opened
      raise ValueError(error.strerror) from error
    lines = str(error).splitlines() or [type(error).__name__]
    raise ValueError(f'damaged image: {lines[0]}') from error


def pixels(picture: Any, channels: int) -> Pixels:
  """The pixels of a Pillow image.

  Scales 16 bits to 8 and composites transparent pixels on `BACKGROUND`.

  Args:
    picture: image of any mode.
    channels: 1 for gray, 3 for color.

  Raises:
    ValueError: if the value of white is unknown.
  """
  if picture.mode == 'F':
    raise ValueError(
      'pixels are floating-point numbers (mode F) without a known white '
      'level: save the image with 8 or 16 bits'
    )
  if picture.mode.startswith('I'):
    return _of_16_bits(picture, channels)
  facts: tuple[str, ...] = ()
  # Read before decoding, since 16-bit color has no separate mode.
  deep = any(';16' in str(tile[3]) for tile in getattr(picture, 'tile', ()))
  if picture.has_transparency_data:
    picture, facts = _on_background(picture)
  if deep:
    facts += ('scaled',)
  mode = 'L' if channels == 1 else 'RGB'
  if picture.mode != mode:
    picture = picture.convert(mode)
  values = np.asarray(picture)
  return Pixels(values.reshape(*values.shape[:2], channels), facts)


def counted(facts: Mapping[str, int]) -> list[str]:
  """Texts with the number of images for each fact."""
  return [
    f'{count:,} image{"s" * (count > 1)} {FACTS[fact]}'
    for fact, count in facts.items()
    if count and fact in FACTS
  ]


def _of_16_bits(picture: Any, channels: int) -> Pixels:
  values = np.asarray(picture).astype(np.int64)
  low, high = values.min(), values.max()
  if low < 0 or high > _WHITE:
    raise ValueError(
      f'pixels lie in [{low}, {high}] (mode {picture.mode}), outside [0, '
      f'{_WHITE}]: save the image with 8 or 16 bits'
    )
  gray = ((values + _STEP // 2) // _STEP).astype(np.uint8)
  hidden = values == picture.info.get('transparency')
  gray[hidden] = BACKGROUND
  facts = ('scaled',) + ('dark',) * bool(0 < high < _DARK)
  if hidden.any():
    facts = 'composited', *facts
  return Pixels(gray[..., None].repeat(channels, axis=2), facts)


def _on_background(picture: Any) -> tuple[Any, tuple[str, ...]]:
  """The picture without transparency, and whether it had any."""
  from PIL import Image

  gray = picture.mode in ('1', 'L', 'LA', 'La')
  values = np.asarray(picture.convert('LA' if gray else 'RGBA'), np.uint16)
  color, alpha = values[..., :-1], values[..., -1:]
  mixed = (alpha * color + (255 - alpha) * BACKGROUND + 127) // 255
  composite = Image.fromarray(
    mixed.astype(np.uint8)[..., 0 if gray else slice(3)]
  )
  return composite, ('composited',) if (alpha < 255).any() else ()
