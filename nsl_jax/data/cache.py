"""Disk cache of pairs of arrays; damaged or stale entries count as absent."""

import hashlib
import json
import math
import os
import pathlib
import uuid
from collections.abc import Callable, Iterable

import numpy as np
from absl import logging

from nsl_jax import errors, memory

_FORMAT = 'nsl_jax arrays 2'  # Change it when older entries become invalid.
_LINE = 65536  # Longest valid header line in bytes.

ArrayPair = tuple[np.ndarray, np.ndarray]
Facts = dict[str, int]  # Counts that are recorded while a pair is made.


def directory(cache_dir: str | None = None) -> pathlib.Path:
  """The cache folder: the argument, NSL_JAX_CACHE, XDG_CACHE_HOME or ~/.cache.

  Args:
    cache_dir: a folder, or None for the first of the others that is set.

  Returns:
    The absolute folder, which may not exist.

  Raises:
    errors.UserError: for the address of a bucket.
  """
  chosen = cache_dir or os.environ.get('NSL_JAX_CACHE')
  if not chosen:
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    chosen = os.path.join(base, 'nsl_jax')
  errors.refuse_address(chosen, 'NSL_JAX_CACHE')
  return pathlib.Path(chosen).expanduser().absolute()


def fingerprint(files: Iterable[pathlib.Path]) -> str:
  """SHA-256 over the absolute path, size and modification time of `files`."""
  facts = []
  for file in sorted(files):
    status = file.stat()
    facts.append((str(file.absolute()), status.st_size, status.st_mtime_ns))
  return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def digest(header: bytes, arrays: Iterable[np.ndarray]) -> str:
  """SHA-256 of `header`, which has their shapes, and the arrays' values."""
  sha = hashlib.sha256(header)
  for array in arrays:
    flat = np.ascontiguousarray(array).reshape(-1)
    sha.update(flat.view(np.uint8).data)
  return sha.hexdigest()


def fetch(
  path: pathlib.Path, key: str, make: Callable[[], ArrayPair]
) -> ArrayPair:
  """Reads two arrays from `path`, or makes them and writes them there.

  Args:
    path: file of the entry; its folder is created if needed.
    key: identifies the source; an entry with another key is replaced.
    make: returns the arrays if there is no valid entry.

  Returns:
    The arrays. A cache that cannot be written causes a warning only.
  """
  return fetch_counted(path, key, lambda: (make(), {}))[0]


def fetch_counted(
  path: pathlib.Path, key: str, make: Callable[[], tuple[ArrayPair, Facts]]
) -> tuple[ArrayPair, Facts]:
  """Like `fetch`, with counts that are stored with the arrays."""
  entry = _read(path, key)
  if entry is None:
    entry = make()
    try:
      _write(path, key, *entry)
    except OSError as error:
      logging.warning(
        'not cached for the next run: cannot write %s (%s); set NSL_JAX_CACHE '
        'to a folder that can be written',
        path,
        error.strerror,
      )
  return entry


def _read(path: pathlib.Path, key: str) -> tuple[ArrayPair, Facts] | None:
  """Arrays and counts of a valid entry with this key, else None."""
  try:
    with path.open('rb') as file:
      expected = file.readline(_LINE).decode().strip()
      header = file.readline(_LINE)
      facts = json.loads(header)
      if (facts['format'], facts['key']) != (_FORMAT, key):
        return None
      counts = dict(facts['counts'])
      arrays = [(np.dtype(kind), shape) for kind, shape in facts['arrays']]
      size = sum(kind.itemsize * math.prod(shape) for kind, shape in arrays)
      if path.stat().st_size - file.tell() != size:
        return None
      first, second = (memory.empty(shape, kind) for kind, shape in arrays)
      for array in (first, second):
        file.readinto(array.reshape(-1).view(np.uint8).data)
  except (OSError, ValueError, KeyError, TypeError):
    return None
  pair = first, second
  return (pair, counts) if digest(header, pair) == expected else None


def _write(
  path: pathlib.Path, key: str, pair: ArrayPair, counts: Facts
) -> None:
  """Writes digest, header and arrays to a temporary file, then renames it."""
  pair = np.ascontiguousarray(pair[0]), np.ascontiguousarray(pair[1])
  facts = {
    'format': _FORMAT,
    'key': key,
    'counts': counts,
    'arrays': [(array.dtype.str, array.shape) for array in pair],
  }
  header = json.dumps(facts).encode() + b'\n'
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'{path.name}.{uuid.uuid4().hex}')
  try:
    with temporary.open('xb') as file:
      file.write(digest(header, pair).encode() + b'\n' + header)
      for array in pair:
        file.write(array.reshape(-1).view(np.uint8).data)
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
