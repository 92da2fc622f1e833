"""What the weights were trained on that a run starts from.

Exported weights carry it as metadata; for a checkpoint it is in the folder of
its seed. Other files of weights say nothing.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from nsl_jax import errors, files
from nsl_jax.data import duplicates, sources, split_file, splits
from nsl_jax.models import weights
from nsl_jax.training import network_file

_KEY = 'nsl_jax'  # of the metadata


class Origin(NamedTuple):
  """What weights were trained on.

  Attributes:
    classes: names of the classes, in the order of the outputs; () for points.
    image_shape: (H, W, C).
    labeled: hashes of the pixels of the labeled images, see
      `duplicates.hashes`, also of those of a run that it started from.
  """

  classes: tuple[str, ...]
  image_shape: tuple[int, ...]
  labeled: frozenset[bytes]


def metadata(
  facts: network_file.Facts, labeled: Collection[bytes]
) -> dict[str, str]:
  """For `weights.write`: the network's facts and its labeled images."""
  content = {
    'classes': list(facts.classes),
    'image_shape': list(facts.image_shape),
    'labeled': sorted(code.hex() for code in labeled),
  }
  return {_KEY: json.dumps(content)}


def of(path: str) -> Origin | None:
  """What is known of a file of weights, or of the folder of a checkpoint.

  Raises:
    errors.UserError: if a file that should say it is damaged.
  """
  place = files.path_of(path, 'the weights')
  if place.is_dir():
    seed = files.absolute(place).parent.parent  # of seed_0/best/1200
    if not network_file.exists(seed):
      return None
    facts = network_file.read(seed)
    codes = split_file.load_trained_on(seed / 'split.npz')
    return Origin(facts.classes, facts.image_shape, codes)
  text = weights.read_metadata(path).get(_KEY)
  if text is None:
    return None
  try:
    content: Mapping[str, list] = json.loads(text)
    return Origin(
      tuple(content['classes']),
      tuple(content['image_shape']),
      frozenset(map(bytes.fromhex, content['labeled'])),
    )
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f'{weights.OPTION}={path}: its metadata {_KEY} is damaged ({error}): '
      'write them by python -m nsl_jax export'
    ) from error


def _of_config(config: ml_collections.ConfigDict) -> Origin | None:
  path = config.model.get('init_from')
  return of(path) if path else None


def labeled(config: ml_collections.ConfigDict) -> frozenset[bytes]:
  """`Origin.labeled` of the weights that a config starts from; empty if it
  starts from none.
  """
  origin = _of_config(config)
  return origin.labeled if origin else frozenset()


def of_classes(
  config: ml_collections.ConfigDict, classes: Sequence[str]
) -> list[str]:
  """Warning of weights of other classes, whose number may be the same."""
  origin = _of_config(config)
  if origin is None or origin.classes in ((), tuple(classes)):
    return []
  return [
    f'{weights.OPTION}={config.model.init_from} is of the classes '
    f'{errors.shown(origin.classes)}, and this run of '
    f'{errors.shown(classes)}: its head starts anew'
  ]


def of_evaluated(
  config: ml_collections.ConfigDict, source: sources.Source, split: splits.Split
) -> Iterator[str]:
  """Warnings of images to evaluate on that the weights were trained on."""
  origin = _of_config(config)
  images = source.train.images
  if origin is None or not origin.labeled:
    return
  remedies = {
    'validation': 'the validation error is too low and may choose the wrong '
    'weights; keep the same images for validation, by validation/ or the '
    'column split',
    'test': 'the test error is too low; start from weights that have not seen '
    'them',
  }
  if tuple(images.shape[1:]) != origin.image_shape:
    size = f'{weights.OPTION} was trained on images of another size'
    if len(split.validation) and source.validation is None:
      yield (
        f'{size}, and the validation images are drawn anew: if some are the '
        f'same, {remedies["validation"]}'
      )
    if len(source.test.images):
      yield f'{size}, so that test images that it has seen are not counted'
    return
  rows = range(len(source.test.images))
  codes = {
    'validation': duplicates.hashes(images, split.validation),
    'test': duplicates.hashes(source.test.images, np.asarray(rows)),
  }
  for part, remedy in remedies.items():
    number = sum(code in origin.labeled for code in codes[part].values())
    if number:
      yield (
        f'{number:,} of the {len(codes[part]):,} {part} images were labeled '
        f'training images of {weights.OPTION}: {remedy}'
      )
