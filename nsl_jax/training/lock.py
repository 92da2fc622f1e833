"""One run at a time in a folder."""

import datetime
import errno
import json
import os
import pathlib
import platform
import time
from typing import Any

import jax

from nsl_jax import errors
from nsl_jax.training import sharding

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None  # type: ignore[assignment]

# Errors of flock on file systems that do not support it.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Lock:
  """Holds `lock.json` in a folder until `release` or the end of the process.

  The file names its holder: host, process id and start. On the same host flock
  tells whether the holder is alive, and the file of a dead process is taken
  over; a file of another host is refused. In a run of several processes the
  first one holds it for all.
  """

  def __init__(self, folder: pathlib.Path):
    """`folder`: that of the run. Does not take the lock."""
    self._path = folder / 'lock.json'
    self._file: int | None = None
    self._taken = False

  def take(self) -> None:
    """Takes the lock unless it is already held; all processes must call this.

    Raises:
      errors.UserError: in every process, if another run holds it.
    """
    if self._taken:
      return
    # A single process fails before it takes a device.
    alone = not jax.distributed.is_initialized()
    refusal = None
    if alone or jax.process_index() == 0:
      try:
        self._take()
      except errors.UserError as error:
        refusal = error
    if (
      not alone
      and sharding.process_max(refusal is not None)
      and refusal is None
    ):
      refusal = errors.UserError(
        f'process 0 cannot use {self._path.parent}: see what it says'
      )
    if refusal is not None:
      raise refusal
    self._taken = True

  def _take(self) -> None:
    try:
      self._file = self._open()
      self._judge(self._file)
      self._write(self._file)
    except OSError as error:
      self._close()
      raise errors.UserError(
        f'cannot write {self._path} ({error.strerror}): choose another '
        '--workdir'
      ) from error
    except errors.UserError:
      self._close()
      raise

  def _open(self) -> int:
    """The open, locked file; reopens one that its holder has just removed."""
    while True:
      file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
      try:
        self._lock(file)
        if os.path.samestat(os.fstat(file), os.stat(self._path)):
          return file
      except FileNotFoundError:
        pass
      except BaseException:
        os.close(file)
        raise
      os.close(file)

  def _lock(self, file: int) -> None:
    """Locks the file; without flock its content decides."""
    if fcntl is None:
      return
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      for _ in range(
        20
      ):  # it may have started without having written its name yet
        if _read(file):
          break
        time.sleep(0.05)
      raise self._in_use(_read(file), 'wait for it') from error
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise

  def _judge(self, file: int) -> None:
    """Raises a UserError if the process in the content may be alive."""
    holder = _read(file)
    remedy = f'if that run is dead delete {self._path}'
    if holder.get('host', platform.node()) != platform.node():
      raise self._in_use(holder, remedy)
    if fcntl is None and _alive(holder.get('pid')):
      raise self._in_use(holder, remedy)

  def _in_use(self, holder: dict[str, Any], remedy: str) -> errors.UserError:
    who = 'process {pid} on {host} since {since}'.format(
      **{'pid': '?', 'host': '?', 'since': '?', **holder}
    )
    return errors.UserError(
      f'{self._path.parent} is in use by {who}: {remedy}, or use another '
      '--workdir'
    )

  def _write(self, file: int) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    content = {
      'host': platform.node(),
      'pid': os.getpid(),
      'since': now.isoformat(timespec='seconds'),
    }
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(content).encode() + b'\n', 0)

  def _close(self) -> None:
    file, self._file = self._file, None
    if file is not None:
      os.close(file)

  def release(self) -> None:
    """Removes the file if it is held."""
    if self._file is not None:
      self._path.unlink(missing_ok=True)
      self._close()
    self._taken = False

  def __enter__(self) -> 'Lock':
    """Takes the lock if the folder exists; otherwise no run can be in it."""
    there = self._path.parent.is_dir()
    if jax.distributed.is_initialized():  # all processes take it, or none
      there = bool(sharding.process_max(there))
    if there:
      self.take()
    return self

  def __exit__(self, *_: object) -> None:
    """Releases it."""
    self.release()


def _read(file: int) -> dict[str, Any]:
  """The holder, or {} if it died before it wrote the file."""
  try:
    content = json.loads(os.pread(file, 4096, 0))
  except ValueError:
    return {}
  return content if isinstance(content, dict) else {}


def _alive(pid: Any) -> bool:
  try:
    os.kill(pid, 0)
  except PermissionError:
    return True
  except (OSError, TypeError):
    return False
  return pid != os.getpid()
