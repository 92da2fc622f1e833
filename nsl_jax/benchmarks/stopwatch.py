"""Times compiled programs alternately.

The speed of a machine drifts: only times measured together have valid ratios.
"""

import resource
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import tqdm

from nsl_jax.data import normalize, sampler
from nsl_jax.training import feed, kernels, sharding as mesh_lib, train_step
from nsl_jax.types import Array, Data, Method, State

_WARM_UP = 2, 8  # least and most untimed calls
_STILL = 4 * 2**20  # bytes that the process may grow in one of them
IMAGES = 4096
_Name = TypeVar('_Name', bound=Hashable)
Predict = Callable[[State, Array], Any]


class Setting(NamedTuple):
  """Settings shared by all timed programs.

  Attributes:
    labeled: B_l.
    unlabeled: B_u.
    shape: (H, W, C).
    classes: K.
    steps_per_call: steps per timed call.
    precision: as in a config.
    mesh: the devices.
    holdout: held-out labeled images per step (L2I).
    kernels: see `kernels.options`.
  """

  labeled: int
  unlabeled: int
  shape: tuple[int, int, int]
  classes: int
  steps_per_call: int
  precision: str
  mesh: jax.sharding.Mesh
  holdout: int = 0
  kernels: str = 'default'


class Subject(NamedTuple):
  """A program to time.

  Attributes:
    call: runs and waits for `steps_per_call` steps.
    compile_s: seconds to trace and compile it.
    memory_mb: memory of the compiled program with its arguments.
    gflop: floating-point operations per step by XLA's count, in 10^9.
    program: text of the compiled program.
  """

  call: Callable[[], None]
  compile_s: float
  memory_mb: float | None
  gflop: float | None
  program: Callable[[], str]


def sizes(setting: Setting) -> dict[str, int]:
  """Images per batch of each stream; the hold-out stream may be absent."""
  streams = {'labeled': setting.labeled, 'unlabeled': setting.unlabeled}
  return streams | ({'holdout': setting.holdout} if setting.holdout else {})


def random_data(
  per_image_tables: Sequence[str], setting: Setting, kind: str
) -> Data:
  """Random images, normalization fitted to them, and random per-image tables.

  Args:
    per_image_tables: names of the method's tables.
    setting: sizes.
    kind: kind of normalization.
  """
  rng = np.random.default_rng(0)
  size = IMAGES
  images = rng.integers(0, 256, (size, *setting.shape), np.uint8)
  labels = rng.integers(0, setting.classes, size, np.int32)
  tables = {
    name: labels
    if name == 'true_class'
    else rng.random((size, setting.classes), np.float32)
    for name in per_image_tables
  }
  replicated = mesh_lib.replicated_sharding(setting.mesh)
  fitted = normalize.fit(kind, images)
  shares = np.full(setting.classes, 1.0 / setting.classes, np.float32)
  parts = images, labels, fitted, tables, None, np.int32(size), shares
  return Data(*mesh_lib.put(parts, replicated))


def _compiled(function, *arguments) -> tuple[Any, dict[str, Any]]:
  """The program, and its fields of a `Subject`."""
  begun = time.perf_counter()
  lowered = function.lower(*arguments)
  program = lowered.compile()
  seconds = time.perf_counter() - begun
  memory, cost = program.memory_analysis(), lowered.cost_analysis() or {}
  return program, {
    'compile_s': seconds,
    'program': program.as_text,
    'memory_mb': None
    if memory is None
    else (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**20,
    # A loop counts as one iteration; not every device provides the count.
    'gflop': cost['flops'] / 1e9 if 'flops' in cost else None,
  }


def training(
  method: Method, setting: Setting, make_batch: train_step.Read, data: Any
) -> Subject:
  """The training step, with rows drawn and sent by the host.

  Args:
    method: the method.
    setting: sizes.
    make_batch: `(data, rows) -> Batch`.
    data: the data set, or a batch that every step uses.
  """
  streams = {
    name: sampler.Stream(np.arange(IMAGES), size, seed=0, name=name)
    for name, size in sizes(setting).items()
  }
  count = setting.steps_per_call
  chunk = train_step.make_train_steps(
    train_step.one_step(method, make_batch),
    mesh=setting.mesh,
    compiler_options=kernels.options(setting.kernels),
  )
  state = train_step.initial_state(method, 0, setting.mesh)
  rows_at = lambda step: feed.rows_at(
    streams, range(step, step + count), setting.mesh
  )
  first = rows_at(0)
  program, costs = _compiled(chunk, state, data, first)
  step = 0

  def call() -> None:
    nonlocal state, step
    indices = first
    if isinstance(data, Data):
      indices = rows_at(step)
    state, history = program(state, data, indices)
    jax.block_until_ready(history)
    step += count

  return Subject(call, **costs)


def inference(
  predict: Predict,
  state: State,
  setting: Setting,
  apply: train_step.Normalize,
  data: Data,
) -> Subject:
  """Prediction of classes for as many images as a training step has.

  Args:
    predict: `(state, images) -> logits`, of one network or by name.
    state: the weights.
    setting: sizes.
    apply: normalization, which is timed too.
    data: the images, on the device.
  """
  size, count = setting.labeled + setting.unlabeled, setting.steps_per_call
  rows = np.arange(size * count).reshape((count, size)) % len(data.images)
  images = data.images[rows]

  def classes(state: State, fitted: Any, images: Array) -> Any:
    logits = predict(state, apply(fitted, images))
    return jax.tree.map(lambda one: one.argmax(-1), logits)

  def several(state: State, fitted: Any, images: Array) -> Any:
    if count == 1:  # a rolled loop is slow on CPU
      return classes(state, fitted, images[0])
    return jax.lax.map(lambda one: classes(state, fitted, one), images)

  inputs = (state, data.normalization, images)
  program, costs = _compiled(
    jax.jit(several, compiler_options=kernels.options(setting.kernels)), *inputs
  )
  return Subject(lambda: jax.block_until_ready(program(*inputs)), **costs)


def in_turn(
  subjects: Mapping[_Name, Subject], setting: Setting, *, steps: int
) -> dict[_Name, list[float]]:
  """Times all subjects, one call of each at a time.

  Args:
    subjects: the programs to time.
    setting: has the steps per call.
    steps: steps of each, rounded up to whole calls; untimed ones come before.

  Returns:
    Milliseconds per step, of every call.
  """
  _warm_up([subject.call for subject in subjects.values()])
  calls = -(-steps // setting.steps_per_call)
  step_ms: dict[_Name, list[float]] = {name: [] for name in subjects}
  for _ in tqdm.trange(calls, desc='timing', leave=False):
    for name, subject in subjects.items():
      begun = time.perf_counter()
      subject.call()
      seconds = time.perf_counter() - begun
      step_ms[name].append(1e3 * seconds / setting.steps_per_call)
  return step_ms


def _warm_up(calls: Sequence[Callable[[], None]]) -> None:
  """Calls all until the memory of the process no longer grows: a step in which
  it does takes up to twice as long.
  """
  least, most = _WARM_UP
  for done in range(most):
    before = _peak_of_process()
    for call in calls:
      call()
    grown = _peak_of_process() - before
    if done + 1 >= least and grown < _STILL:
      return


def _peak_of_process() -> float:
  """Bytes; the system counts in KiB, macOS in bytes."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return float(peak if sys.platform == 'darwin' else 1024 * peak)


def peak_memory_mb() -> float:
  """Peak of the first device, or of the process if the device has none."""
  stats = jax.local_devices()[0].memory_stats() or {}
  peak = stats.get('peak_bytes_in_use')
  if peak is None:
    peak = _peak_of_process()
  return peak / 2**20
