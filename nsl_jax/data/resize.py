"""Pictures of any size and shape as images of one."""

import os
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from nsl_jax import progress
from nsl_jax.data import pictures

FITS = ('crop', 'pad')
_TOGETHER = 256  # files that are given to the threads at once
_THUMBNAIL = 320  # pixels of the longer side
PADDING = 128  # gray, of the borders that `pad` adds


class Form(NamedTuple):
  """What every picture of a data set is made into.

  Attributes:
    height: of the image, in pixels.
    width: of the image.
    channels: 1 for gray, 3 for color.
    fit: `crop` resizes the picture to cover the image and cuts what is left
      over on both sides, `pad` resizes it to lie inside and adds gray borders.
  """

  height: int
  width: int
  channels: int
  fit: str = 'crop'

  @property
  def shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return self.height, self.width, self.channels


class Placement(NamedTuple):
  """Where an image lies in its picture, both measured in pixels.

  Attributes:
    scale_x: pixels of the picture in one pixel of the image, along a row.
    scale_y: the same along a column.
    left: the picture's x at the left border of the image.
    top: the picture's y at its top.
  """

  scale_x: float
  scale_y: float
  left: float
  top: float

  def to_picture(self, points: np.ndarray) -> np.ndarray:
    """Points f[..., 2] (x, y) of the image as points of the picture.

    A point is the center of a pixel, as in the image's pixel (0, 0).
    """
    scale = np.array([self.scale_x, self.scale_y])
    return (points + 0.5) * scale + np.array([self.left, self.top]) - 0.5


class Image(NamedTuple):
  """A picture in the form of its data set.

  Attributes:
    values: u8[H, W, C].
    facts: keys of `pictures.FACTS` that hold for it.
    placement: where the image lies in the picture.
  """

  values: np.ndarray
  facts: tuple[str, ...]
  placement: Placement


def upright_size(picture: Any) -> tuple[int, int]:
  """Width and height of a picture once its EXIF orientation is applied."""
  if picture.format == 'TIFF':  # which Pillow may turn itself, when it is read
    picture.load()
  width, height = picture.size
  return (height, width) if _orientation(picture) >= 5 else (width, height)


def _orientation(picture: Any) -> int:
  """The EXIF orientation, 1 to 8; 1 (upright) where it cannot be read."""
  try:
    value = picture.getexif().get(0x0112, 1)
  except Exception:  # damaged EXIF data say nothing about the pixels
    return 1
  return value if value in range(1, 9) else 1


def read(path: Any, form: Form) -> Image:
  """Reads an image file in the given form.

  The first frame of an animation is read, EXIF orientation is applied,
  transparent pixels show white, and 16 bits are scaled to 8.

  Args:
    path: of the file, or a binary file object.
    form: of the result.

  Raises:
    ValueError: why it cannot be read, on one line.
  """
  import PIL.Image

  with pictures.reasons(), PIL.Image.open(path) as picture:
    return fit(picture, form)


def thumbnail(path: Any) -> Any:
  """A picture of Pillow's that shows an image file, no larger than 320 pixels.

  It is read as `read` does, but keeps its shape.

  Raises:
    OSError: if it cannot be opened.
    ValueError: if it cannot be read.
  """
  import PIL.Image

  with PIL.Image.open(path) as picture:
    width, height = upright_size(picture)
    scale = min(1.0, _THUMBNAIL / max(width, height))
    form = Form(max(1, round(height * scale)), max(1, round(width * scale)), 3)
    return PIL.Image.fromarray(fit(picture, form).values)


def num_threads() -> int:
  """Threads that decode: the cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def read_all(
  paths: Sequence[Any], form: Form, *, title: str
) -> Iterator[Image | str]:
  """Each file as `read` gives it, or why it cannot be read, in order; by
  threads, with a bar of that title.
  """

  def read_one(path: Any) -> Image | str:
    try:
      return read(path, form)
    except ValueError as error:
      return str(error)
    except MemoryError:
      return 'too large for the memory'

  with (
    futures.ThreadPoolExecutor(num_threads()) as pool,
    progress.progress(
      total=len(paths), desc=title, unit='image', delay=2.0
    ) as bar,
  ):
    for start in range(0, len(paths), _TOGETHER):
      some = paths[start : start + _TOGETHER]
      yield from pool.map(read_one, some)
      bar.update(len(some))


def fit(picture: Any, form: Form) -> Image:
  """A picture of Pillow's in the given form; may change the picture.

  Raises:
    ValueError: if it is not known which of its values is white.
  """
  from PIL import ImageOps

  facts: tuple[str, ...] = ()
  if getattr(picture, 'n_frames', 1) > 1:
    facts += ('first_frame',)
    picture.seek(0)
  gray = is_gray(picture)
  deep = any(';16' in str(tile[3]) for tile in getattr(picture, 'tile', ()))
  size = upright_size(picture)
  if picture.format == 'JPEG':  # decoded at a fraction of a much larger size
    side = 2 * max(form.height, form.width)
    picture.draft(None, (side, side))
  if _orientation(picture) > 1:
    picture = ImageOps.exif_transpose(picture)
  decoded_image = pictures.pixels(picture, form.channels)
  facts += decoded_image.facts
  if deep and 'scaled' not in facts:  # which the turned picture has forgotten
    facts += ('scaled',)
  if form.channels == 1 and not gray:
    facts += ('grayed',)
  values, placement = _place(decoded_image.values, size, form)
  if placement.scale_x < 1 or placement.scale_y < 1:
    facts += ('enlarged',)
  return Image(values, facts, placement)


def is_gray(picture: Any) -> bool:
  """Whether a picture is gray by its mode or by its palette."""
  if picture.mode == 'P':
    palette = np.array(picture.getpalette('RGB') or []).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())
  return picture.mode[:1] in ('1', 'L', 'I', 'F')


def _place(
  values: np.ndarray, size: tuple[int, int], form: Form
) -> tuple[np.ndarray, Placement]:
  """Resizes u8[h, w, C], which shows a picture of `size` (width, height)."""
  width, height = size
  scales = width / form.width, height / form.height
  if form.fit == 'crop':
    scale = min(scales)  # pixels of the picture in one of the image
    seen_w, seen_h = scale * form.width, scale * form.height
    # One of them is 0, or a rounding error below it.
    left, top = max(0.0, (width - seen_w) / 2), max(0.0, (height - seen_h) / 2)
    box = (left, top, left + seen_w, top + seen_h)
    image = _resized(values, (form.width, form.height), box, size)
    return image, Placement(scale, scale, left, top)
  scale = max(scales)
  inner = max(1, round(width / scale)), max(1, round(height / scale))
  image = np.full(form.shape, PADDING, np.uint8)
  # Rounded as by Pillow's ImageOps.pad.
  x, y = (round((a - b) / 2) for a, b in zip((form.width, form.height), inner))
  full_box = (0.0, 0.0, float(width), float(height))
  image[y : y + inner[1], x : x + inner[0]] = _resized(
    values, inner, full_box, size
  )
  scale_x, scale_y = width / inner[0], height / inner[1]
  return image, Placement(scale_x, scale_y, -x * scale_x, -y * scale_y)


def _resized(
  values: np.ndarray,
  size: tuple[int, int],
  box: tuple[float, float, float, float],
  picture_size: tuple[int, int],
) -> np.ndarray:
  """A box of u8[h, w, C] at `size`; the box counts pixels of `picture_size`."""
  import PIL.Image

  height, width, channels = values.shape
  if (width, height) == size == picture_size:
    return values
  x, y = width / picture_size[0], height / picture_size[1]  # a draft is smaller
  right, bottom = min(box[2] * x, width), min(box[3] * y, height)
  box = (box[0] * x, box[1] * y, right, bottom)
  picture = PIL.Image.fromarray(values[..., 0] if channels == 1 else values)
  picture = picture.resize(size, PIL.Image.Resampling.BICUBIC, box=box)
  return np.asarray(picture).reshape(size[1], size[0], channels)
