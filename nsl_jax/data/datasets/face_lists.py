"""Lists of faces with five landmarks, in two layouts.

MTFL: one line per image with its path, x1 ... x5, y1 ... y5 and four
attributes. Jakab et al. (2018), the release that the code of L2I reads (F-L11):
one line per image with its name in the folder `output`, and a MATLAB file of
points, y first.
"""

import pathlib
import types
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from nsl_jax import errors

SIDE = 60  # side of the resized images, in whose pixels points are
POINTS = 5
MTFL: Mapping[str, str] = types.MappingProxyType(
  {'train': 'training.txt', 'test': 'testing.txt'}
)
RELEASE: Mapping[str, str] = types.MappingProxyType(
  {'train': 'aflw_train_images.txt', 'test': 'aflw_test_images.txt'}
)
_NUMBERS = 2 * POINTS + 4  # after the path in a line of MTFL


class Face(NamedTuple):
  """One line of a list.

  Attributes:
    where: file and line number, for messages.
    path: the image.
    points: f32[5, 2], x and y in pixels of a 60x60 image: left eye, right
      eye, nose, left and right corner of the mouth.
  """

  where: str
  path: pathlib.Path
  points: np.ndarray


def needed(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files of a folder's layout, those of MTFL if it has neither."""
  if not (folder / RELEASE['train']).is_file():
    return [folder / name for name in MTFL.values()]
  lists = [folder / name for name in RELEASE.values()]
  return lists + [_points_of(path) for path in lists]


def read(path: pathlib.Path) -> list[Face]:
  """The faces of a list; opens their images but does not decode them.

  Points may lie outside of their image.

  Raises:
    UserError: naming a line that is malformed, lacks an image or a point, or
      has both eyes at the same place, or an invalid MATLAB file.
  """
  lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
  numbered = [
    (f'{path}, line {number}', line.strip())
    for number, line in enumerate(lines, 1)
    if line.strip()
  ]
  if not numbered:
    raise errors.UserError(f'{path} lists no image')
  if path.name not in RELEASE.values():
    return [
      _of_mtfl(location, line, path.parent) for location, line in numbered
    ]
  points = _release_points(_points_of(path), len(numbered))
  return [
    _scaled(
      location, path.parent / 'output' / name, points_of_face, release=True
    )
    for (location, name), points_of_face in zip(numbered, points)
  ]


def _points_of(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(path.name.replace('images.txt', 'keypoints.mat'))


def _release_points(path: pathlib.Path, count: int) -> np.ndarray:
  """x and y of all images, f64[N, 5, 2]."""
  import scipy.io

  try:
    points = np.asarray(scipy.io.loadmat(path)['gt'], np.float64)
  except (
    OSError,
    KeyError,
    TypeError,
    ValueError,
    NotImplementedError,
    zlib.error,
    scipy.io.matlab.MatReadError,
  ) as error:
    reason = str(error).splitlines()[0]
    raise errors.UserError(
      f'{path}: no MATLAB file with points gt ({reason}); get it again'
    ) from error
  if points.shape != (count, POINTS, 2):
    raise errors.UserError(
      f'{path}: gt is {list(points.shape)} and should be '
      f'[{count}, {POINTS}, 2]; get it and its list again'
    )
  return points[:, :, ::-1]


def _of_mtfl(location: str, line: str, folder: pathlib.Path) -> Face:
  name, *words = line.rsplit(maxsplit=_NUMBERS)
  try:
    numbers = [float(word) for word in words]
  except ValueError:
    numbers = []
  if len(numbers) != _NUMBERS or not np.isfinite(numbers).all():
    raise errors.UserError(
      f'{location}: not a path and {_NUMBERS} numbers (x1 ... x5, y1 ... y5, '
      'four attributes); correct or remove the line'
    )
  path = folder / name.replace('\\', '/')  # MTFL's lists have Windows paths
  points = np.reshape(numbers[: 2 * POINTS], (2, POINTS)).T
  return _scaled(location, path, points, release=False)


def _scaled(
  location: str, path: pathlib.Path, points: np.ndarray, *, release: bool
) -> Face:
  """The face with its points in pixels of the resized image."""
  from PIL import Image, UnidentifiedImageError

  remedy = 'get the release again' if release else 'correct or remove the line'
  try:
    with Image.open(path) as picture:
      size = picture.size
  except (
    OSError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
  ) as error:
    missing = 'is not a readable image' if path.exists() else 'does not exist'
    raise errors.UserError(
      f'{location}: {path} {missing}; add the image, or {remedy}'
    ) from error
  absent = np.flatnonzero(no_position(points))
  if len(absent):
    if release:  # another copy of the release would lack it too
      remedy = 'remove the line, and its row of gt'
    x, y = points[absent[0]]
    raise errors.UserError(
      f'{location}: point {absent[0] + 1} of {len(points)} has no position '
      f'(x {x:g}, y {y:g}); {remedy}'
    )
  if (points[0] == points[1]).all():
    raise errors.UserError(
      f'{location}: both eyes are at the same place, so errors have no unit; '
      f'{remedy}'
    )
  scaled = points * (SIDE / np.array(size))
  return Face(location, path, scaled.astype(np.float32))


def no_position(points: np.ndarray) -> np.ndarray:
  """Whether points f[..., 2] are unknown: bool[...].

  Lists have (0, 0) or (-1, -1) for a landmark that is not visible.
  """
  finite = np.isfinite(points).all(-1)
  return ~finite | (points == 0).all(-1) | (points == -1).all(-1)
