"""USPS digits as a TFDS builder that reads usps.h5 and needs no TensorFlow."""

import importlib.util
import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from nsl_jax import errors
from nsl_jax.data import manual, versions

FILE = 'usps.h5'
_SIDE = 16  # The images are 16x16, stored as rows of 256.


class Usps(tfds.core.GeneratorBasedBuilder):
  """USPS handwritten digits: 7,291 for training and 2,007 for testing.

  Reads `usps.h5` from TFDS's manual folder: groups `train` and `test`, each
  with `data` f32[n, 256] in [0, 1], row by row, and `target` int[n]. The
  examples are in the order of the file.
  """

  VERSION = tfds.core.Version(versions.MADE['usps'])
  RELEASE_NOTES = {
    '1.0.0': 'Initial release.',
    '1.1.0': 'Pixels are rounded down, not to the nearest number.',
  }
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'Put {FILE} into the manual folder.'

  def _info(self) -> tfds.core.DatasetInfo:
    """Image uint8[16, 16, 1], kept as PNG, and label in [0, 10)."""
    return tfds.core.DatasetInfo(
      builder=self,
      description='Handwritten digits from US Postal Service envelopes.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(_SIDE, _SIDE, 1)),
          'label': tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=('image', 'label'),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    """One generator for each group of the file."""
    path = dl_manager.manual_dir / FILE
    return {
      split: self._generate_examples(path, split) for split in ('train', 'test')
    }

  def _generate_examples(
    self, path: pathlib.Path, split: str
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row, example) with PNG bytes: arrays would need TensorFlow."""
    import h5py

    with h5py.File(path) as file:
      data = file[split]['data'][:]
      labels = file[split]['target'][:]
    if data.min() < 0 or data.max() > 1 or len(data) != len(labels):
      raise ValueError(f'{split}: data must lie in [0, 1], one target for each')
    # Rounded down, as in the released code of the domain adaptation (F-D17).
    pixels = (data * 255).astype(np.uint8)
    for row, image in enumerate(pixels.reshape(-1, _SIDE, _SIDE)):
      yield row, {'image': _png(image), 'label': int(labels[row])}


def prepare(data_dir: pathlib.Path, cache_dir: pathlib.Path) -> pathlib.Path:
  """Writes the data set in array_record form, see `manual.build`.

  Raises:
    UserError: the file or h5py is missing, or the file is malformed.
  """
  folder = manual.folder(data_dir)
  path = folder / FILE
  if not path.is_file():
    raise errors.UserError(
      f'usps is not in {data_dir}; put {FILE} (groups train and test, each '
      f'with data float32 (n, 256) in [0, 1] and target) into {folder}, '
      f'then run: python -m nsl_jax data --prepare usps --data_dir {data_dir}'
    )
  if importlib.util.find_spec('h5py') is None:
    raise errors.UserError(f'{path} needs h5py: pip install h5py')
  return manual.build(Usps, [path], data_dir, cache_dir)


def _png(image: np.ndarray) -> io.BytesIO:
  """Encodes uint8[H, W] as a PNG file in memory."""
  from PIL import Image

  file = io.BytesIO()
  Image.fromarray(image).save(file, format='PNG')
  file.seek(0)
  return file
