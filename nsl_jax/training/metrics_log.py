"""Metrics of one run as JSON lines and TensorBoard events."""

import json
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from nsl_jax import errors, files


def read(path: files.Path) -> list[dict[str, Any]]:
  """The complete lines of a metrics file; ignores a truncated last line.

  Raises:
    errors.UserError: if a complete line is damaged.
  """
  if not path.exists():
    return []
  lines = []
  for number, text in enumerate(path.read_bytes().split(b'\n')[:-1], 1):
    try:
      lines.append(json.loads(text))
      lines[-1]['step'], lines[-1]['kind']  # both are required
    except (ValueError, TypeError, KeyError) as error:
      raise errors.UserError(
        f'{path}, line {number} is damaged ({error!r}): restore the file, or '
        'use a new --workdir'
      ) from error
  return lines


@contextmanager
def _writing(path: files.Path) -> Iterator[None]:
  """Raises a `WriteError` that names the file if that cannot be written."""
  try:
    yield
  except Exception as error:
    # Clients of buckets raise other errors.
    if not files.in_bucket(path) and not isinstance(error, OSError):
      raise
    raise errors.WriteError(
      f'cannot write {path} ({files.reason_of(error)})'
    ) from error


class _Board:
  """TensorBoard events, written by the calling thread.

  tensorboardX's writer has a thread that dies on a full disk and then blocks
  its callers.
  """

  def __init__(self, folder: pathlib.Path, *, number: int, step: int):
    """Opens a new file; events of older ones from `step` on become void.

    `number` is that of older files: names by time may collide.
    """
    # Here, since they import clients of buckets, if those are installed.
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    self._folder, self._event = folder, event_pb2.Event
    self._summary = summary.scalar
    with _writing(folder):
      folder.mkdir(exist_ok=True)
      self._writer = event_file_writer.EventsWriter(
        str(folder / 'events'), f'.{number}'
      )
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._add(step=step, session_log=start)

  def _add(self, **content: Any) -> None:
    self._writer.write_event(self._event(wall_time=time.time(), **content))

  def scalar(self, name: str, step: int, value: float) -> None:
    """One point of a curve."""
    with _writing(self._folder):
      self._add(step=step, summary=self._summary(name, value))

  def flush(self) -> None:
    """Writes the events to disk."""
    with _writing(self._folder):
      self._writer.flush()

  def close(self) -> None:
    """Closes the file; everything is already written."""
    try:
      self._writer.close()
    except OSError:
      pass


class Log:
  """Appends to `metrics.jsonl` and to TensorBoard events in `tb/`.

  A line is `{"step", "seconds", "kind": "train" | "eval", ...values}`;
  `seconds` is wall-clock time, everything else is a function of the config
  and the seed.

  Nothing can be appended to an object of a bucket, so for a folder there the
  files are local ones, of which `sync` uploads copies.

  Attributes:
    count: number of lines in the file.
  """

  def __init__(self, folder: files.Path, *, step: int):
    """Opens the files of a run at `step`, and removes lines after it.

    Raises:
      errors.UserError: if the file is damaged.
      errors.WriteError: if it cannot be written.
    """
    self._folder = local = folder
    self._synced = False
    self._temporary = None
    if files.in_bucket(folder):
      self._temporary = tempfile.TemporaryDirectory(prefix='nsl_jax_')
      local = pathlib.Path(self._temporary.name)
    self._local = pathlib.Path(local)
    lines = [
      line for line in read(folder / 'metrics.jsonl') if line['step'] <= step
    ]
    self.count = len(lines)
    self._path = self._local / 'metrics.jsonl'
    part = self._path.with_suffix('.part')
    with _writing(self._path):
      part.write_text(''.join(json.dumps(line) + '\n' for line in lines))
      part.replace(self._path)
      self._file = self._path.open('ab', buffering=0)
    events = folder / 'tb'
    number = len(list(events.iterdir())) if events.is_dir() else 0
    self._board = _Board(self._local / 'tb', number=number, step=step + 1)

  def write(
    self, kind: str, step: int, seconds: float, values: Mapping[str, Any]
  ) -> None:
    """Appends one line and flushes it to disk.

    TensorBoard gets numbers only.

    Raises:
      errors.WriteError: if it cannot be written.
    """
    line = {'step': step, 'kind': kind, **values, 'seconds': seconds}
    text = json.dumps(line).encode() + b'\n'
    with _writing(self._path):
      while text:  # a nearly full disk may accept a part only
        text = text[self._file.write(text) :]
    self.count += 1
    for name, value in values.items():
      if isinstance(value, float):
        self._board.scalar(f'{kind}/{name}', step, value)
    self._board.flush()
    self._synced = False

  def sync(self) -> None:
    """Writes the lines to the disk, or uploads the files of a folder in a
    bucket, as a checkpoint that counts them must not outlive them.

    Raises:
      errors.WriteError: if they cannot be written.
    """
    if self._synced:
      return
    if self._temporary is None:
      with _writing(self._path):
        os.fsync(self._file.fileno())
      self._synced = True
      return
    for path in (self._path, *(self._local / 'tb').iterdir()):
      target = self._folder / path.relative_to(self._local).as_posix()
      with _writing(target):
        files.copy(path, target)
    self._synced = True

  def close(self) -> None:
    """Closes both."""
    self._file.close()
    self._board.close()
    if self._temporary is not None:
      with suppress(errors.WriteError):  # lines since the last checkpoint
        self.sync()
      self._temporary.cleanup()
