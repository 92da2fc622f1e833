"""Faces with five landmarks as a TFDS builder."""

import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from nsl_jax import errors
from nsl_jax.data import manual, pictures, versions
from nsl_jax.data.datasets import face_lists

FOLDER = 'aflw'  # in TFDS's manual folder
_SIDE = face_lists.SIDE


class Aflw(tfds.core.GeneratorBasedBuilder):
  """Faces from the lists in aflw/ in TFDS's manual folder, see `face_lists`.

  L2I's AFLW has 10,122 faces for training and 2,991 for testing; other releases
  differ (F-L11). The examples are in the order of the lists.
  """

  VERSION = tfds.core.Version(versions.MADE['aflw'])
  RELEASE_NOTES = {
    '1.0.0': 'Initial release.',
    '1.1.0': 'Images of 16 bits are scaled and transparent ones shown on '
    'white; a landmark without a position is refused.',
  }
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    f'Put the images and lists into {FOLDER} in the manual folder.'
  )

  def _info(self) -> tfds.core.DatasetInfo:
    """Image uint8[60, 60, 1], kept as PNG, and landmarks f32[5, 2]."""
    return tfds.core.DatasetInfo(
      builder=self,
      description='Faces with five landmarks, in 60x60 gray pixels.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(_SIDE, _SIDE, 1)),
          'landmarks': tfds.features.Tensor(
            shape=(face_lists.POINTS, 2), dtype=np.float32
          ),
        }
      ),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    """One generator for each list."""
    folder = pathlib.Path(dl_manager.manual_dir) / FOLDER
    train, test, *_ = face_lists.needed(folder)
    return {
      'train': self._generate_examples(train),
      'test': self._generate_examples(test),
    }

  def _generate_examples(
    self, path: pathlib.Path
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row, example) with PNG bytes: arrays would need TensorFlow."""
    counts = self.info.metadata.setdefault(pictures.COUNTS, {})
    for row, face in enumerate(face_lists.read(path)):
      small, facts = _small_grey(face)
      for fact in facts:
        counts[fact] = counts.get(fact, 0) + 1
      yield row, {'image': small, 'landmarks': face.points}


def prepare(data_dir: pathlib.Path, cache_dir: pathlib.Path) -> pathlib.Path:
  """Writes the data set in array_record form, see `manual.build`.

  Raises:
    UserError: a list is missing, or one of its lines is malformed.
  """
  folder = manual.folder(data_dir) / FOLDER
  files = face_lists.needed(folder)
  for path in files:
    if not path.is_file():
      needed = path.name
      if path.name in face_lists.MTFL.values():
        release = face_lists.RELEASE['train']
        needed = (
          f'the lists of the release ({release} and others), or {path.name} '
          '(a line an image: path, x1 ... x5, y1 ... y5, four attributes),'
        )
      raise errors.UserError(
        f'aflw is not in {data_dir}; put the images and {needed} '
        f'into {folder}, then run: python -m nsl_jax data --prepare aflw '
        f'--data_dir {data_dir}'
      )
  return manual.build(Aflw, files, data_dir, cache_dir)


def _small_grey(face: face_lists.Face) -> tuple[io.BytesIO, tuple[str, ...]]:
  """The resized image of a face as a PNG file, and facts of `pictures`."""
  from PIL import Image

  try:
    picture = pictures.decode(face.path.read_bytes(), 1)
  except (OSError, ValueError) as error:
    raise errors.UserError(
      f'{face.where}: {face.path} is damaged or of an unknown kind '
      f'({error}); replace the image or remove the line'
    ) from error
  small = Image.fromarray(picture.values[..., 0]).resize(
    (_SIDE, _SIDE), Image.Resampling.BILINEAR
  )
  file = io.BytesIO()
  small.save(file, format='PNG')
  file.seek(0)
  return file, picture.facts
