"""A name becomes uint8 images and their labels, read without TensorFlow."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nsl_jax import errors, memory, options
from nsl_jax.data import cache, pictures, prepare, records
from nsl_jax.data.datasets import (
  digits,
  face_lists,
  folder,
  npz,
  points as points_lib,
)
from nsl_jax.data.examples import Arrays, Source, has_label

# Domain adaptations: name -> the labeled set and the set to adapt to.
ADAPTATIONS = {'usps_to_mnist': ('usps', 'mnist')}
# Every set that is made of others when it is loaded: name -> of which.
DERIVED: dict[str, tuple[str, ...]] = {
  **ADAPTATIONS,
  'mnist_points': ('mnist',),
}
NAMES = (*prepare.NAMES, *DERIVED)
# A user's own data: name -> what reads it.
OWN: dict[str, Callable[..., Source]] = {'folder': folder.load, 'npz': npz.load}


def _without_labels(count: int, like: np.ndarray) -> np.ndarray:
  """So many labels of that kind, none of which is known."""
  missing = np.nan if like.ndim > 1 else -1
  return np.full((count, *like.shape[1:]), missing, like.dtype)


def options_of(name: str) -> dict[str, options.Option]:
  """The options that `load` takes for a data set; none but of a user's own."""
  return options.of(OWN[name]) if name in OWN else {}


def load(
  name: str,
  data_dir: str | None = None,
  *,
  cache_dir: str | None = None,
  **values: Any,
) -> Source:
  """Reads a data set from disk; never uses the network.

  Args:
    name: one of `NAMES` or `OWN`, or of a TFDS data set in that folder, of
      which the splits train and test are read.
    data_dir: folder of TFDS data sets; None for TFDS_DATA_DIR, else TFDS's own.
      Of a user's own data the folder or file itself.
    cache_dir: folder of decoded arrays; None for the default of `cache`.
    **values: options of a user's own data, see `options_of`.

  Returns:
    The source, with all its images in memory.

  Raises:
    UserError: unknown name, data that are missing, damaged or need TensorFlow.
  """
  if name in OWN:
    return OWN[name](data_dir or '', cache_dir, **values)
  if name in ADAPTATIONS:
    return _adaptation(name, data_dir, cache_dir)
  if name == 'mnist_points':
    return _points(name, load('mnist', data_dir, cache_dir=cache_dir))
  if name not in NAMES:
    prepare.check_name(name, data_dir, NAMES)
  if name == 'digits':
    return _digits()
  recipe = prepare.recipe(name)
  layout = _find(name, data_dir, cache_dir)
  read_split = functools.partial(_read_split, name, layout, data_dir, cache_dir)
  splits = *recipe.labeled, *recipe.unlabeled, 'test'
  arrays, counts = zip(*map(read_split, splits))
  parts = dict(zip(splits, arrays))
  _check_sizes(layout, parts)
  for split in recipe.labeled:
    _check_labels(layout, split, parts[split].labels)
  unknown = sum(
    int((~has_label(parts[split].labels)).sum()) for split in recipe.labeled
  )
  test = parts.pop('test')
  _check_labels(layout, 'test', test.labels, all_known=True)
  for split in recipe.unlabeled:
    images, labels = parts[split]
    parts[split] = Arrays(images, _without_labels(len(images), labels))
  train = Arrays(*map(_joined, zip(*parts.values())))
  sizes = len(train.images), len(test.images)
  notes = [
    _note(layout),
    _sizes_note(recipe, sizes),
    *_total_facts(layout, counts),
  ]
  if unknown:
    notes.append(f'{unknown:,} training images without a label')
  return Source(
    name,
    layout.num_classes,
    train,
    test,
    '; '.join(filter(None, notes)),
    classes=_class_names(layout),
  )


def _class_names(layout: prepare.Layout) -> tuple[str, ...]:
  """As TFDS wrote them; () where there are not K different ones."""
  path = layout.folder / 'label.labels.txt'
  try:
    names = tuple(path.read_text(encoding='utf-8').splitlines())
  except (OSError, UnicodeDecodeError):
    return ()
  return names if len({*names}) == len(names) == layout.num_classes else ()


def _check_sizes(layout: prepare.Layout, parts: Mapping[str, Arrays]) -> None:
  """Raises UserError unless images of all splits have one size."""
  shapes = {split: part.images.shape[1:] for split, part in parts.items()}
  first = next(iter(shapes))
  for split, shape in shapes.items():
    if shape != shapes[first]:
      sizes = ['x'.join(map(str, shapes[name])) for name in (first, split)]
      raise errors.UserError(
        f'{layout.folder}: images of split {first} are {sizes[0]} (height x '
        f'width x channels), those of split {split} {sizes[1]}; make them '
        'all the same size'
      )


def _total_facts(
  layout: prepare.Layout, counts: Iterable[Mapping[str, int]]
) -> list[str]:
  """Notes on images that are not read as they are."""
  all_counts = layout.counts, *counts
  return pictures.counted(
    {
      fact: sum(counts_of.get(fact, 0) for counts_of in all_counts)
      for fact in pictures.FACTS
    }
  )


def _adaptation(
  name: str, data_dir: str | None, cache_dir: str | None
) -> Source:
  """Labeled images of one set, then the other's without labels and its test.

  The images of the first set are resized to the size of the second's.
  """
  from_name, to_name = ADAPTATIONS[name]
  for part in (to_name, from_name):
    _find(part, data_dir, cache_dir)  # Fails before anything is decoded.
  source = load(from_name, data_dir, cache_dir=cache_dir)
  target = load(to_name, data_dir, cache_dir=cache_dir)
  images = target.train.images
  resized = _resized(source.train.images, *images.shape[1:3])
  train = Arrays(
    np.concatenate([resized, images]),
    np.concatenate(
      [source.train.labels, _without_labels(len(images), source.train.labels)]
    ),
  )
  note = '; '.join(filter(None, (source.note, target.note)))
  return Source(name, target.num_classes, train, target.test, note)


def _joined(parts: tuple[np.ndarray, ...]) -> np.ndarray:
  if len(parts) == 1:
    return parts[0]
  rows = sum(map(len, parts))
  joined = memory.empty((rows, *parts[0].shape[1:]), parts[0].dtype)
  return np.concatenate(parts, out=joined)


def _points(name: str, source: Source) -> Source:
  """Every image at a random place and size, the same in every run."""
  parts = (source.train, source.test)
  train, test = (
    Arrays(*points_lib.scatter(part.images, seed=seed))
    for seed, part in enumerate(parts)
  )
  return Source(name, 0, train, test, source.note)


def _resized(images: np.ndarray, height: int, width: int) -> np.ndarray:
  """Pillow's bicubic resize, DNLL's "cubic spline" (F-D17):
  u8[N, H, W, 1] -> u8[N, H', W', 1].
  """
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
) -> tuple[Arrays, cache.Facts]:
  """One split, from the cache if it is there; how often facts hold for it."""
  folder = layout.folder
  folder_digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
  entry = f'{folder.parent.name}-{split}-{folder_digest}.arrays'
  key = cache.fingerprint(path for path in folder.iterdir() if path.is_file())

  def make() -> tuple[cache.ArrayPair, cache.Facts]:
    if not layout.direct and not prepare.has_module('tensorflow'):
      raise prepare.tfrecord_only(name, folder, data_dir)
    try:
      return records.decode(layout, split)
    except (errors.UserError, MemoryError):
      raise
    except Exception as error:  # The readers raise every kind.
      bad_image = isinstance(error, records.BadImage)
      raise prepare.unreadable(
        name,
        f'split {split} of {folder}',
        error,
        data_dir,
        folder=folder,
        item='that image' if bad_image else 'its files',
      ) from error

  path = cache.directory(cache_dir) / entry
  arrays, counts = cache.fetch_counted(path, key, make)
  return Arrays(*arrays), counts


def _check_labels(
  layout: prepare.Layout,
  split: str,
  labels: np.ndarray,
  all_known: bool = False,
) -> None:
  """Raises UserError unless the labels of a split are as described.

  Args:
    layout: of the data set.
    split: name.
    labels: int32[N] or f32[N, P].
    all_known: every image must have one.
  """
  if layout.points:
    _check_points(layout, split, labels)
  elif labels.min() < -1 or labels.max() >= layout.num_classes:
    raise errors.UserError(
      f'{layout.folder}: labels of split {split} lie in [{labels.min()}, '
      f'{labels.max()}], outside [0, {layout.num_classes}); correct '
      'numClasses in features.json or prepare the data set again'
    )
  unknown = np.flatnonzero(~has_label(labels))
  if all_known and len(unknown):
    raise errors.UserError(
      f'{layout.folder}: {len(unknown):,} of the {len(labels):,} images of '
      f'split {split} have no label (the first is row {unknown[0]}), so '
      'that no error can be measured on them; label them or take them out '
      'of the split'
    )


def _check_points(
  layout: prepare.Layout, split: str, labels: np.ndarray
) -> None:
  """Raises UserError unless f32[N, P] are positions, or NaN for whole rows."""
  points = labels.reshape(len(labels), -1, 2)
  labeled = ~np.isnan(labels).all(1)
  absent = face_lists.no_position(points) & labeled[:, None]
  if absent.any():
    row, point = np.argwhere(absent)[0]
    x, y = points[row, point]
    raise errors.UserError(
      f'{layout.folder}: point {point + 1} of row {row} of split {split} has '
      f'no position (x {x:g}, y {y:g}); take the row out, or give it NaN '
      'for all points, which is no label'
    )
  same = (points[:, 0] == points[:, 1]).all(1)
  if same.any():
    raise errors.UserError(
      f'{layout.folder}: both eyes of row {np.argmax(same)} of split {split} '
      'are at the same place, so errors have no unit; correct the row or '
      'take it out'
    )


def _digits() -> Source:
  """The 8x8 digits of scikit-learn with a fixed class-balanced test split."""
  train, test = digits.arrays()
  return Source('digits', 10, Arrays(*train), Arrays(*test), '')
