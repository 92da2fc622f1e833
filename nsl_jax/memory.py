"""Memory of the process: what a step frees is kept for the next one.

XLA allocates a step's temporary buffers anew at every call on a CPU. Large
blocks are then mapped from the system, and each of their pages is a fault at
its first use: 94,000 faults and a sixth of the time of a step of WRN-28-2.
"""

import ctypes
import os
import sys

_OFF = 'NSL_JAX_RETURN_MEMORY'
# Parameters of glibc's mallopt, and values under which nothing is returned.
_SETTINGS = {
    -8: 1,  # arenas: threads that have one each would each keep a buffer
    -3: 2**30,  # bytes from which a block is mapped by itself
    -1: 2**31 - 1,  # free bytes at the end that are given back
    -2: 2**26,  # bytes that are asked for beyond what is needed
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
