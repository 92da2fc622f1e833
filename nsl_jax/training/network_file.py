"""What a network needs beside its weights: classes, image form, normalization.

Kept with every seed, so that a run predicts without its training data.
"""

import io
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from nsl_jax import errors, files
from nsl_jax.data import resize
from nsl_jax.training import workdir as workdir_lib

_FACTS, _ARRAYS = 'network.json', 'normalization.npz'
_UNREADABLE = OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile


class Facts(NamedTuple):
  """What a network needs beside its weights.

  Attributes:
    task: `classification` or `regression`.
    outputs: K classes, or P coordinates.
    classes: names of the classes; () for points.
    image_shape: (H, W, C); (1, 1, D) for features.
    fit: how a picture of another shape becomes an image, see `resize.Form`.
    normalize: kind of normalization.
    arrays: of the normalization and of the task.
    num_images: number of training images, the length of some methods' tables.
  """

  task: str
  outputs: int
  classes: tuple[str, ...]
  image_shape: tuple[int, int, int]
  fit: str
  normalize: str
  arrays: Mapping[str, np.ndarray]
  num_images: int = 0

  @property
  def form(self) -> resize.Form:
    """What pictures are made into."""
    height, width, channels = self.image_shape
    return resize.Form(height, width, channels, self.fit)

  @property
  def of_features(self) -> bool:
    """Whether the inputs are features and no pictures."""
    return self.image_shape[:2] == (1, 1)


def exists(folder: files.Path) -> bool:
  """Whether a folder has them."""
  return (folder / _FACTS).exists()


def write(folder: files.Path, facts: Facts) -> None:
  """Writes both files; only process 0 does."""
  if jax.process_index():
    return
  buffer = io.BytesIO()
  arrays = {name: np.asarray(array) for name, array in facts.arrays.items()}
  np.savez(buffer, **arrays)  # type: ignore[arg-type]
  files.write(folder / _ARRAYS, buffer.getvalue())
  content = {k: v for k, v in facts._asdict().items() if k != 'arrays'}
  workdir_lib.write_json(folder / _FACTS, content)


def read(folder: files.Path) -> Facts:
  """Reads both files.

  Raises:
    errors.UserError: if they are missing or damaged.
  """
  path = folder / _FACTS
  if not path.exists():
    raise errors.UserError(
      f'{folder} has no {_FACTS}: it is not a seed of a run, or the run was '
      'made by a version that cannot predict; use a new --workdir'
    )
  content = workdir_lib.read_json(path)
  try:
    with np.load(io.BytesIO((folder / _ARRAYS).read_bytes())) as file:
      arrays = {name: file[name] for name in file.files}
    for name in ('classes', 'image_shape'):
      content[name] = tuple(content[name])
    return Facts(**content, arrays=arrays)
  except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    zipfile.BadZipFile,
  ) as error:
    raise errors.UserError(
      f'{folder / _ARRAYS} or {path.name} is damaged ({error}): restore it or '
      'train the seed in a new --workdir'
    ) from error
