"""Memory of the process: data sets held once, freed buffers kept.

XLA allocates a step's temporary buffers anew at every call on a CPU. Large
blocks are then mapped from the system, and each of their pages is a fault at
its first use, thousands a step.
"""

import ctypes
import math
import os
import sys

import jax
import numpy as np

_ALIGNED = 64  # bytes, from which XLA uses an array of the host as it is
_OFF = 'NSL_JAX_RETURN_MEMORY'
# Parameters of glibc's mallopt, and values under which nothing is returned.
_SETTINGS = {
  -8: 1,  # arenas: threads that have one each would each keep a buffer
  -3: 2**30,  # bytes from which a block is mapped by itself
  -1: 2**31 - 1,  # free bytes at the end that are given back
  -2: 2**26,  # bytes that are taken beyond what is needed
}


def keep() -> bool:
  """Lets glibc keep freed memory; call it before any thread is started.

  Numbers do not change; resident memory stays at its peak. Set
  NSL_JAX_RETURN_MEMORY=1 to leave all as it is.

  Returns:
    Whether it was done; never elsewhere than with glibc.
  """
  if os.environ.get(_OFF) or not sys.platform.startswith('linux'):
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError):  # another C library
    return False
  return all([mallopt(name, value) for name, value in _SETTINGS.items()])


def empty(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
  """`np.empty` where a CPU device can use the array without a copy."""
  kind = np.dtype(dtype)
  size = math.prod(shape) * kind.itemsize
  raw = np.empty(size + _ALIGNED, np.uint8)
  start = -raw.ctypes.data % _ALIGNED
  return raw[start : start + size].view(kind).reshape(shape)


def shared(array: np.ndarray) -> np.ndarray:
  """The array, for the host and a CPU device together; not to be written to.

  It is copied only where it is not aligned, and then let go.
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
