"""Paths on a disk or in a bucket, and atomic writing of files."""

import csv
import hashlib
import importlib.util
import io
import logging
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from etils import epath

from nsl_jax import errors

Path: TypeAlias = pathlib.Path | epath.Path  # a local path, or one in a bucket
_SCHEME = 'gs://'
_LONGEST = 180  # bytes of the name of a folder, of which disks allow 255


def path_of(text: str | os.PathLike[str], option: str) -> Path:
  """The path that a word names: a local one, or `gs://BUCKET/…`.

  Args:
    text: the word; `~` is the home folder.
    option: what was set to it.

  Raises:
    errors.UserError: for another address, or if gcsfs is not installed.
  """
  word = os.fspath(text)
  if not word.startswith(_SCHEME):
    errors.refuse_address(word, option, 'local folders and gs://… buckets')
    return pathlib.Path(word).expanduser()
  if not word.removeprefix(_SCHEME).strip('/'):
    raise errors.UserError(f'{option}={word} names no bucket')
  if importlib.util.find_spec('gcsfs') is None:
    raise errors.UserError(
      f'{option}={word} is in a bucket, which needs gcsfs: '
      'pip install "nsl_jax[gcs]"'
    )
  import fsspec

  # One client, whether or not TensorFlow is installed, that keeps no listings:
  # tensorstore and other processes write there, too.
  os.environ.setdefault('EPATH_USE_TF', 'false')
  for name in ('gcsfs', 'google.auth'):  # what they log they also raise
    logging.getLogger(name).setLevel(logging.CRITICAL)
  fsspec.config.conf.setdefault('gcs', {})['use_listings_cache'] = False
  return epath.Path(word)


def short_name(name: str) -> str:
  """The name of a folder: of a long one the start, and its hash."""
  if len(name.encode()) <= _LONGEST:
    return name
  digest = hashlib.sha256(name.encode()).hexdigest()[:12]
  start = name.encode()[:_LONGEST].decode(errors='ignore')
  return f'{start}...{digest}'


def in_bucket(path: Path) -> bool:
  """Whether a path is in a bucket, where files cannot be renamed or appended
  to, and folders are only parts of names."""
  return not isinstance(path, pathlib.Path)


def absolute(path: Path) -> Path:
  """The path from the root of the disk, or that in the bucket as it is."""
  return path if in_bucket(path) else path.absolute()


def reason_of(error: BaseException) -> str:
  """Why a file cannot be read or written, in a few words."""
  if isinstance(error, FileNotFoundError) and not error.strerror:
    return 'no such bucket'  # of its client, for which folders need not exist
  text = getattr(error, 'strerror', None) or str(error).strip() or repr(error)
  return ' '.join(text.splitlines()[0].split())[:160]


def make_folder(folder: Path, option: str) -> None:
  """Creates a folder, so that a run fails early if it cannot write.

  Args:
    folder: created with its parents; it may exist. In a bucket only tries to
      write there.
    option: command-line option that names it.

  Raises:
    errors.UserError: if it cannot be created or is not writable.
  """
  if in_bucket(folder):
    probe = folder / '.writable'
    write(probe, b'')
    remove(probe)
    return
  errors.refuse_address(folder, option)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UserError(
      f'cannot make the folder {folder} ({error.strerror}): choose '
      f'another {option}'
    ) from error
  if not os.access(folder, os.W_OK):
    raise errors.UserError(f'cannot write to {folder}: choose another {option}')


@contextmanager
def replacing(path: Path) -> Iterator[pathlib.Path]:
  """A local file to write, which replaces `path` at the end of the block, whole
  or not at all.

  An object of a bucket is not there before its upload has ended.
  """
  if in_bucket(path):
    with tempfile.TemporaryDirectory(prefix='nsl_jax_') as folder:
      part = pathlib.Path(folder, path.name)
      yield part
      copy(part, path)
    return
  # Another name each time, since two processes may write the same file.
  part = path.with_name(f'{path.name}.{uuid.uuid4().hex[:8]}.part')
  try:
    yield part
    with part.open('rb+') as file:
      os.fsync(file.fileno())  # or a crash may leave the new name empty
    os.replace(part, path)
  finally:  # on a full disk even half a file is in the way
    remove(part)


def copy(source: pathlib.Path, path: Path) -> None:
  """Copies a local file; to a bucket whole or not at all."""
  if not in_bucket(path):
    shutil.copyfile(source, path)
    return
  import fsspec

  # A file object would commit what it has when an upload fails.
  fsspec.filesystem('gs').put_file(str(source), str(path))


def write(path: Path, content: bytes) -> None:
  """Replaces the content of a file atomically.

  Raises:
    errors.UserError: if the file cannot be written.
  """
  errors.refuse_address('' if in_bucket(path) else path, 'the file')
  try:
    with replacing(path) as part:
      part.write_bytes(content)
  except Exception as error:
    if not in_bucket(path) and not isinstance(error, OSError):
      raise
    raise errors.UserError(
      f'cannot write {path} ({reason_of(error)}): choose another place'
    ) from error


def remove(path: Path) -> None:
  """Removes a file if that is possible."""
  try:
    path.unlink(missing_ok=True)
  except Exception as error:
    # A file that could not be written may not be removable; clients of buckets
    # raise other errors.
    if not in_bucket(path) and not isinstance(error, OSError):
      raise


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
  """Writes a table with a header; None becomes an empty cell.

  Args:
    path: path of the file.
    lines: at least one, all with the same columns.

  Raises:
    errors.UserError: if the file cannot be written.
  """
  text = io.StringIO()
  table = csv.DictWriter(text, list(lines[0]), lineterminator='\n')
  table.writeheader()
  table.writerows(lines)
  write(path, text.getvalue().encode())
