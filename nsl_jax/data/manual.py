"""Data sets of our own builders, made from files that the user has placed."""

import contextlib
import os
import pathlib
import sys
import zipfile
from collections.abc import Sequence

import tensorflow_datasets as tfds

from nsl_jax import errors
from nsl_jax.data import cache


def folder(data_dir: pathlib.Path) -> pathlib.Path:
  """Where users put files, as TFDS has it."""
  return data_dir / 'downloads' / 'manual'


def build(
  builder_cls: type[tfds.core.GeneratorBasedBuilder],
  files: Sequence[pathlib.Path],
  data_dir: pathlib.Path,
  cache_dir: pathlib.Path,
) -> pathlib.Path:
  """Writes a data set in array_record form, without TensorFlow.

  Args:
    builder_cls: reads from TFDS's manual folder, and gives images as files.
    files: what it reads; messages name the first.
    data_dir: where the data set goes, if that can be written.
    cache_dir: where it goes otherwise.

  Returns:
    The folder of the prepared data set.

  Raises:
    UserError: a file is not as the builder wants it, or the disk is full.
  """
  target = data_dir
  if not _writable(data_dir):
    target = cache_dir / f'prepared-{cache.fingerprint(files)[:12]}'
  config = tfds.download.DownloadConfig(
    manual_dir=folder(data_dir), try_download_gcs=False
  )
  try:
    builder = builder_cls(data_dir=target, file_format='array_record')
    with contextlib.redirect_stdout(sys.stderr):
      builder.download_and_prepare(
        download_dir=target / 'downloads', download_config=config
      )
  except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
    # TFDS says what it was doing first, and why that failed last.
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    raise errors.UserError(
      f'cannot prepare {builder_cls.name} in {target} from {files[0]} '
      f'({reason[:120]}); check that the file is whole and the folder can be '
      'written'
    ) from error
  return pathlib.Path(builder.data_dir)


def _writable(path: pathlib.Path) -> bool:
  """Whether files may be made in a folder; heeds its mode for root too."""
  return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)
