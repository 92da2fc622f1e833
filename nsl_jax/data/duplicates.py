"""Detection of images that occur in two splits."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nsl_jax.data import on_demand
from nsl_jax.data.examples import Files

_EVALUATED_ON = ('validation', 'test')
IN_BOTH = 'are also'  # in a line on images in two parts
_COMPARED = 2**32  # bytes of images that are all compared with one another


def across(
  train_images: np.ndarray,
  rows: Mapping[str, np.ndarray],
  test_images: np.ndarray,
  files: Files = Files(),
) -> list[str]:
  """Finds images with identical pixels in two splits.

  Only reports pairs with validation or test images; duplicates among training
  images do not bias the error.

  Args:
    train_images: u8[N, H, W, C].
    rows: split -> i32[n], its rows of `train_images`.
    test_images: u8[M, H, W, C].
    files: paths of the images, which the lines name in place of rows.

  Returns:
    A line for each pair of splits that share images, with the number of images
    of the first split that are in the other, and the first of them.
  """
  splits = {name: hashes(train_images, chosen) for name, chosen in rows.items()}
  splits['test'] = hashes(test_images, np.arange(len(test_images)))
  names, lines = list(splits), []
  for place, other_name in enumerate(names):
    for name in names[:place]:
      if name in _EVALUATED_ON or other_name in _EVALUATED_ON:
        lines += _shared(
          name, splits[name], other_name, splits[other_name], files
        )
  return lines


def are_few(shape: Sequence[int]) -> bool:
  """Whether all images u8[N, H, W, C] are compared; otherwise the unlabeled
  ones are not.
  """
  return math.prod(shape) <= _COMPARED


def are_compared(images: np.ndarray) -> bool:
  """Whether `across` compares all of these, also the unlabeled ones."""
  if isinstance(images, on_demand.Images):
    return len(images.codes) == len(images)
  return are_few(images.shape)


def hashes(images: np.ndarray, rows: np.ndarray) -> dict[int, bytes]:
  """Row -> hash of its pixels u8[H, W, C], by row."""
  wanted = np.sort(rows).tolist()
  if isinstance(images, on_demand.Images):
    return {row: images.codes[row] for row in wanted}
  return {row: on_demand.code(images[row]) for row in wanted}


def _shared(
  name: str,
  codes: Mapping[int, bytes],
  other_name: str,
  among: Mapping[int, bytes],
  files: Files,
) -> list[str]:
  """The line for two splits, if they share images."""
  first_with = {code: row for row, code in reversed(list(among.items()))}
  twice = [row for row, code in codes.items() if code in first_with]
  if not twice:
    return []
  row = twice[0]
  pair = [_called('training', row, files.train)]
  if other_name == 'test':
    pair.append(_called('test', first_with[codes[row]], files.test))
  else:
    pair.append(_called('training', first_with[codes[row]], files.train))
  return [
    f'{len(twice):,} of the {len(codes):,} {name} images {IN_BOTH} '
    f'{other_name} images (first pair: {", ".join(pair)})'
  ]


def _called(kind: str, row: int, paths: Sequence[str]) -> str:
  return paths[row] if paths else f'{kind} row {row}'
