"""Memory of the process: one copy of a data set, and reuse of freed buffers.

On a CPU, XLA allocates the temporary buffers of a step at every call. The
system maps large blocks for each of them, which causes thousands of page faults
per step, and pages of 4 KiB, whose addresses a processor cannot keep.
"""

import ctypes
import math
import os
import pathlib
import sys

import jax
import numpy as np

_ALIGNED = 64  # bytes; XLA uses host arrays of this alignment without a copy
_OFF = 'NSL_JAX_RETURN_MEMORY'
# Parameters of glibc's mallopt, with values at which it returns no memory.
_SETTINGS = {
  -8: 1,  # M_ARENA_MAX: with one arena per thread each would keep buffers
  -3: -1,  # M_MMAP_THRESHOLD: no buffer is mapped alone, whatever its size
  -1: -1,  # M_TRIM_THRESHOLD: none is returned
  -2: 2**26,  # M_TOP_PAD
}
_HUGE_PAGE = 2**21  # bytes
_MADV_HUGEPAGE = 14
_OVERCOMMIT = pathlib.Path('/proc/sys/vm/overcommit_memory')


def keep() -> bool:
  """Makes glibc keep freed memory; call it before any thread starts.

  Results do not change; resident memory stays at its peak. Disabled by
  NSL_JAX_RETURN_MEMORY=1.

  Returns:
    Whether it took effect; False without glibc.
  """
  if os.environ.get(_OFF) or not sys.platform.startswith('linux'):
    return False
  try:
    library = ctypes.CDLL(None)
    kept = all([library.mallopt(*setting) for setting in _SETTINGS.items()])
  except (OSError, AttributeError):  # another C library
    return False
  if kept:
    _advise_huge_pages(library)
  return kept


def _advise_huge_pages(library: ctypes.CDLL) -> None:
  """Asks for huge pages in the heap: their addresses are found faster.

  The heap grows by a block that is freed untouched: the block takes addresses,
  but no memory before it is used. Systems without huge pages ignore it.
  """
  try:
    strict = _OVERCOMMIT.read_text().strip() == '2'
  except OSError:
    strict = True
  if strict:  # addresses count as memory there
    return
  library.malloc.argtypes = [ctypes.c_size_t]
  library.malloc.restype = ctypes.c_void_p
  library.free.argtypes = [ctypes.c_void_p]
  library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
  size = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
  block = library.malloc(size)
  if block:
    start = block + -block % _HUGE_PAGE
    library.madvise(start, block + size - start, _MADV_HUGEPAGE)
    library.free(block)


def empty(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
  """`np.empty`, aligned so that a CPU device uses the array without a copy."""
  kind = np.dtype(dtype)
  size = math.prod(shape) * kind.itemsize
  raw = np.empty(size + _ALIGNED, np.uint8)
  start = -raw.ctypes.data % _ALIGNED
  return raw[start : start + size].view(kind).reshape(shape)


def shared(array: np.ndarray) -> np.ndarray:
  """The array, to share between host and CPU device; do not write to it.

  Copies the array only if it is not aligned.
  """
  if array.ctypes.data % _ALIGNED or not array.flags.c_contiguous:
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    array = copy
  array = array.view()
  array.flags.writeable = False
  return array


def device_limit(megabytes: int) -> int:
  """Bytes of images that a device may hold.

  Args:
    megabytes: the limit; 0 for half of the device's memory, on a CPU of the
      machine's.
  """
  if megabytes:
    return megabytes * 2**20
  device = jax.local_devices()[0]
  stats = device.memory_stats() if device.platform != 'cpu' else None
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit'] // 2
  if not hasattr(os, 'sysconf'):  # Windows does not tell
    return 2**32
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
