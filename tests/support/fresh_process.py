"""Processes that tests start, and what these have in their environment."""

import os
import subprocess
import sys

from repository import ROOT


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


def start(*words: object, cwd: os.PathLike = ROOT, **more: str):
  """Python with these words behind it, its output in pipes of text.

  Args:
    *words: such as '-m', 'nsl_jax', 'data'.
    cwd: its current folder.
    **more: further variables.
  """
  return subprocess.Popen(
    [sys.executable, *map(str, words)],
    cwd=cwd,
    env=environment(**more),
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )


def run(*words: object, **options) -> subprocess.CompletedProcess[str]:
  """The same, until its end."""
  process = start(*words, **options)
  out, err = process.communicate(timeout=300)
  return subprocess.CompletedProcess(words, process.returncode, out, err)
