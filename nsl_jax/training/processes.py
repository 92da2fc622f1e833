"""Several processes: how they join, and how they end when one of them is lost.

jax ends a process whose coordinator or peer is gone by an abort in C++, with a
dump of its stack. So each of several processes is the child of a small one,
which relays its standard error and, in place of the dump, prints one line.
"""

import contextlib
import ctypes
import glob
import importlib.util
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

import jax

from nsl_jax import errors

LOST = 69  # exit status: another process is gone; the same command resumes
JOIN_S = 300  # how long processes wait for one another at the start
_HEARTBEAT_S = 20  # a process that is silent for so long is lost
_HOLD_S = 10.0  # how long what may be fatal is held back from a living child
_GRACE_S = 5.0  # how long one that fails waits for others to say why they do
# What jax writes before it aborts, from the first line on, and what may be the
# start of that.
_LOG = rb'[EF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ '
_FATAL = re.compile(
  _LOG + rb'(coordination_service|preemption_sync_manager|client\.h)'
)
_STARTED = re.compile(rb'[EF](\d{0,4}|\d{4} [^\n]*)\Z')
_SILENT = re.compile(rb'stopped sending heartbeats\):\s*((?:\S*\d+\s*)+)')


def join(
  coordinator: str | None,
  processes: int | None,
  index: int | None,
  *,
  within_s: int = JOIN_S,
) -> None:
  """Joins the other processes if there are any.

  Uses the arguments if given; without them it starts automatically on a TPU pod
  and in a Slurm job of several tasks. Must run before any use of a device.
  From then on this process ends with status `LOST`, and a line that names it,
  within 30 seconds of the loss of another one.

  Args:
    coordinator: `HOST:PORT` of process 0.
    processes: number of processes.
    index: number of this one.
    within_s: how long to wait for the others.

  Raises:
    errors.UserError: if only some of the first three are given, or they are
      invalid.
  """
  are_set = [value is not None for value in (coordinator, processes, index)]
  if any(are_set) and not all(are_set):
    raise errors.UserError(
      'give all of --coordinator_address, --num_processes and --process_id, '
      'or none of them'
    )
  if coordinator is None:
    if not _on_cluster():
      return
  else:
    assert processes is not None and index is not None
    _check(coordinator, processes, index)
  if within_s < 1:
    raise errors.UserError(f'--join_s={within_s}: must be at least 1')
  address = coordinator or 'the address that the cluster gives'
  joined = _supervise(address, within_s)
  if coordinator is not None and index:
    _wait_for(coordinator, within_s)
  jax.distributed.initialize(
    coordinator,
    processes,
    index,
    initialization_timeout=within_s,
    heartbeat_timeout_seconds=_HEARTBEAT_S,
  )
  if joined is not None:
    os.write(joined, b'joined')


def is_joined() -> bool:
  """Whether this is one of several processes."""
  return bool(jax.distributed.is_initialized())


def leave(status: int) -> NoReturn:
  """Ends a process that cannot go on, without waiting for threads.

  One of several does not wait for the others at jax's barrier, where they may
  never come, but for a moment: if they fail for the same reason each says so
  itself.
  """
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):  # the reader is gone
      stream.flush()
  if is_joined():
    time.sleep(_GRACE_S)
  os._exit(status)


def await_loss() -> None:
  """Waits as long as it takes to learn that another process is lost, by which
  this one ends: an error in communication does not say which."""
  time.sleep(_HEARTBEAT_S + 2 * _GRACE_S)


def _on_cluster() -> bool:
  tasks = os.environ.get('SLURM_NTASKS', '1')
  in_step = 'SLURM_STEP_NODELIST' in os.environ
  if in_step and tasks.isdigit() and int(tasks) > 1:
    return True
  # A Cloud TPU lists its hosts in a metadata server, not in the environment, so
  # every TPU host must ask.
  if importlib.util.find_spec('libtpu') is None:
    return False
  return bool(glob.glob('/dev/accel*') or glob.glob('/dev/vfio/[0-9]*'))


def _check(coordinator: str, processes: int, index: int) -> None:
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdigit() or not 0 < int(port) < 2**16:
    raise errors.UserError(
      f'--coordinator_address={coordinator}: must be HOST:PORT of process 0'
    )
  if processes < 1 or not 0 <= index < processes:
    raise errors.UserError(
      f'--process_id={index}: must be from 0 to --num_processes - 1 = '
      f'{processes - 1}'
    )


def _wait_for(coordinator: str, within_s: int) -> None:
  """Waits until something listens there.

  Raises:
    errors.UserError: if nothing does in time.
  """
  host, _, port = coordinator.rpartition(':')
  until = time.monotonic() + within_s
  while True:
    try:
      socket.create_connection((host.strip('[]'), int(port)), 5.0).close()
      return
    except OSError as error:
      reason = error.strerror or str(error)
    if time.monotonic() > until:
      raise errors.UserError(
        f'no coordinator at {coordinator} within {within_s} s ({reason}): '
        'start process 0 there, or correct --coordinator_address'
      )
    time.sleep(0.5)


def _supervise(address: str, within_s: int) -> int | None:
  """Goes on in a child process; what remains here ends as that does.

  Returns:
    Where the child tells that it has joined; None where a process has no
    children.
  """
  if not hasattr(os, 'fork'):
    return None
  sys.stdout.flush()
  sys.stderr.flush()
  stderr_fd, child_fd = os.pipe()
  joined, joining = os.pipe()
  parent = os.getpid()
  with _without_warnings():
    child = os.fork()
  if not child:
    os.close(stderr_fd)
    os.close(joined)
    os.dup2(child_fd, 2)
    os.close(child_fd)
    _die_with(parent)
    return joining
  os.close(child_fd)
  os.close(joining)
  for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda n, _: _pass_on(child, n))
  fatal, status = _relay(stderr_fd, child)
  if os.WIFSIGNALED(status) and fatal:
    line = _lost_line(fatal, address, within_s, bool(os.read(joined, 1)))
    os.write(2, f'error: {line}\n'.encode())
    os._exit(LOST)
  os.write(2, fatal)
  if os.WIFSIGNALED(status):
    ended_by = os.WTERMSIG(status)
    if ended_by == signal.SIGKILL:
      os.write(2, b'error: killed, as when the memory is exhausted\n')
    else:
      signal.signal(ended_by, signal.SIG_DFL)
      os.kill(parent, ended_by)
    os._exit(128 + ended_by)  # also where this is process 1, which ignores it
  os._exit(os.WEXITSTATUS(status))


def _pass_on(child: int, number: int) -> None:
  with contextlib.suppress(ProcessLookupError):  # it has just ended
    os.kill(child, number)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
  """No warning of a fork: no device is in use yet."""
  import warnings

  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    yield


def _die_with(parent: int) -> None:
  """Ends this process when its parent is killed."""
  try:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of Linux
  except (OSError, AttributeError):
    return
  if os.getppid() != parent:  # before that
    os._exit(LOST)


def _relay(stderr_fd: int, child: int) -> tuple[bytes, int]:
  """Writes the child's standard error to ours until it ends.

  Returns:
    What was held back, from the first line of a fatal error on, and the status.
  """
  held, line, newest = b'', b'', b'\n'
  status, since = None, 0.0
  while True:
    if held and status is None and time.monotonic() > since + _HOLD_S:
      os.write(2, held)  # not fatal: the child lives on
      held, newest = b'', held
    if select.select([stderr_fd], [], [], 0.2)[0]:
      content = os.read(stderr_fd, 2**16)
    elif status is not None:  # a child of the child may keep the pipe open
      break
    else:
      done, code = os.waitpid(child, os.WNOHANG)
      status = code if done else None
      continue
    if not content:
      break
    if held:
      held += content
      continue
    line += content
    if fatal := _FATAL.search(line):
      held, line = line[fatal.start() :], line[: fatal.start()]
      since = time.monotonic()
    started = _STARTED.search(line)
    end = started.start() if started else len(line)
    told, line = line[:end], line[end:]
    newest = told or newest
    os.write(2, told)
  os.write(2, line if newest.endswith(b'\n') else line + b'\n')
  if status is None:
    status = os.waitpid(child, 0)[1]
  return held, status


def _lost_line(fatal: bytes, address: str, within_s: int, joined: bool) -> str:
  if not joined:
    return (
      f'the processes did not all connect to {address} within {within_s} s: '
      'start all of them, and give each the same --num_processes'
    )
  remedy = 'the same command resumes from the last checkpoint'
  silent = _SILENT.search(fatal)
  if silent:
    numbers = sorted({int(n) for n in re.findall(rb'(\d+)\s', silent[1])})
    names = ', '.join(map(str, numbers))
    subject = (
      f'process {names} is' if len(numbers) == 1 else (f'processes {names} are')
    )
    return f'{subject} lost (silent for {_HEARTBEAT_S} s): {remedy}'
  if b'PollForError' in fatal or b'Heartbeat' in fatal:
    return f'process 0, the coordinator at {address}, is lost: {remedy}'
  return f'another process is lost: {remedy}'
