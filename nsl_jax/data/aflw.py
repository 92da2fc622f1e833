"""Faces with five landmarks as a TFDS builder that reads lists as MTFL's."""

from collections.abc import Iterator
import io
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from nsl_jax import errors
from nsl_jax.data import manual

FOLDER = 'aflw'  # in TFDS's manual folder
LISTS = {'train': 'training.txt', 'test': 'testing.txt'}
SIDE = 60  # of every image once it is prepared
_POINTS = 5
_NUMBERS = 2 * _POINTS + 4  # behind a path


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


class Aflw(tfds.core.GeneratorBasedBuilder):
  """Faces listed as MTFL lists them; the papers' AFLW has 10,122 for training
  and 2,991 for testing, and MTFL's faces are others (F-L11).

  Reads aflw/training.txt and aflw/testing.txt in TFDS's manual folder: a line
  an image, its path from there, x1 ... x5, y1 ... y5 in its pixels, and four
  columns of attributes. The examples keep the order of the lists.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
      f'Put the images and {", ".join(LISTS.values())} into {FOLDER} in the '
      'manual folder.'
  )

  def _info(self) -> tfds.core.DatasetInfo:
    """Image uint8[60, 60, 1], kept as PNG, and landmarks f32[5, 2]."""
    return tfds.core.DatasetInfo(
        builder=self,
        description='Faces with five landmarks, in 60x60 grey pixels.',
        features=tfds.features.FeaturesDict({
            'image': tfds.features.Image(shape=(SIDE, SIDE, 1)),
            'landmarks': tfds.features.Tensor(
                shape=(_POINTS, 2), dtype=np.float32
            ),
        }),
        disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    """One generator for each list."""
    folder = pathlib.Path(dl_manager.manual_dir) / FOLDER
    return {
        split: self._generate_examples(folder / name)
        for split, name in LISTS.items()
    }

  def _generate_examples(
      self, path: pathlib.Path
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row, example) with PNG bytes: arrays would need TensorFlow."""
    for row, face in enumerate(read_list(path)):
      yield row, {'image': _small_grey(face), 'landmarks': face.points}


def prepare(data_dir: pathlib.Path, cache_dir: pathlib.Path) -> pathlib.Path:
  """Writes the data set in array_record form, see `manual.build`.

  Raises:
    UserError: a list is missing, or one of its lines is not as described.
  """
  folder = manual.folder(data_dir) / FOLDER
  lists = [folder / name for name in LISTS.values()]
  for path in lists:
    if not path.is_file():
      raise errors.UserError(
          f'aflw is not in {data_dir}; put the images and {path.name} (a line '
          'an image: path, x1 ... x5, y1 ... y5, four attributes) into '
          f'{folder}, then run: python -m nsl_jax.data --prepare aflw '
          f'--data_dir {data_dir}'
      )
  return manual.build(Aflw, lists, data_dir, cache_dir)


def read_list(path: pathlib.Path) -> list[Face]:
  """The faces of a list, whose images it looks at but does not decode.

  Raises:
    UserError: naming the line that is malformed, or whose image is missing or
      does not contain its points.
  """
  lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
  faces = [
      _face(line, f'{path}, line {number}', path.parent)
      for number, line in enumerate(lines, 1) if line.strip()
  ]
  if not faces:
    raise errors.UserError(f'{path} lists no image')
  return faces


def _face(line: str, where: str, folder: pathlib.Path) -> Face:
  from PIL import Image, UnidentifiedImageError

  name, *words = line.strip().rsplit(maxsplit=_NUMBERS)
  try:
    numbers = [float(word) for word in words]
  except ValueError:
    numbers = []
  if len(numbers) != _NUMBERS or not np.isfinite(numbers).all():
    raise errors.UserError(
        f'{where}: not a path and {_NUMBERS} numbers (x1 ... x5, y1 ... y5, '
        'four attributes); correct or remove the line'
    )
  path = folder / name.replace('\\', '/')  # MTFL's lists are from Windows
  try:
    with Image.open(path) as picture:
      size = picture.size
  except (OSError, UnidentifiedImageError) as error:
    missing = 'is not a readable image' if path.exists() else 'does not exist'
    raise errors.UserError(
        f'{where}: {path} {missing}; add the image or remove the line'
    ) from error
  points = np.reshape(numbers[:2 * _POINTS], (2, _POINTS)).T
  if (points < 0).any() or (points > size).any():
    raise errors.UserError(
        f'{where}: a point lies outside of the image of {size[0]}x{size[1]} '
        'pixels; correct or remove the line'
    )
  if (points[0] == points[1]).all():
    raise errors.UserError(
        f'{where}: both eyes are at the same place, so errors have no unit; '
        'correct or remove the line'
    )
  scaled = points * (SIDE / np.array(size))
  return Face(where, path, scaled.astype(np.float32))


def _small_grey(face: Face) -> io.BytesIO:
  """The image of a face, resized, as a PNG file in memory."""
  from PIL import Image

  file = io.BytesIO()
  try:
    with Image.open(face.path) as picture:
      small = picture.convert('L').resize(
          (SIDE, SIDE), Image.Resampling.BILINEAR
      )
  except OSError as error:
    raise errors.UserError(
        f'{face.where}: {face.path} is damaged ({error}); replace the image '
        'or remove the line'
    ) from error
  small.save(file, format='PNG')
  file.seek(0)
  return file
