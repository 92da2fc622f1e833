"""Saving and finding back the state of a run, by orbax."""

import asyncio
import errno
import functools
import logging as std_logging
import os
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from nsl_jax import errors, files
from nsl_jax.training import sharding
from nsl_jax.types import State

_PARTLY = '.orbax-checkpoint-tmp'  # in the name of an incomplete checkpoint
_PATIENCE_S = 10.0  # how long a run that broke waits for what is being written


def reason_of(error: BaseException) -> str:
  """Why a checkpoint could not be written or read, in a few words."""
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
      return 'no space left on device'
    cause = cause.__cause__ or cause.__context__
  text = (str(error).strip().splitlines() or [repr(error)])[0]
  full = 'RESOURCE_EXHAUSTED' in text and 'memory' not in text
  if full or os.strerror(errno.ENOSPC) in text:
    return 'no space left on device'
  return text.partition(' See full TensorStore details')[0][:160]


def _of_orbax(file: str) -> bool:
  return f'{os.sep}orbax{os.sep}' in file


def _is_told_once(record: std_logging.LogRecord) -> bool:
  return not _of_orbax(record.pathname) or record.levelno < std_logging.ERROR


def _is_not_of_orbax(record: std_logging.LogRecord) -> bool:
  return not _of_orbax(record.pathname)


@contextmanager
def without_log() -> Iterator[None]:
  """Keeps orbax from logging, such as that it waits for a disk."""
  log = std_logging.getLogger('absl')
  log.addFilter(_is_not_of_orbax)
  try:
    yield
  finally:
    log.removeFilter(_is_not_of_orbax)


@functools.cache  # once is enough
def log_no_errors() -> None:
  """Keeps orbax from printing, in pages, the errors that it also raises."""
  std_logging.getLogger('absl').addFilter(_is_told_once)
  call = asyncio.BaseEventLoop.call_soon_threadsafe

  def call_while_open(loop: Any, *words: Any, **options: Any) -> Any:
    try:
      return call(loop, *words, **options)
    except RuntimeError:
      # Once one writer has failed the loop is closed, and each of the others
      # that reports to it after that would print a traceback.
      if not loop.is_closed():
        raise
      return None

  setattr(asyncio.BaseEventLoop, 'call_soon_threadsafe', call_while_open)
  print_ignored = sys.unraisablehook

  def print_once(ignored: Any) -> None:
    # Of the arrays that cannot be read orbax raises one error, and leaves the
    # readers of the others behind.
    code = getattr(ignored.object, 'cr_code', None)
    if code is None or not _of_orbax(code.co_filename):
      print_ignored(ignored)

  sys.unraisablehook = print_once


def steps_in(folder: files.Path) -> list[int]:
  """Steps of the whole checkpoints in a folder, in order."""
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if _is_whole(p))


def _is_whole(path: files.Path) -> bool:
  """Whether a folder is a checkpoint that was written to its end.

  On a disk it has its name only then. In a bucket, which cannot rename, orbax
  writes one more file at the end.
  """
  has_name = path.name.isdigit()
  if has_name and files.in_bucket(path):
    return ocp.utils.is_checkpoint_finalized(path)
  return has_name


def read_state(folder: files.Path, step: int, like: State) -> State:
  """One state of a folder, which is left as it is.

  Args:
    folder: of the checkpoints.
    step: of `steps_in`.
    like: a state of the same structure, shapes and shardings.

  Raises:
    errors.UserError: if it cannot be read.
  """
  path = files.absolute(folder) / str(step) / 'state'
  try:
    with ocp.StandardCheckpointer() as reader:
      return reader.restore(path, like)
  except Exception as error:  # orbax raises whatever its layers raise
    raise errors.UserError(
      f'{path.parent} cannot be read ({reason_of(error)}): restore it, or name '
      'other weights'
    ) from error


_copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))


class Checkpoints:
  """The newest few states of one run, written in the background."""

  def __init__(self, folder: files.Path, *, keep: int | None):
    """Keeps the newest `keep` checkpoints under `folder`, or all for None."""
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      enable_async_checkpointing=True,
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        # Two of these in one process must have different barriers.
        barrier_sync_key_prefix=folder.name
      ),
    )
    self._folder = files.absolute(folder)
    self._manager = ocp.CheckpointManager(self._folder, options=options)
    self._writing = 0  # the step that may still be under way

  @contextmanager
  def _one_line(self) -> Iterator[None]:
    """Raises a `WriteError` in place of what orbax raises while writing."""
    try:
      yield
    except Exception as error:  # orbax raises whatever its layers raise
      self.remove_parts()
      raise errors.WriteError(
        f'cannot write checkpoint {self._writing} in {self._folder} '
        f'({reason_of(error)})'
      ) from error

  def remove_parts(self) -> None:
    """Removes what was written in part, which a full disk has no room for."""
    if jax.process_index() == 0 and self._folder.is_dir():
      for path in self._folder.iterdir():
        digits = path.name.isdigit()
        if _PARTLY in path.name or (digits and not _is_whole(path)):
          try:
            epath.Path(path).rmtree(missing_ok=True)
          except Exception:  # it is only in the way
            pass

  def save(self, step: int, state: State, position: dict[str, Any]) -> None:
    """Starts writing; `position` is what of the host's memory must be kept.

    The state is copied first: the loop goes on to donate its buffers while
    they are still being written.

    Raises:
      errors.WriteError: if this or the one before cannot be written.
    """
    self.wait()
    if self._manager.latest_step() == step:
      return
    self._writing = step
    with self._one_line():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(_copy(state)),
          position=ocp.args.JsonSave(position),
        ),
      )

  def restore(self, like: State) -> tuple[State, dict[str, Any]] | None:
    """The newest checkpoint that can be read, or None where there is none.

    One that cannot be read (half written, truncated) is reported, set aside
    under another name, and passed over for the one before.

    Args:
      like: a state of the same structure, shapes and shardings.

    Raises:
      errors.UserError: if there are checkpoints but none can be read.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      try:
        restored = self._manager.restore(
          step,
          args=ocp.args.Composite(
            state=ocp.args.StandardRestore(like),
            position=ocp.args.JsonRestore(),
          ),
        )
      except Exception as error:  # orbax raises whatever its layers raise
        reason = reason_of(error)
        logging.warning('checkpoint %d cannot be read: %s', step, reason)
        unreadable = (step, reason)
      else:
        if sharding.process_max(step) != step:
          raise errors.UserError(
            f'the processes cannot all read the same checkpoint in '
            f'{self._folder}: they must share that folder'
          )
        self._set_aside([s for s in steps if s > step])
        return restored.state, restored.position
    if steps:
      raise errors.UserError(
        f'no checkpoint in {self._folder} can be read (the oldest, '
        f'{unreadable[0]}: {unreadable[1]}): restore one, or move '
        f'{self._folder.parent} away to start over'
      )
    return None

  def _set_aside(self, steps: list[int]) -> None:
    if not steps:
      return
    if jax.process_index() == 0:
      for step in steps:
        name, copies = f'damaged-{step}', 0
        while (self._folder / name).exists():
          copies += 1
          name = f'damaged-{step}-{copies}'
        (self._folder / str(step)).rename(self._folder / name)
    sharding.sync_processes('damaged checkpoints set aside')
    self._manager.reload()

  def keep_only(self, steps: Collection[int]) -> None:
    """Removes all others, and what an earlier start wrote in part."""
    self.wait()
    sharding.sync_processes('checkpoints are removed')
    self.remove_parts()
    for step in set(self._manager.all_steps()) - set(steps):
      self._manager.delete(step)

  def wait(self) -> None:
    """Waits for what is being written.

    Raises:
      errors.WriteError: if it cannot be written.
    """
    with self._one_line():
      self._manager.wait_until_finished()

  def latest(self) -> int | None:
    """Step of the newest checkpoint whose writing has ended well."""
    try:
      self.wait()
    except errors.WriteError:  # then it is one before
      pass
    return max(steps_in(self._folder), default=None)

  def close(self) -> None:
    """Waits for what is being written, and ends what writes.

    Raises:
      errors.WriteError: if it cannot be written.
    """
    self.wait()
    self._manager.close()

  def abandon(self) -> None:
    """Closes after an error, which is the one to be told: raises nothing and,
    should the writing hang, does not wait for it for ever."""

    def close() -> None:
      try:
        self._manager.close()
      except Exception:  # such as the error that brought us here
        pass

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(_PATIENCE_S)


class Best:
  """The network of the lowest validation error so far, in a separate folder.

  Without the optimizer's state, and by the step at which it was found. It is
  on disk before a checkpoint names it, and stays there until a later checkpoint
  that names a better one is: whichever start goes on finds what it counts on.

  Attributes:
    seen: `{'step', 'error'}` of it, to be kept in the checkpoints; None where
      there is none yet.
  """

  def __init__(self, folder: files.Path, seen: dict[str, Any] | None):
    """Goes on from what a checkpoint names, dropping what is from a start
    that was lost."""
    self.seen = self._named = seen
    self._folder = folder
    self._store: Checkpoints | None = None
    if folder.exists():
      self._store = Checkpoints(folder, keep=None)
      self._drop()

  def _drop(self) -> None:
    """Removes all that no checkpoint names any more."""
    if self._store is not None:
      steps = [
        position['step'] for position in (self._named, self.seen) if position
      ]
      self._store.keep_only(steps)

  def offer(self, step: int, state: State, error: float | None) -> None:
    """Starts to write this state if its validation error is the lowest; the
    earliest of equals stays, and nothing is done where nothing is held out.

    Raises:
      errors.WriteError: if one before cannot be written.
    """
    if error is None or (self.seen and not error < self.seen['error']):
      return
    if self._store is None:
      self._store = Checkpoints(self._folder, keep=None)
    self.seen = {'step': step, 'error': error}
    self._store.save(step, state.replace(opt=()), dict(self.seen))

  def wait(self) -> None:
    """Waits for what is being written, see `Checkpoints.wait`."""
    if self._store is not None:
      self._store.wait()

  def named(self) -> None:
    """A checkpoint with `seen` follows, and the one before it is on disk."""
    self._drop()
    self._named = self.seen

  def abandon(self) -> None:
    """See `Checkpoints.abandon`."""
    if self._store is not None:
      self._store.abandon()
