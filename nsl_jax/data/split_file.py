"""The file `split.npz` of a seed: the split, and hashes of its images.

By the hashes a run notices that its data have changed since it began, and what
uses its network that it has seen an image.
"""

import hashlib
import io
import types
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nsl_jax import errors, files
from nsl_jax.data.splits import Split

_CODES, _CODE_BYTES = '_codes', 16
# Beside the parts of a split: the labeled images of the run whose weights a run
# starts from.
EARLIER = 'earlier'
_HASHED = 256  # images whose pixels are hashed, and images read together


class Hashes(NamedTuple):
  """Hashes of the data of a split, '' where one is not known.

  Attributes:
    content: `content_sha256`.
    test: `test_sha256`.
    unlabeled: `unlabeled_sha256`.
    pixels: `pixels_sha256`.
  """

  content: str = ''
  test: str = ''
  unlabeled: str = ''
  pixels: str = ''


def content_sha256(split: Split, images: np.ndarray, labels: np.ndarray) -> str:
  """Hash of the images and labels of the labeled rows.

  Detects a data set that was prepared in another order, unlike `Split.sha256`.

  Args:
    split: the rows.
    images: u8[N, H, W, C].
    labels: i32[N] classes or f32[N, P] points.
  """
  digest = hashlib.sha256()
  for name in ('labeled', 'validation', 'holdout'):
    rows = getattr(split, name)
    digest.update(f'{name}:{len(rows)}:{images.shape[1:]};'.encode())
    digest.update(np.ascontiguousarray(images[rows]).tobytes())
    digest.update(np.ascontiguousarray(labels[rows]).tobytes())
  return digest.hexdigest()


def test_sha256(images: np.ndarray, labels: np.ndarray) -> str:
  """Hash of all test labels and of 256 evenly spaced test images.

  Detects other test images than a run began with. Few are read, since each of
  several processes has decoded a part of them only.

  Args:
    images: u8[N, H, W, C].
    labels: i32[N] classes or f32[N, P] points.
  """
  digest = hashlib.sha256(f'{images.shape};'.encode())
  digest.update(_sample(images, np.arange(len(images))))
  digest.update(np.ascontiguousarray(labels).tobytes())
  return digest.hexdigest()


def unlabeled_sha256(split: Split, images: np.ndarray) -> str:
  """Hash of 256 evenly spaced unlabeled images, as in `test_sha256`."""
  count = len(split.unlabeled)
  digest = hashlib.sha256(f'{count},{images.shape[1:]};'.encode())
  digest.update(_sample(images, split.unlabeled))
  return digest.hexdigest()


def pixels_sha256(split: Split, train: np.ndarray, test: np.ndarray) -> str:
  """Hash of all unlabeled images and all test images.

  Args:
    split: the rows.
    train: u8[N, H, W, C], or f32 features.
    test: the same.
  """
  digest = hashlib.sha256()
  for images, rows in ((train, split.unlabeled), (test, range(len(test)))):
    for at in range(0, len(rows), _HASHED):  # in flat memory
      some = images[np.asarray(rows[at : at + _HASHED])]
      digest.update(np.ascontiguousarray(some).tobytes())
  return digest.hexdigest()


def _sample(images: np.ndarray, rows: np.ndarray) -> bytes:
  """The pixels of 256 evenly spaced rows, or of all if they are fewer."""
  places = np.unique(np.linspace(0, len(rows) - 1, _HASHED).astype(int))
  chosen = rows[places] if len(rows) else rows
  return np.ascontiguousarray(images[chosen]).tobytes()


def save(
  split: Split,
  path: str | files.Path,
  hashes: Hashes = Hashes(),
  codes: Mapping[str, Iterable[bytes]] = types.MappingProxyType({}),
) -> None:
  """Writes `split.npz` atomically.

  Args:
    split: the rows.
    path: of the file.
    hashes: of its data.
    codes: part, or `EARLIER` -> hashes of the pixels of its images, of 16
      bytes.
  """
  arrays: dict[str, Any] = split._asdict()
  for name, text in hashes._asdict().items():
    arrays[_entry(name)] = np.array(text)
  for part, code in codes.items():
    joined = np.frombuffer(b''.join(code), np.uint8)
    arrays[part + _CODES] = joined.reshape(-1, _CODE_BYTES)
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  files.write(files.path_of(path, 'the split'), buffer.getvalue())


def _entry(name: str) -> str:
  return f'{name}_sha256'


def load(path: str | files.Path) -> Split:
  """Reads the split.

  Raises:
    errors.UserError: if the file is not one that `save` wrote.
  """
  return Split(**_arrays(path, Split._fields))


def load_hashes(path: str | files.Path) -> Hashes:
  """Reads the hashes, of which older files have fewer.

  Raises:
    errors.UserError: if the file is not one that `save` wrote.
  """
  content, *others = map(_entry, Hashes._fields)
  arrays = _arrays(path, (content,), others)
  return Hashes(*(str(arrays.get(_entry(n), '')) for n in Hashes._fields))


def load_codes(path: str | files.Path) -> dict[str, frozenset[bytes]]:
  """Reads the hashes of the pixels by part; {} of older files.

  Raises:
    errors.UserError: if the file is not one that `save` wrote.
  """
  names = [part + _CODES for part in (*Split._fields, EARLIER)]
  arrays = _arrays(path, (_entry('content'),), names)
  return {
    name.removesuffix(_CODES): frozenset(map(bytes, arrays[name]))
    for name in names
    if name in arrays
  }


def load_trained_on(path: str | files.Path) -> frozenset[bytes]:
  """Reads the hashes of the images whose labels the weights were trained with;
  empty of older files.

  Raises:
    errors.UserError: if the file is not one that `save` wrote.
  """
  codes = load_codes(path)
  parts = ('labeled', 'holdout', EARLIER)
  return frozenset().union(*(codes.get(part, ()) for part in parts))


def _arrays(
  path: str | files.Path, names: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
  place = files.path_of(path, 'the split')
  try:
    with np.load(io.BytesIO(place.read_bytes())) as file:
      more = [name for name in optional if name in file.files]
      return {name: file[name] for name in (*names, *more)}
  except (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
  ) as error:
    raise errors.UserError(
      f'{path} is damaged ({error}): restore it or start a new workdir'
    ) from error
