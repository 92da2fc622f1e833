"""A name becomes uint8 images and their labels, read without TensorFlow."""

from collections.abc import Iterator
import functools
import hashlib
import io
import itertools
import sys
from typing import Any, NamedTuple

import numpy as np

from nsl_jax import errors
from nsl_jax.data import cache
from nsl_jax.data import digits
from nsl_jax.data import points as points_lib
from nsl_jax.data import prepare

# Domain adaptations: name -> the labelled set and the set to adapt to.
ADAPTATIONS = {'usps_to_mnist': ('usps', 'mnist')}
# Every set that is made of others when it is loaded: name -> of which.
DERIVED: dict[str, tuple[str, ...]] = {
    **ADAPTATIONS, 'mnist_points': ('mnist',)
}
NAMES = (*prepare.NAMES, *DERIVED)
_BLOCK = 1000  # Records per read; larger blocks are no faster.


class Arrays(NamedTuple):
  """Examples in memory.

  Attributes:
    images: uint8[N, H, W, C] with C 1 or 3.
    labels: int32[N] classes, or f32[N, P] with x and y of each point in
      pixels; -1 says that the image has no label.
  """

  images: np.ndarray
  labels: np.ndarray


class Source(NamedTuple):
  """A data set.

  Attributes:
    name: one of `NAMES`.
    num_classes: K; labels lie in [0, K) or are -1. 0 where they are points.
    train: training examples, the unlabelled ones last.
    test: test examples, all labelled.
    note: what a reader of results must know about this copy; '' if nothing.
  """

  name: str
  num_classes: int
  train: Arrays
  test: Arrays
  note: str

  @property
  def outputs(self) -> int:
    """How many numbers a network says of an image, K or P."""
    return self.num_classes or self.train.labels.shape[1]


def load(
    name: str, data_dir: str | None = None, *, cache_dir: str | None = None
) -> Source:
  """Reads a data set from disk; never uses the network.

  Args:
    name: one of `NAMES`.
    data_dir: folder of TFDS data sets; None for TFDS_DATA_DIR, else TFDS's own.
    cache_dir: folder of decoded arrays; None for the default of `cache`.

  Returns:
    The source, with all its images in memory.

  Raises:
    UserError: unknown name, data that are missing, damaged or need TensorFlow.
  """
  if name in ADAPTATIONS:
    return _adaptation(name, data_dir, cache_dir)
  if name == 'mnist_points':
    return _points(name, load('mnist', data_dir, cache_dir=cache_dir))
  if name not in NAMES:
    hint = errors.did_you_mean(name, NAMES)
    raise errors.UserError(f'unknown data set {name!r}; {hint}')
  if name == 'digits':
    return _digits()
  recipe = prepare.RECIPES[name]
  layout = _find(name, data_dir, cache_dir)
  read = functools.partial(_read_split, name, layout, data_dir, cache_dir)
  parts = [read(split) for split in recipe.labelled]
  for split in recipe.unlabelled:
    images = read(split, labelled=False).images
    parts.append(Arrays(images, np.full(len(images), -1, np.int32)))
  train = parts[0]
  if len(parts) > 1:
    train = Arrays(*(np.concatenate(arrays) for arrays in zip(*parts)))
  test = read('test')
  sizes = len(train.images), len(test.images)
  notes = _note(layout), _sizes_note(recipe, sizes)
  return Source(
      name, layout.num_classes, train, test, '; '.join(filter(None, notes))
  )


def _adaptation(
    name: str, data_dir: str | None, cache_dir: str | None
) -> Source:
  """Labelled images of one set, then the other's without labels and its test.

  The images of the first set are resized to the size of the second's.
  """
  from_name, to_name = ADAPTATIONS[name]
  for part in (to_name, from_name):
    _find(part, data_dir, cache_dir)  # Fails before anything is decoded.
  known = load(from_name, data_dir, cache_dir=cache_dir)
  target = load(to_name, data_dir, cache_dir=cache_dir)
  images = target.train.images
  resized = _resized(known.train.images, *images.shape[1:3])
  train = Arrays(
      np.concatenate([resized, images]),
      np.concatenate([known.train.labels, np.full(len(images), -1, np.int32)]),
  )
  note = '; '.join(filter(None, (known.note, target.note)))
  return Source(name, target.num_classes, train, target.test, note)


def _points(name: str, known: Source) -> Source:
  """Every image at a random place and size, the same for everybody."""
  parts = (known.train, known.test)
  train, test = (
      Arrays(*points_lib.scatter(part.images, seed=seed))
      for seed, part in enumerate(parts)
  )
  return Source(name, 0, train, test, known.note)


def _resized(images: np.ndarray, height: int, width: int) -> np.ndarray:
  """Pillow's bicubic resize (F-D17): u8[N, H, W, 1] -> u8[N, H', W', 1]."""
  from PIL import Image

  resized = np.empty((len(images), height, width, 1), np.uint8)
  for row, image in enumerate(images[..., 0]):
    picture = Image.fromarray(image)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    resized[row, ..., 0] = np.asarray(picture)
  return resized


def _find(
    name: str, data_dir: str | None, cache_dir: str | None
) -> prepare.Layout:
  """The prepared data set of that name; makes one of our own if needed."""
  folder = prepare.newest(name, data_dir)
  if folder is None and name in prepare.MANUAL:
    folder = prepare.make(name, data_dir, cache_dir)
  if folder is None:
    raise errors.UserError(
        f'{name} is not in {prepare.directory(data_dir)}; run: '
        f'{prepare.command(name, data_dir)}'
    )
  return prepare.read_layout(name, folder, data_dir)


def _note(layout: prepare.Layout) -> str:
  """Says that the pixels are not the original ones, if they are not."""
  if not layout.jpeg:
    return ''
  folder = layout.folder
  return (
      f'JPEG copy of {folder.parent.name} {folder.name}: its pixels differ '
      'slightly from the original, which is PNG'
  )


def _sizes_note(recipe: prepare.Recipe, sizes: tuple[int, int]) -> str:
  """Says that a data set is not the papers', if its size does."""
  if recipe.papers in (None, sizes):
    return ''
  return '{} of {:,} + {:,} images, not the {:,} + {:,} of the papers'.format(
      recipe.tfds_name, *sizes, *recipe.papers
  )


def _read_split(
    name: str,
    layout: prepare.Layout,
    data_dir: str | None,
    cache_dir: str | None,
    split: str,
    labelled: bool = True,
) -> Arrays:
  """One split, from the cache if it is there; checks the labels if asked."""
  folder = layout.folder
  where = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
  entry = f'{folder.parent.name}-{split}-{where}.arrays'
  key = cache.fingerprint(path for path in folder.iterdir() if path.is_file())

  def make() -> cache.ArrayPair:
    if not layout.direct and not prepare.has_module('tensorflow'):
      raise prepare.tfrecord_only(name, folder, data_dir)
    try:
      return _decode(layout, split)
    except (errors.UserError, MemoryError):
      raise
    except Exception as error:  # The readers raise every kind.
      what = f'split {split} of {folder}'
      raise prepare.unreadable(name, what, error, data_dir) from error

  arrays = Arrays(*cache.fetch(cache.directory(cache_dir) / entry, key, make))
  if labelled:
    _check_labels(layout, split, arrays.labels)
  return arrays


def _check_labels(
    layout: prepare.Layout, split: str, labels: np.ndarray
) -> None:
  """Raises UserError unless all classes, int32[N], lie in [0, K)."""
  if layout.points:
    return  # checked when the data set was made
  low, high = labels.min(), labels.max()
  if low < 0 or high >= layout.num_classes:
    raise errors.UserError(
        f'{layout.folder}: labels of split {split} lie in [{low}, {high}], '
        f'outside [0, {layout.num_classes}); correct numClasses in '
        'features.json or prepare the data set again'
    )


def _decode(layout: prepare.Layout, split: str) -> cache.ArrayPair:
  """Decodes one split into (uint8[N, H, W, C], int32[N] or f32[N, P])."""
  from PIL import Image

  count, records = _open(layout, split)
  what = f'{layout.folder.parent.name} {split} ({count:,} images)'
  print(f'decoding {what}, once ...', file=sys.stderr, flush=True)
  mode = 'L' if layout.channels == 1 else 'RGB'
  first = next(records)
  size = Image.open(io.BytesIO(first['image'])).size
  images = np.empty((count, size[1], size[0], layout.channels), np.uint8)
  labels = np.empty(count, np.int32)
  field = 'label'
  if layout.points:
    labels = np.empty((count, 2 * layout.points), np.float32)
    field = 'landmarks'
  for row, record in enumerate(itertools.chain([first], records)):
    picture: Image.Image = Image.open(io.BytesIO(record['image']))
    if picture.size != size:
      raise errors.UserError(
          f'{layout.folder}: images of split {split} differ in size ({size} '
          f'and {picture.size}); make them all the same size'
      )
    if picture.mode != mode:
      picture = picture.convert(mode)
    images[row] = np.asarray(picture).reshape(images.shape[1:])
    labels[row] = np.reshape(record[field], labels.shape[1:])
  if row + 1 != count:
    raise ValueError(f'only {row + 1} of {count} examples')
  return images, labels


def _open(
    layout: prepare.Layout, split: str
) -> tuple[int, Iterator[dict[str, Any]]]:
  """The number of records of a split, and the records, images encoded."""
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(layout.folder)
  splits = [key for key, info in builder.info.splits.items()
            if info.num_examples]
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
  """Like `_open`, through TensorFlow, which is kept off the accelerator."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  tf.config.set_visible_devices([], 'GPU')
  in_order = tfds.ReadConfig(interleave_cycle_length=1)
  rows = builder.as_dataset(
      split=split, decoders=decoders, read_config=in_order
  )
  return builder.info.splits[split].num_examples, iter(tfds.as_numpy(rows))


def _digits() -> Source:
  """The 8x8 digits of scikit-learn with a fixed class-balanced test split."""
  train, test = digits.arrays()
  return Source('digits', 10, Arrays(*train), Arrays(*test), '')
