"""Images of a folder, decoded by each of several processes as it reads them."""

import collections
import hashlib
import os
import pathlib
import pickle
import tempfile
from collections.abc import Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from nsl_jax import errors
from nsl_jax.data import cache, pictures, resize


class Facts(NamedTuple):
  """What all processes know of all files, each having looked at its share.

  Attributes:
    damaged: row of the list of paths -> why it cannot be read.
    facts: keys of `pictures.FACTS` -> of how many images.
    codes: row -> hash of its pixels, of the rows that were wanted.
    histogram: int[C, 256], levels per channel of the rows that were wanted.
  """

  damaged: dict[int, str]
  facts: dict[str, int]
  codes: dict[int, bytes]
  histogram: np.ndarray


class Images:
  """Reads like u8[N, H, W, C]; a slice of it is another such part.

  What is read is kept in a file without a name, of which the disk holds no more
  than that.

  Attributes:
    codes: see `Facts`, by row of these images.
  """

  dtype = np.dtype(np.uint8)

  def __init__(
    self,
    folder: pathlib.Path,
    paths: Sequence[str],
    form: resize.Form,
    codes: dict[int, bytes],
    histogram: np.ndarray,
    counted: np.ndarray,
  ):
    """`paths` in `folder` of undamaged files; `histogram` is of the rows
    `counted`; the others see `Facts`.
    """
    self._folder, self._paths, self._form = folder, paths, form
    self.codes = codes
    self._histogram, self._counted = histogram, counted
    self._rows = np.arange(len(paths))
    self._there = np.zeros(len(paths), bool)
    place = cache.directory()
    try:
      place.mkdir(parents=True, exist_ok=True)
      self._file = tempfile.TemporaryFile(dir=place)
      self._file.truncate(max(self.nbytes, 1))
      self._kept = np.memmap(self._file, np.uint8, 'r', shape=self.shape)
    except OSError as error:
      raise _cannot_write(error) from error

  def __len__(self) -> int:
    return len(self._rows)

  @property
  def shape(self) -> tuple[int, ...]:
    """(N, H, W, C)."""
    return (len(self), *self._form.shape)

  @property
  def histogram(self) -> np.ndarray | None:
    """int[C, 256], levels per channel; None where these are not the images
    that were counted.
    """
    counted = np.array_equal(self._rows, self._counted)
    return self._histogram if counted else None

  @property
  def nbytes(self) -> int:
    """Of all, decoded or not."""
    return int(np.prod(self.shape))

  def __getitem__(self, key: Any) -> Any:
    if isinstance(key, tuple):
      raise TypeError('an index of rows alone: make it an array first')
    if isinstance(key, slice):
      return self.part(np.arange(len(self))[key])
    rows = self._rows[key]
    self._decode(np.unique(rows))
    return np.asarray(self._kept[rows])

  def part(self, rows: np.ndarray) -> 'Images':
    """The images at these rows i64[n], without reading them."""
    part = object.__new__(Images)
    part.__dict__.update(self.__dict__)
    part._rows = self._rows[rows]
    part.codes = {
      at: self.codes[row]
      for at, row in enumerate(rows.tolist())
      if row in self.codes
    }
    return part

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
    return self[np.arange(len(self))]

  def _decode(self, rows: np.ndarray) -> None:
    new = rows[~self._there[rows]].tolist()

    def decode_row(row: int) -> None:
      path = self._folder / self._paths[row]
      try:
        values = resize.read(path, self._form).values
      except ValueError as error:
        raise errors.UserError(
          f'{path} was there at the start and cannot be read now '
          f'({error}): restore it'
        ) from error
      try:  # not through the map, where a full disk ends the process
        _write(self._file.fileno(), values.tobytes(), row * values.nbytes)
      except OSError as error:
        raise _cannot_write(error) from error

    if new:
      with futures.ThreadPoolExecutor(resize.num_threads()) as pool:
        collections.deque(pool.map(decode_row, new), maxlen=0)
      self._there[new] = True


def _write(file: int, content: bytes, start: int) -> None:
  done = 0
  while done < len(content):
    done += os.pwrite(file, content[done:], start + done)


def _cannot_write(error: OSError) -> errors.UserError:
  return errors.UserError(
    f'cannot write decoded images to {cache.directory()} ({error.strerror}): '
    'set NSL_JAX_CACHE to a folder with enough space'
  )


def inspect(
  folder: pathlib.Path,
  paths: Sequence[str],
  form: resize.Form,
  *,
  hashed: np.ndarray,
  counted: np.ndarray,
) -> Facts:
  """Looks at every file once; each process at its share of them.

  Args:
    folder: that the paths are relative to.
    paths: of all files, the same in every process, which all must call this.
    form: of the result.
    hashed: bool[N], whose pixels are hashed.
    counted: bool[N], whose levels are counted.
  """
  mine = range(jax.process_index(), len(paths), jax.process_count())
  damaged, codes = {}, {}
  facts: collections.Counter[str] = collections.Counter()
  histogram = np.zeros((form.channels, 256), int)

  files = [folder / paths[row] for row in mine]
  for row, image in zip(
    mine, resize.read_all(files, form, title='looking at images')
  ):
    if isinstance(image, str):
      damaged[row] = image
      continue
    facts.update(image.facts)
    if hashed[row]:
      codes[row] = code(image.values)
    if counted[row]:
      histogram += levels(image.values[None])
  return _merged(_gather(pickle.dumps((damaged, facts, codes, histogram))))


def code(pixels: np.ndarray) -> bytes:
  """A hash of pixels u8[H, W, C]."""
  data = np.ascontiguousarray(pixels).data
  return hashlib.blake2b(data, digest_size=16).digest()


def levels(images: np.ndarray) -> np.ndarray:
  """Histogram of levels per channel: u8[N, H, W, C] -> int[C, 256]."""
  return np.stack(
    [
      np.bincount(images[..., channel].ravel(), minlength=256)
      for channel in range(images.shape[-1])
    ]
  )


def _merged(parts: Sequence[bytes]) -> Facts:
  damaged: dict[int, str] = {}
  codes: dict[int, bytes] = {}
  facts = dict.fromkeys(pictures.FACTS, 0)
  histograms = []
  for part in map(pickle.loads, parts):
    damaged |= part[0]
    for name, number in part[1].items():
      facts[name] += number
    codes |= part[2]
    histograms.append(part[3])
  return Facts(dict(sorted(damaged.items())), facts, codes, sum(histograms))


def _gather(content: bytes) -> list[bytes]:
  """What every process gives, in every process."""
  if jax.process_count() == 1:
    return [content]
  sizes = multihost_utils.process_allgather(np.int32(len(content)))
  padded = np.zeros(sizes.max(), np.uint8)
  padded[: len(content)] = np.frombuffer(content, np.uint8)
  gathered = multihost_utils.process_allgather(padded)
  return [row[:size].tobytes() for row, size in zip(gathered, sizes)]
