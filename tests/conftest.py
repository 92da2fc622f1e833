"""Settings of the whole suite: four fake devices, strict shapes, own caches.

Compiling is most of what the tests do, so programs are not optimized; the
README's main job, which is run beside the tests, is.
"""

import ctypes
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import Any

os.environ.setdefault('JAX_PLATFORMS', 'cpu')


def _in_memory() -> str | None:
  """A folder in memory with room for all that tests write.

  Runs of a few steps with their checkpoints take half of the time there, since
  no file is deleted from a disk. None is that of the system.
  """
  folder = '/dev/shm'
  if 'TMPDIR' in os.environ or not os.access(folder, os.W_OK):
    return None
  if os.statvfs(folder).f_flag & os.ST_NOEXEC:  # tests run what they install
    return None
  return folder if shutil.disk_usage(folder).free > 4 * 2**30 else None


# The first process makes a folder for the session; its workers and what tests
# start find it by the variable. Nothing that a test decodes or compiles may
# reach the user's own caches, nor the other way round.
_FOLDER = 'NSL_JAX_TEST_FOLDER'
if _FOLDER not in os.environ:
  _SESSION = tempfile.TemporaryDirectory(
    prefix='nsl_jax_session_', dir=_in_memory(), ignore_cleanup_errors=True
  )
  os.environ[_FOLDER] = _SESSION.name
  for name in ('cache', 'programs', 'tmp'):
    os.mkdir(os.path.join(_SESSION.name, name))
  os.environ['NSL_JAX_CACHE'] = os.path.join(_SESSION.name, 'cache')
  os.environ['NSL_JAX_TEST_PROGRAMS'] = os.path.join(_SESSION.name, 'programs')
  os.environ['TMPDIR'] = os.path.join(_SESSION.name, 'tmp')
  tempfile.tempdir = None  # or it would not look at TMPDIR
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'


def _known(*flags: str) -> list[str]:
  """The flags that XLA has, which ends the process on an unknown one."""
  status = subprocess.run(
    [sys.executable, '-c', 'import jax; jax.devices()'],
    env={**os.environ, 'XLA_FLAGS': ' '.join(flags)},
    capture_output=True,
  ).returncode
  if status and len(flags) > 1:
    return [flag for one in flags for flag in _known(one)]
  return [] if status else list(flags)


# The older emitters of loops compile in half of the time. A program that is not
# split into parts compiles in less CPU time, and the workers have all cores.
_FLAGS = 'NSL_JAX_TEST_FLAGS'
if _FLAGS not in os.environ:
  os.environ[_FLAGS] = ' '.join(
    _known(
      '--xla_cpu_use_fusion_emitters=false',
      '--xla_cpu_parallel_codegen_split_count=1',
    )
  )
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    os.environ[_FLAGS],
    '--xla_force_host_platform_device_count=4',
  ]
)

import jax  # noqa: E402
import pytest  # noqa: E402

from nsl_jax.training import kernels, programs  # noqa: E402

_MEGABYTE = 2**20
_GROWTH = 120 * _MEGABYTE  # least that forgetting programs must be worth
_kept = 0  # bytes that the worker held when it had last forgotten them
try:
  _MALLOC_TRIM = ctypes.CDLL('libc.so.6').malloc_trim
except (OSError, AttributeError):  # another libc
  _MALLOC_TRIM = None
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_disable_most_optimizations', True)
jax.config.update(
  'jax_compilation_cache_dir', os.environ['NSL_JAX_TEST_PROGRAMS']
)
kernels.remember('default')  # no test waits for, or depends on, a measurement


_TOGETHER = 100  # constants of programs stay in a context as long as it does


def _share_contexts() -> None:
  """A hundred programs of a thread share one context of MLIR's: a separate one
  takes 10 ms and 1.2 MB, more than most of these programs do.
  """
  try:
    from jax._src.interpreters import mlir

    make = mlir.make_ir_context
  except (ImportError, AttributeError):  # another jax: slower, as it is
    return
  local = threading.local()

  def shared() -> Any:
    count = getattr(local, 'count', 0)
    if count % _TOGETHER == 0:
      local.context = make()
    local.count = count + 1
    return local.context

  mlir.make_ir_context = shared


_share_contexts()


def _forget_modules() -> None:
  """Forgets the modules that programs were compiled from, and keeps these."""
  try:
    from jax._src import pjit
    from jax._src.interpreters import pxla

    pjit._pjit_lower.cache_clear()
    pxla._cached_lowering_to_hlo.cache_clear()
  except (ImportError, AttributeError):  # another jax has them elsewhere
    pass


def _resident() -> int:
  """Bytes of memory that the process holds; 0 where that is not told."""
  try:
    with open('/proc/self/statm') as file:
      return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
  except OSError:
    return 0


def _forget_programs(above: int) -> None:
  """Forgets what is compiled and traced where a worker has grown large, unless
  that has just been done: the worker keeps more and more after it."""
  global _kept
  if _resident() <= max(above, _kept + _GROWTH):
    return
  for forget in (_forget_modules, jax.clear_caches):
    forget()
    gc.collect()
    if _MALLOC_TRIM:  # else the allocator keeps what compiling took
      _MALLOC_TRIM(0)
    if _resident() <= above:
      break
  _kept = _resident()


@pytest.fixture(autouse=True)
def same_settings():
  """A benchmark, which sets these, does not slow down the tests behind it."""
  names = 'jax_disable_most_optimizations', 'jax_enable_compilation_cache'
  before = {name: jax.config.values[name] for name in names}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


# Files that together trace every method, term, sampler and augmentation. That
# no random key is used twice is checked in these; in all it takes a tenth of
# the time.
_CHECK_KEYS = {
  'augment_test.py',
  'configs_run_test.py',
  'golden_test.py',
  'negative_samplers_test.py',
  'randaugment_test.py',
}


@pytest.fixture(scope='module', autouse=True)
def no_key_twice(request):
  """An error where a program uses a random key twice, in some files."""
  with jax.debug_key_reuse(request.path.name in _CHECK_KEYS):
    yield


@pytest.fixture(scope='module', autouse=True)
def start_small():
  """What one file compiles is of little use to the next, and must not stand in
  for what that one replaces.
  """
  programs._kept.clear()
  yield
  _forget_programs(720 * _MEGABYTE)


@pytest.fixture(autouse=True)
def stay_below_a_gigabyte():
  """Compiling is most of the time, so few tests begin with nothing."""
  yield
  _forget_programs(880 * _MEGABYTE)
