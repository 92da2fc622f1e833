"""What the processes that tests start have in their environment."""

import os


def environment(**more: str) -> dict[str, str]:
  """One device, as on a user's machine; programs shared with all tests.

  Args:
    **more: further variables.
  """
  return {
    **os.environ,
    'XLA_FLAGS': os.environ['NSL_JAX_TEST_FLAGS'],
    'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true',
    'JAX_COMPILATION_CACHE_DIR': os.environ['NSL_JAX_TEST_PROGRAMS'],
    **more,
  }
