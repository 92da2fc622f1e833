"""USPS digits as a TFDS builder that reads usps.h5 and needs no TensorFlow."""

from collections.abc import Iterator
import contextlib
import importlib.util
import io
import os
import pathlib
import sys
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from nsl_jax import errors
from nsl_jax.data import cache

FILE = 'usps.h5'
_SIDE = 16  # The images are 16x16, stored as rows of 256.


class Usps(tfds.core.GeneratorBasedBuilder):
  """USPS handwritten digits: 7,291 for training and 2,007 for testing.

  Reads `usps.h5` from TFDS's manual folder: groups `train` and `test`, each
  with `data` f32[n, 256] in [0, 1], row by row, and `target` int[n]. The
  examples keep the order of the file.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'Put {FILE} into the manual folder.'

  def _info(self) -> tfds.core.DatasetInfo:
    """Image uint8[16, 16, 1], kept as PNG, and label in [0, 10)."""
    return tfds.core.DatasetInfo(
        builder=self,
        description='Handwritten digits from US Postal Service envelopes.',
        features=tfds.features.FeaturesDict({
            'image': tfds.features.Image(shape=(_SIDE, _SIDE, 1)),
            'label': tfds.features.ClassLabel(num_classes=10),
        }),
        supervised_keys=('image', 'label'),
        disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    """One generator for each group of the file."""
    path = dl_manager.manual_dir / FILE
    return {
        split: self._generate_examples(path, split)
        for split in ('train', 'test')
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
    pixels = np.rint(data * 255).astype(np.uint8)
    for row, image in enumerate(pixels.reshape(-1, _SIDE, _SIDE)):
      yield row, {'image': _png(image), 'label': int(labels[row])}


def prepare(data_dir: pathlib.Path, cache_dir: pathlib.Path) -> pathlib.Path:
  """Writes the data set in array_record form.

  Args:
    data_dir: holds downloads/manual/usps.h5; the data set goes there too if
      the folder can be written.
    cache_dir: where it goes otherwise.

  Returns:
    The folder of the prepared data set.

  Raises:
    UserError: the file or h5py is missing, or the file is not as described.
  """
  manual_dir = data_dir / 'downloads' / 'manual'
  path = manual_dir / FILE
  if not path.is_file():
    raise errors.UserError(
        f'usps is not in {data_dir}; put {FILE} (groups train and test, each '
        f'with data float32 (n, 256) in [0, 1] and target) into {manual_dir}, '
        f'then run: python -m nsl_jax.data --prepare usps --data_dir {data_dir}'
    )
  if importlib.util.find_spec('h5py') is None:
    raise errors.UserError(f'{path} needs h5py: pip install h5py')
  target = data_dir
  if not _writable(data_dir):
    target = cache_dir / f'prepared-{cache.fingerprint([path])[:12]}'
  config = tfds.download.DownloadConfig(
      manual_dir=manual_dir, try_download_gcs=False
  )
  try:
    builder = Usps(data_dir=target, file_format='array_record')
    with contextlib.redirect_stdout(sys.stderr):
      builder.download_and_prepare(
          download_dir=target / 'downloads', download_config=config
      )
  except (OSError, KeyError, ValueError) as error:
    reason = str(error).splitlines()[0]
    raise errors.UserError(
        f'cannot prepare usps in {target} from {path} ({reason[:120]}); check '
        'that the file is whole and the folder can be written'
    ) from error
  return pathlib.Path(builder.data_dir)


def _writable(folder: pathlib.Path) -> bool:
  """Whether files may be made in `folder`; heeds its mode for root too."""
  return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


def _png(image: np.ndarray) -> io.BytesIO:
  """Encodes uint8[H, W] as a PNG file in memory."""
  from PIL import Image

  file = io.BytesIO()
  Image.fromarray(image).save(file, format='PNG')
  file.seek(0)
  return file
