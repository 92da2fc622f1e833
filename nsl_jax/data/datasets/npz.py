"""A user's own arrays in an .npz file: images or features, and labels.

`x` is u8[N, H, W] or u8[N, H, W, C] of images, or f[N, D] of features; `y` the
classes as whole numbers or words, -1 (or an empty word) where unknown. Test
examples are `x_test` and `y_test`, validation examples `x_val` and `y_val`.
"""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from nsl_jax import errors, options
from nsl_jax.data.examples import Arrays, Source, counts_text

_NAMES = ('x', 'y', 'x_test', 'y_test', 'x_val', 'y_val')
_EPSILON = 2.0**-24  # of float32, half of the last digit
_LOOKED_AT = 10_000  # rows
_ROUNDED = 0.01  # standard deviations that may be lost
# What `read` raises for a file that is damaged, or of another kind.
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """All arrays of an .npz file; raises one of `UNREADABLE`."""
  file = np.load(path, allow_pickle=False)
  if isinstance(file, np.ndarray):
    raise ValueError('a single array, as by numpy.save')
  with file:
    return {name: file[name] for name in file.files}


@options.declare()
def load(path: str, cache_dir: str | None = None) -> Source:
  """Reads an .npz file.

  Args:
    path: of the file.
    cache_dir: not used; the arrays are read as they are.

  Raises:
    errors.UserError: if it is not such a file.
  """
  del cache_dir
  try:
    arrays = read(pathlib.Path(path).expanduser())
  except UNREADABLE as error:
    raise errors.UserError(
      f'{path} cannot be read as an .npz file ({error}): save it with '
      'numpy.savez(path, x=..., y=...), without objects'
    ) from error
  unknown = sorted(set(arrays) - set(_NAMES))
  if unknown or not {'x', 'y'} <= set(arrays):
    raise errors.UserError(
      f'{path} has the arrays {", ".join(sorted(arrays)) or "none"}: expected '
      f'are x and y, and perhaps {", ".join(_NAMES[2:])}'
    )
  pairs = {}
  for suffix in ('', '_val', '_test'):
    pair = tuple(arrays.get(f'{part}{suffix}') for part in 'xy')
    if (pair[0] is None) != (pair[1] is None):
      raise errors.UserError(f'{path} has only one of x{suffix} and y{suffix}')
    pairs[suffix] = None if pair[0] is None else pair
  return of_arrays(
    pairs[''], pairs['_val'], pairs['_test'], name='npz', origin=path
  )


def of_arrays(
  train: Any,
  validation: Any = None,
  test: Any = None,
  *,
  name: str = 'arrays',
  origin: str = 'the arrays',
  names: Sequence[str] = (),
) -> Source:
  """A data set of arrays `(x, y)`.

  Args:
    train: x u8[N, H, W], u8[N, H, W, C] or f[N, D]; y whole numbers or words
      [N], -1 or '' where unknown.
    validation: the same, all labeled; None if the split draws them.
    test: the same, all labeled; None for none.
    name: of the data set.
    origin: what messages call it.
    names: of the classes, where the labels in `y` are their numbers, each of 0
      to K - 1; otherwise the labels are their names.

  Raises:
    errors.UserError: naming what is wrong with an array.
  """
  parts = {'training': train, 'validation': validation, 'test': test}
  present = {k: v for k, v in parts.items() if v is not None}
  images = {
    k: as_images(x, f'{origin}: {k} x') for k, (x, _) in present.items()
  }
  shapes = {k: x.shape[1:] + (x.dtype.kind,) for k, x in images.items()}
  for part, shape in shapes.items():
    if shape != shapes['training']:
      raise errors.UserError(
        f'{origin}: {part} x is {shape[:-1]} per example, training x '
        f'{shapes["training"][:-1]}: give them the same shape and kind'
      )
  labels_of = {}
  for part, (_, y) in present.items():
    labels_of[part] = _checked_labels(
      y, len(images[part]), f'{origin}: {part} y'
    )
  classes = np.unique(labels_of['training'][0][labels_of['training'][1]])
  if len(classes) < 2:
    raise errors.UserError(
      f'{origin}: y has {len(classes)} classes with labeled examples: at least '
      'two are needed'
    )
  if len(names) and classes.tolist() != list(range(len(names))):
    found = ', '.join(map(str, classes[:10].tolist()))
    raise errors.UserError(
      f'{origin}: {len(names)} names of classes, but y has the labels {found}'
      f'{" ..." * (len(classes) > 10)}: give a name for each number from 0 on, '
      'and an example of each'
    )
  labels = {}
  for part, (values, is_labeled) in labels_of.items():
    if part != 'training' and not is_labeled.all():
      raise errors.UserError(
        f'{origin}: {int((~is_labeled).sum()):,} {part} examples have no label'
      )
    if (values.dtype.kind == 'U') != (classes.dtype.kind == 'U'):
      raise errors.UserError(
        f'{origin}: {part} y is {values.dtype}, and training y '
        f'{classes.dtype}: give numbers in both, or words'
      )
    strange = np.setdiff1d(values[is_labeled], classes)
    if len(strange):
      raise errors.UserError(
        f'{origin}: {part} y has class {strange[0]!s}, of which no training '
        'example has a label'
      )
    row = np.searchsorted(classes, np.where(is_labeled, values, classes[0]))
    labels[part] = np.where(is_labeled, row, -1).astype(np.int32)
  names = tuple(names) or tuple(map(str, classes.tolist()))
  fixed = None
  x, y = images['training'], labels['training']
  if 'validation' in images:
    fixed = np.arange(len(x), len(x) + len(images['validation']))
    fixed = fixed.astype(np.int32)
    x = np.concatenate([x, images['validation']])
    y = np.concatenate([y, labels['validation']])
  tested = Arrays(
    images.get('test', x[:0]), labels.get('test', np.zeros(0, np.int32))
  )
  number = int((labels['training'] < 0).sum())
  text = counts_text(names, labels['training'])
  return Source(
    name,
    len(names),
    Arrays(x, y),
    tested,
    '',
    classes=names,
    validation=fixed,
    report=(
      f'{origin}: {len(names)} classes with labeled examples ({text}), '
      f'{number:,} unlabeled examples',
      *lost_in_float32(np.asarray(present['training'][0]), f'{origin}: x'),
    ),
  )


def lost_in_float32(x: np.ndarray, name: str = 'x') -> tuple[str, ...]:
  """A line on the columns of features [N, D] whose differences are too small
  beside their values for float32; () for none.
  """
  if (
    x.ndim != 2
    or not len(x)
    or x.dtype.kind not in 'iuf'
    or np.can_cast(x.dtype, np.float32)
  ):
    return ()
  some = x[:: -(-len(x) // _LOOKED_AT)].astype(np.float64)
  largest, std = np.abs(some).max(0), some.std(0)
  lost = np.flatnonzero((std > 0) & (largest * _EPSILON > _ROUNDED * std))
  if not len(lost):
    return ()
  columns = errors.shown(lost.tolist())
  return (
    f'{name}: columns {columns} lose their differences in float32, since their '
    'values are large beside them: subtract the mean of each',
  )


def as_images(x: Any, name: str = 'x') -> np.ndarray:
  """Images as u8[N, H, W, C], features as f32[N, 1, 1, D].

  Raises:
    errors.UserError: naming what is wrong; `name` is what it is called.
  """
  try:
    x = np.asarray(x)
  except ValueError as error:
    raise errors.UserError(
      f'{name} has examples of different shapes: give all the same'
    ) from error
  if x.dtype == np.uint8 and x.ndim in (3, 4):
    x = x[..., None] if x.ndim == 3 else x
    if x.shape[-1] not in (1, 3):
      raise errors.UserError(
        f'{name} has {x.shape[-1]} channels in shape {x.shape}: give gray '
        'images [N, H, W] or color images [N, H, W, 3]'
      )
    return x
  if x.ndim != 2 or x.dtype.kind not in 'fiub':
    raise errors.UserError(
      f'{name} is {x.dtype}{list(x.shape)}: give images as uint8 [N, H, W] or '
      '[N, H, W, 3], or features as numbers [N, D]'
    )
  features = x.astype(np.float32)
  bad = ~np.isfinite(features).all(1)
  if bad.any():
    raise errors.UserError(
      f'{name} has NaN or an infinity in {int(bad.sum()):,} rows, the first in '
      f'row {int(np.argmax(bad))}: replace or remove them'
    )
  return features[:, None, None, :]


def _checked_labels(
  y: Any, count: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Labels, and which of them are known."""
  y = np.asarray(y)
  if y.shape != (count,):
    raise errors.UserError(
      f'{name} has shape {list(y.shape)} for {count:,} examples: give one '
      'label for each'
    )
  words = y.dtype.kind == 'O' and all(isinstance(word, str) for word in y)
  if words or y.dtype.kind in 'US':
    try:
      y = np.char.decode(y, 'utf-8') if y.dtype.kind == 'S' else y
    except UnicodeDecodeError as error:
      raise errors.UserError(
        f'{name} has bytes that are not UTF-8 ({error}): save the words as text'
      ) from error
    y = y.astype(str)
    return y, (y != '') & (y != '-1')
  if y.dtype.kind in 'iu':
    return y, y != -1
  raise errors.UserError(
    f'{name} is of kind {y.dtype}: labels are whole numbers or words, -1 or an '
    'empty word where unknown'
  )
