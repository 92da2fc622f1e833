"""Compiler options: CPU kernels, and programs that run once.

An option is used only if the installed XLA has it.
"""

import functools
import json
import os
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from nsl_jax import errors, files
from nsl_jax.data import cache

Options = dict[str, Any]

# Convolutions by Eigen, as before XLA had YNNPACK, whose convolutions scale
# badly to a second core. YNNPACK's reductions, five times as fast as XLA's, are
# kept.
_EIGEN: Options = {
  'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_REDUCE'
}
_ONCE: Options = {'xla_backend_optimization_level': 1}
CHOICES = ('measured', 'default', 'eigen')
_ROUNDS = 7
_CLEARLY = 0.9  # relative time below which the gain exceeds noise
_QUIET = 0.1  # of the cores: what others may use during a measurement


def options(kernels: str) -> Options:
  """`compiler_options` of `jax.jit` for a choice of kernels."""
  return dict(_EIGEN) if kernels == 'eigen' and _has_option('eigen') else {}


def once() -> Options:
  """`compiler_options` of a program that takes longer to compile than to run:
  less optimization, the same results.
  """
  if getattr(jax.config, 'jax_disable_most_optimizations', False):
    return {}
  return dict(_ONCE) if _has_option('once') else {}


@functools.cache
def _has_option(name: str) -> bool:
  """Whether this XLA has the option."""
  compiler_options: Options = {'eigen': _EIGEN, 'once': _ONCE}[name]
  if name == 'eigen' and jax.default_backend() != 'cpu':
    return False
  try:
    jax.jit(jnp.sin, compiler_options=compiler_options).lower(1.0).compile()
  except Exception:  # the type depends on the version
    return False
  return True


def choose(choice: str, before: str | None = None) -> str:
  """The kernels of a run: `default` of XLA, or `eigen`.

  Args:
    choice: one of `CHOICES`; `measured` takes the faster one on this machine
      with this number of cores, measured once and cached. A measurement beside
      other programs is used in this process alone: a busy second core hides
      the difference.
    before: choice of an earlier start of the same run, which `measured` keeps
      if possible, since other kernels round differently.

  Raises:
    errors.UserError: for an unknown choice, or kernels that are not available.
  """
  if choice not in CHOICES:
    raise errors.UserError(
      f'kernels={choice!r}: {errors.did_you_mean(choice, CHOICES)}'
    )
  if choice == 'eigen' and not _has_option('eigen'):
    raise errors.UserError(
      f'kernels=eigen: not on this device ({jax.default_backend()}) with '
      f'jaxlib {jax.lib.__version__}; use default'
    )
  if choice != 'measured':
    return choice
  # All of several processes must choose the same.
  if not _has_option('eigen') or jax.process_count() > 1:
    return 'default'
  if before:
    return before
  measured = _read(_file()).get(_machine())
  if measured in CHOICES:
    return measured
  ratio, others = _measure()
  faster = 'eigen' if ratio < _CLEARLY else 'default'
  if others < _QUIET:
    remember(faster)
  else:
    logging.warning(
      'kernels=%s (measured beside other programs, so the next run repeats '
      'the measurement; --config.kernels=eigen or default sets it)',
      faster,
    )
  return faster


def remember(choice: str) -> None:
  """Caches the faster choice on this machine; warns if it cannot."""
  path = _file()
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    choices = {**_read(path), _machine(): choice}
    files.write(path, json.dumps(choices, indent=1).encode())
  except (OSError, errors.UserError) as error:
    logging.warning('the choice of kernels is not cached: %s', error)


def _file() -> pathlib.Path:
  return cache.directory() / 'kernels.json'


def _read(path: files.Path) -> dict[str, str]:
  try:
    choices = json.loads(path.read_text())
  except (OSError, ValueError):
    return {}
  return choices if isinstance(choices, dict) else {}


def _machine() -> str:
  """What determines the choice: processor, cores, and version of XLA."""
  model = ''
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    model = next(line for line in lines if line.startswith('model name'))
  except (OSError, StopIteration):
    pass
  return f'jaxlib {jax.lib.__version__}, {cores()} cores, {model.strip()}'


def cores() -> int | None:
  """The number of cores of this process, which affects the rounding of sums."""
  allowed = getattr(os, 'sched_getaffinity', None)  # not on every system
  return len(allowed(0)) if allowed else os.cpu_count()


@functools.cache  # all seeds of a process have the same kernels
def _measure() -> tuple[float, float]:
  """`_ratio`, and the share of the cores that others used meanwhile."""
  begun, before = time.perf_counter(), _others()
  ratio = _ratio()
  seconds = (time.perf_counter() - begun) * (cores() or 1)
  return ratio, (_others() - before) / seconds


def _others() -> float:
  """Seconds in which this process's cores ran others; 0 where unknown."""
  try:
    allowed = {f'cpu{core}' for core in os.sched_getaffinity(0)}
    lines = pathlib.Path('/proc/stat').read_text().splitlines()
  except (AttributeError, OSError):  # not Linux
    return 0.0
  ticks = 0
  for name, *fields in map(str.split, lines):
    if name in allowed:
      # user, nice, system, idle, waiting for disks, two of interrupts, stolen
      times = list(map(int, fields[:8]))
      ticks += sum(times) - sum(times[3:5])
  own = os.times()
  return ticks / os.sysconf('SC_CLK_TCK') - own.user - own.system


def _ratio() -> float:
  """Time of Eigen's kernels relative to the default, measured alternately.

  Times a step of a 3x3 convolution of 32 channels on 32x32 maps with its norm
  and activation.
  """

  def loss(images: jax.Array, kernel: jax.Array) -> jax.Array:
    h = jax.lax.conv_general_dilated(
      images, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    h = (h - h.mean((0, 1, 2), keepdims=True)) * jax.lax.rsqrt(
      h.var((0, 1, 2), keepdims=True) + 1e-3
    )
    return jnp.maximum(h, 0.1 * h).mean()

  images = jnp.ones((32, 32, 32, 32))
  kernel = jnp.ones((3, 3, 32, 32))
  step = jax.grad(loss, argnums=(0, 1))
  programs = [
    jax.jit(step, compiler_options=compiler_options)
    for compiler_options in ({}, _EIGEN)
  ]
  ratios = []
  for at in range(-2, _ROUNDS):
    seconds = []
    for program in programs:
      begun = time.perf_counter()
      jax.block_until_ready(program(images, kernel))
      seconds.append(time.perf_counter() - begun)
    if at >= 0:
      ratios.append(seconds[1] / seconds[0])
  return statistics.median(ratios)


def of_run(choice: str, workdir: files.Path | None) -> str:
  """`choose` for a run, which keeps the kernels in its folder's config.

  A config without a choice means the default.
  """
  if workdir is None or not (workdir / 'config.json').exists():
    return choose(choice)
  before = _read(workdir / 'config.json').get('kernels')
  return choose(choice, before if before in CHOICES[1:] else 'default')
