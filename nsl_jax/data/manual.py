"""Data sets of our builders, made from files placed by the user."""

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
  """TFDS's folder for files placed by the user."""
  return data_dir / 'downloads' / 'manual'


def build(
  builder_cls: type[tfds.core.GeneratorBasedBuilder],
  files: Sequence[pathlib.Path],
  data_dir: pathlib.Path,
  cache_dir: pathlib.Path,
) -> pathlib.Path:
  """Writes a data set in array_record form, without TensorFlow.

  Args:
    builder_cls: builder that reads from TFDS's manual folder.
    files: the files that it reads; messages name the first.
    data_dir: target folder if it is writable.
    cache_dir: target folder otherwise.

  Returns:
    The folder of the prepared data set.

  Raises:
    UserError: a file is malformed, or the disk is full.
  """
  target = data_dir
  if not _writable(data_dir):
    target = cache_dir / f'prepared-{cache.fingerprint(files)[:12]}'
  config = tfds.download.DownloadConfig(
    manual_dir=folder(data_dir), try_download_gcs=False
  )
  made = target / builder_cls.name / str(builder_cls.VERSION)
  try:
    builder = builder_cls(data_dir=target, file_format='array_record')
    with contextlib.redirect_stdout(sys.stderr):
      builder.download_and_prepare(
        download_dir=target / 'downloads', download_config=config
      )
  except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
    if (made / 'dataset_info.json').exists():  # by another process meanwhile
      return made
    # The last line of TFDS's message has the reason.
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    raise errors.UserError(
      f'cannot prepare {builder_cls.name} in {target} from {files[0]} '
      f'({reason[:120]}); check that the file is whole and the folder can be '
      'written'
    ) from error
  return made


def _writable(path: pathlib.Path) -> bool:
  """Whether a folder is writable by its mode, also for root."""
  return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)
