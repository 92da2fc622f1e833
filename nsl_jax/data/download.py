"""Data sets of TFDS, which TensorFlow prepares from downloaded archives."""

import contextlib
import pathlib
import sys
import threading
import urllib.parse
import urllib.request
from typing import Any

from nsl_jax import errors

_CONNECT_SECONDS = 5.0  # Timeout after which the machine counts as offline.


def prepare(
  name: str, tfds_name: str, data_dir: pathlib.Path, command: str
) -> pathlib.Path:
  """Lets TFDS prepare a data set as array_record; never edits its checksums.

  Args:
    name: the data set.
    tfds_name: its name in TFDS.
    data_dir: target folder; may have archives in downloads/manual.
    command: command to run again after archives are added, for messages.

  Returns:
    The folder of the prepared data set.

  Raises:
    UserError: an archive is missing or wrong, or TFDS fails.
  """
  import tensorflow_datasets as tfds

  downloads = data_dir / 'downloads'
  manual = downloads / 'manual'
  if (manual / tfds_name).is_dir():
    manual = manual / tfds_name
  archives = tfds.builder_cls(tfds_name).url_infos
  _check_archives(name, tfds_name, downloads, manual, archives, command)
  import tensorflow as tf  # Slow, so only now.

  tf.config.set_visible_devices([], 'GPU')
  config = tfds.download.DownloadConfig(
    manual_dir=manual, try_download_gcs=False
  )
  builder_options = {'data_dir': data_dir, 'try_gcs': False}
  try:
    with contextlib.redirect_stdout(sys.stderr):
      builder = tfds.builder(
        tfds_name, file_format='array_record', **builder_options
      )
      builder.download_and_prepare(
        download_dir=downloads, download_config=config
      )
  except Exception as error:  # Network, disk or archive: TFDS raises each kind.
    raise errors.UserError(
      f'cannot prepare {name} ({reason(error)}); archives are taken from '
      f'{manual}; then run again: {command}'
    ) from error
  return pathlib.Path(builder.data_dir)


def _check_archives(
  name: str,
  tfds_name: str,
  downloads: pathlib.Path,
  manual: pathlib.Path,
  archives: dict[str, Any],
  command: str,
) -> None:
  """Checks archives in seconds; TFDS would retry for minutes.

  Args:
    name: the data set.
    tfds_name: its name in TFDS.
    downloads: TFDS's folder of downloads.
    manual: folder of archives placed by the user.
    archives: TFDS's registry, URL -> (size, checksum, filename).
    command: command to run after archives are added, for messages.

  Raises:
    UserError: an archive has the wrong size, or is missing and cannot be
      downloaded.
  """
  from tensorflow_datasets.core.download import resource

  absent = []
  for url, info in archives.items():
    path = manual / info.filename
    if path.is_file() and path.stat().st_size != info.size:
      raise errors.UserError(
        f'{path} has {path.stat().st_size} bytes, but {name} needs '
        f'{_describe(info)}; replace it, or put the archives of {name} into '
        f'{manual / tfds_name}'
      )
    cached = resource.get_dl_fname(url, info.checksum)
    if not path.is_file() and not (downloads / cached).is_file():
      absent.append(url)
  if absent and not _reachable(absent[0]):
    files = ', '.join(_describe(archives[url]) for url in absent)
    raise errors.UserError(
      f'{urllib.parse.urlsplit(absent[0]).netloc} cannot be reached; put '
      f'{files} into {manual}, then run: {command}'
    )


def _describe(info: Any) -> str:
  """The file name, size and checksum of an archive."""
  return f'{info.filename} ({int(info.size)} bytes, SHA-256 {info.checksum})'


def _reachable(url: str) -> bool:
  """Whether the server of `url` answers, through the proxy if one is set."""
  answers = []

  def ask() -> None:
    request = urllib.request.Request(url, method='HEAD')
    try:
      with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS):
        answers.append(True)
    except OSError as error:  # 405: a server that refuses only HEAD.
      answers.append(getattr(error, 'code', None) == 405)

  thread = threading.Thread(target=ask, daemon=True)  # Name look-ups can hang.
  thread.start()
  thread.join(_CONNECT_SECONDS)
  return any(answers)


def reason(error: Exception) -> str:
  """The first line of an error's text, truncated."""
  return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
