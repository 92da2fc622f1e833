"""Metadata of the images and labels of a prepared data set."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from nsl_jax import errors
from nsl_jax.data import pictures

# Stored channels, possibly with transparency -> channels that are read.
_CHANNELS = {1: 1, 2: 1, 3: 3, 4: 3}
_DTYPES = ('uint8', 'uint16')

Features = Mapping[str, Any]  # name -> its part of features.json


def image(folder: pathlib.Path, features: Features) -> tuple[int, bool]:
  """The number of channels, 1 or 3, and whether the images are JPEG files.

  Raises:
    UserError: the kind of image is not supported.
  """
  feature = _feature(folder, features, 'image', 'image', 'Image')
  dtype = feature.get('dtype', 'uint8')
  if dtype not in _DTYPES:
    raise _wrong(folder, 'image', f'Image of {dtype}', 'Image of uint8')
  channels = int(feature['shape']['dimensions'][-1])
  if channels not in _CHANNELS:
    raise errors.UserError(
      f'{folder}: images have {channels} channels; only 1 and 3 are read, 2 '
      'and 4 where the last is transparency: write the data set with '
      'tfds.features.Image of gray or RGB images'
    )
  return _CHANNELS[channels], feature.get('encodingFormat') == 'jpeg'


def target(folder: pathlib.Path, features: Features) -> tuple[int, int]:
  """The numbers of classes and of points; one of them is 0.

  Raises:
    UserError: the labels are neither classes nor points.
  """
  if 'landmarks' in features:
    return 0, _points(folder, features)
  label = _feature(folder, features, 'label', 'classLabel', 'ClassLabel')
  classes = int(label.get('numClasses') or 0)
  if classes < 1:
    raise _wrong(
      folder,
      'label',
      'ClassLabel without num_classes',
      'ClassLabel(num_classes=...)',
    )
  return classes, 0


def counts(folder: pathlib.Path) -> dict[str, int]:
  """Facts of `pictures` -> number of images, from when the set was made."""
  path = folder / 'metadata.json'
  metadata = json.loads(path.read_text()) if path.is_file() else None
  if not isinstance(metadata, dict):
    return {}
  return dict(metadata.get(pictures.COUNTS, {}))


def _feature(
  folder: pathlib.Path, features: Features, name: str, kind: str, needed: str
) -> Mapping[str, Any]:
  """The entry of a feature in features.json, which must be of this kind."""
  if name not in features:
    existing = ', '.join(sorted(features)) or 'none'
    raise errors.UserError(
      f'{folder}: there is no feature {name!r}, which must be '
      f'tfds.features.{needed}, among its features ({existing}); write the '
      'data set with it'
    )
  feature = features[name]
  if kind not in feature:
    shape = feature.get('tensor', {}).get('shape', {}).get('dimensions')
    actual = str(feature.get('pythonClassName', 'unknown')).rpartition('.')[2]
    if shape:
      actual += f' of shape [{", ".join(map(str, shape))}]'
    raise _wrong(folder, name, actual, needed)
  return feature[kind]


def _wrong(
  folder: pathlib.Path, name: str, actual: str, needed: str
) -> errors.UserError:
  """The error for a feature that cannot be read."""
  return errors.UserError(
    f'{folder}: feature {name!r} is {actual}, but tfds.features.{needed} is '
    'needed; write the data set with that'
  )


def _points(folder: pathlib.Path, features: Features) -> int:
  """The number of points per image."""
  tensor = _feature(folder, features, 'landmarks', 'tensor', 'Tensor')
  shape = [int(size) for size in tensor['shape'].get('dimensions', ())]
  if len(shape) != 2 or shape[0] < 2 or shape[1] != 2:
    raise _wrong(
      folder,
      'landmarks',
      f'Tensor of shape {shape}',
      'Tensor of shape [points, 2], x and y with the eyes first,',
    )
  return shape[0]
