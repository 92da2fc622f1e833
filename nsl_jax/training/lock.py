"""One run at a time in a folder."""

import contextlib
import datetime
import errno
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import jax

from nsl_jax import errors, files
from nsl_jax.training import sharding

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None  # type: ignore[assignment]

# Errors of flock on file systems that do not support it.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_BEAT_S = 10.0  # how often a holder renews its lock
_SETTLE_S = 2.0  # a read, a removal and a write of another that takes over
_PATIENCE_S = 8.0  # without an answer of a bucket
_LEASE_S = 45.0  # a lock that is not renewed for so long is of a dead run


class Lock:
  """Holds `lock.json` in a folder until `release` or the end of the process.

  The file names its holder: host, process id and start. On a disk of the same
  host flock tells whether the holder is alive, and the file of a dead process
  is taken over. Elsewhere, and in a bucket, a holder is alive as long as it
  renews the file; that of one that has died is taken over after 45 seconds, so
  that a job may be restarted on another machine. In a run of several processes
  the first one holds it for all.
  """

  def __init__(self, folder: files.Path):
    """`folder`: that of the run. Does not take the lock."""
    self._path = folder / 'lock.json'
    self._file: int | None = None  # none in a bucket
    self._flocked = False
    self._mine: dict[str, Any] = {}
    self._ended = threading.Event()
    self._renewing: threading.Thread | None = None
    self._taken = False

  def take(self) -> None:
    """Takes the lock unless it is already held; all processes must call this.

    Raises:
      errors.UserError: in every process, if another run holds it.
    """
    if self._taken:
      return
    sharding.in_first_process(self._take, f'use {self._path.parent}')
    self._taken = True

  def _take(self) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    self._mine = {
      'host': platform.node(),
      'pid': os.getpid(),
      'since': now.isoformat(timespec='seconds'),
      'token': uuid.uuid4().hex,
      'beat': 0,
    }
    try:
      if not files.in_bucket(self._path):
        self._file = self._open()
      with _telling_if_slow(self._path):
        holder = self._read()
      self._check_holder_is_dead(holder)
      self._create(holder)
    except errors.UserError:
      self._close()
      raise
    except Exception as error:  # clients of buckets raise other errors
      self._close()
      if not files.in_bucket(self._path) and not isinstance(error, OSError):
        raise
      raise errors.UserError(
        f'cannot write {self._path} ({files.reason_of(error)}): choose another '
        '--workdir'
      ) from error
    self._ended.clear()
    self._renewing = threading.Thread(target=self._renew, daemon=True)
    self._renewing.start()

  def _open(self) -> int:
    """The open, locked file; reopens one that its holder has just removed."""
    while True:
      file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
      try:
        self._flocked = self._lock(file)
        if os.path.samestat(os.fstat(file), os.stat(self._path)):
          return file
      except FileNotFoundError:
        pass
      except BaseException:
        os.close(file)
        raise
      os.close(file)

  def _lock(self, file: int) -> bool:
    """Locks the file; False without flock, where its content decides."""
    if fcntl is None:
      return False
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      for _ in range(20):  # it may not have written its name yet
        if self._read():
          break
        time.sleep(0.05)
      raise self._in_use(self._read()) from error
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      return False
    return True

  def _check_holder_is_dead(self, holder: dict[str, Any]) -> None:
    """Returns once the process in the content is dead.

    Raises:
      errors.UserError: if it is alive.
    """
    same_host = holder.get('host', platform.node()) == platform.node()
    if not holder or (self._flocked and same_host):
      return
    # Two containers may have the same host name, and the same process ids.
    print(
      f'{self._path} is of {_describe(holder)}: waiting {_LEASE_S:.0f} s to '
      'see whether it is renewed',
      file=sys.stderr,
      flush=True,
    )
    begun = time.monotonic()
    while time.monotonic() < begun + _LEASE_S:
      time.sleep(min(1.0, _LEASE_S / 10))
      if self._read() not in (holder, {}):
        raise self._in_use(self._read())

  def _in_use(self, holder: dict[str, Any]) -> errors.UserError:
    return errors.UserError(
      f'{self._path.parent} is in use by {_describe(holder)}: wait for it, or '
      'use another --workdir'
    )

  def _create(self, holder: dict[str, Any]) -> None:
    """Writes the file; of two that try at once in a bucket, one succeeds."""
    if self._file is not None:
      self._write()
      return
    import fsspec

    if self._read() != holder:
      raise self._in_use(self._read())
    if holder:
      self._path.unlink(missing_ok=True)
    try:
      with fsspec.open(str(self._path), 'xb') as file:
        file.write(_text(self._mine))
    except FileExistsError:
      raise self._in_use(self._read()) from None
    # Another one may have removed it in place of the dead holder's.
    time.sleep(_SETTLE_S * bool(holder))
    if self._read().get('token') != self._mine['token']:
      raise self._in_use(self._read())

  def _write(self) -> None:
    if self._file is None:
      self._path.write_bytes(_text(self._mine))
      return
    os.pwrite(self._file, _text(self._mine), 0)
    os.ftruncate(self._file, len(_text(self._mine)))

  def _read(self) -> dict[str, Any]:
    """The holder, or {} if there is none or it died before it wrote."""
    try:
      content = json.loads(self._path.read_bytes())
    except (FileNotFoundError, ValueError):
      return {}
    return content if isinstance(content, dict) else {}

  def _renew(self) -> None:
    """Renews the file until the end, and ends the process if another run, which
    took this one for dead, has it: two would write over one another."""
    while not self._ended.wait(_BEAT_S):
      try:
        holder = self._read()
        if holder and holder.get('token') != self._mine['token']:
          print(
            f'error: {self._path} was taken over by {_describe(holder)} while '
            'this process stood still: the run goes on there',
            file=sys.stderr,
            flush=True,
          )
          os._exit(1)
        if holder and not self._ended.is_set():
          self._mine['beat'] += 1
          self._write()
      except Exception:  # no network for a while, which training may outlast
        pass

  def _close(self) -> None:
    file, self._file = self._file, None
    if file is not None:
      os.close(file)

  def release(self) -> None:
    """Removes the file if it is held."""
    self._ended.set()
    if self._renewing is not None:  # only where this process holds it
      self._renewing.join()
      self._renewing = None
      with contextlib.suppress(Exception):  # it is found dead in 45 s
        if self._read().get('token') == self._mine['token']:
          files.remove(self._path)
    self._close()
    self._taken = False

  def __enter__(self) -> 'Lock':
    """Takes the lock if the folder exists; otherwise no run can be in it."""
    # Of a bucket only writing to it tells whether it can be used.
    exists = files.in_bucket(self._path) or self._path.parent.is_dir()
    if jax.distributed.is_initialized():  # all processes take it, or none
      exists = bool(sharding.process_max(exists))
    if exists:
      self.take()
    return self

  def __exit__(self, *_: object) -> None:
    """Releases it."""
    self.release()


@contextlib.contextmanager
def _telling_if_slow(path: files.Path) -> Iterator[None]:
  """Says so if a bucket does not answer; its client tries for a minute."""
  line = f'no answer yet from {path}: retrying'
  slow = threading.Timer(_PATIENCE_S, lambda: print(line, file=sys.stderr))
  slow.daemon = True
  slow.start()
  try:
    yield
  finally:
    slow.cancel()


def _text(content: dict[str, Any]) -> bytes:
  return json.dumps(content).encode() + b'\n'


def _describe(holder: dict[str, Any]) -> str:
  return 'process {pid} on {host} since {since}'.format(
    **{'pid': '?', 'host': '?', 'since': '?', **holder}
  )
