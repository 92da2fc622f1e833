"""Records of a split of a prepared data set, and their decoding."""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from nsl_jax import errors, memory
from nsl_jax.data import cache, pictures, prepare

_BLOCK = 1000  # Records per read; larger blocks are no faster.


class BadImage(ValueError):
  """An image that cannot be read; the text names its row."""


def decode(
  layout: prepare.Layout, split: str
) -> tuple[cache.ArrayPair, cache.Facts]:
  """Decodes one split.

  Returns:
    (uint8[N, H, W, C], int32[N] or f32[N, P]), and the number of images for
    each of `pictures.FACTS`.

  Raises:
    UserError: the split has no examples, or images of different sizes.
    BadImage: an image cannot be read.
  """
  count, records = _open(layout, split)
  description = f'{layout.folder.parent.name} {split} ({count:,} images)'
  print(f'decoding {description}, once ...', file=sys.stderr, flush=True)
  first = next(records)
  shape = _pixels(layout, first, 0).values.shape
  images = memory.empty((count, *shape), np.uint8)
  labels = np.empty(count, np.int32)
  field = 'label'
  if layout.points:
    labels = np.empty((count, 2 * layout.points), np.float32)
    field = 'landmarks'
  facts = dict.fromkeys(pictures.FACTS, 0)
  for row, record in enumerate(itertools.chain([first], records)):
    decoded_image = _pixels(layout, record, row)
    if decoded_image.values.shape != shape:
      raise errors.UserError(
        f'{layout.folder}: images of split {split} differ in size (row 0 has '
        f'{_size(shape)} pixels, row {row} '
        f'{_size(decoded_image.values.shape)}); make them all the same size'
      )
    images[row] = decoded_image.values
    labels[row] = np.reshape(record[field], labels.shape[1:])
    for fact in decoded_image.facts:
      facts[fact] += 1
  if row + 1 != count:
    raise ValueError(f'only {row + 1} of {count} examples')
  return (images, labels), facts


def _pixels(
  layout: prepare.Layout, record: dict[str, Any], row: int
) -> pictures.Pixels:
  try:
    return pictures.decode(record['image'], layout.channels)
  except ValueError as error:
    raise BadImage(f'row {row}: {error}') from error


def _size(shape: tuple[int, ...]) -> str:
  return f'{shape[1]}x{shape[0]}'


def _open(
  layout: prepare.Layout, split: str
) -> tuple[int, Iterator[dict[str, Any]]]:
  """The number of records of a split, and the records with encoded images."""
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(layout.folder)
  splits = [
    key for key, info in builder.info.splits.items() if info.num_examples
  ]
  if split not in splits:
    raise errors.UserError(
      f'{layout.folder} has no examples in split {split!r}; it has: '
      + ', '.join(splits)
    )
  decoders = {'image': tfds.decode.SkipDecoding()}
  if not layout.direct:
    return _open_tfrecord(builder, split, decoders)
  rows = builder.as_data_source(split, decoders=decoders)
  return len(rows), _in_blocks(rows)


def _in_blocks(rows: Any) -> Iterator[dict[str, Any]]:
  """Iterates over a random access source, many records per read."""
  for start in range(0, len(rows), _BLOCK):
    stop = min(start + _BLOCK, len(rows))
    yield from rows.__getitems__(list(range(start, stop)))


def _open_tfrecord(
  builder: Any, split: str, decoders: Any
) -> tuple[int, Iterator[dict[str, Any]]]:
  """Like `_open`, by TensorFlow, which must not use the accelerator."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  tf.config.set_visible_devices([], 'GPU')
  in_order = tfds.ReadConfig(interleave_cycle_length=1)
  rows = builder.as_dataset(
    split=split, decoders=decoders, read_config=in_order
  )
  return builder.info.splits[split].num_examples, iter(tfds.as_numpy(rows))
