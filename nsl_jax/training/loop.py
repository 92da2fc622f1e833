"""One seed of a run, from its last checkpoint to its last step."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from nsl_jax import errors, files, progress
from nsl_jax.data import sampler
from nsl_jax.training import (
  checkpoint,
  feed,
  metrics_log,
  sharding as mesh_lib,
  trackers,
)
from nsl_jax.training.train_step import TrainSteps
from nsl_jax.types import Data, Metrics, State

Evaluate = Callable[[State], dict[str, Any]]

OUT_OF_TIME = 14  # in place of a signal: that of SIGALRM, which stops no run
_CALLS_IN_FLIGHT = 2  # of images that are not on the devices
_WORTH_A_CALL = 5  # steps; the start of a call is then a small part of it


class Interrupted(Exception):
  """A signal, or the end of the time, stopped the run after a checkpoint;
  `signal` is its number."""

  def __init__(self, number: int):
    by = 'the end of its time'
    if number != OUT_OF_TIME:
      by = signal.Signals(number).name
    super().__init__(f'stopped by {by}')
    self.signal = number


class Trained(NamedTuple):
  """A run at its last step.

  Attributes:
    state: the last state.
    seconds: spent over all starts.
    starts: `workdir.provenance` of the starts that trained it, each once.
  """

  state: State
  seconds: float
  starts: list[dict[str, Any]]


class Plan(NamedTuple):
  """When things happen, in steps.

  Attributes:
    steps: length of the run.
    log_every: interval of training lines.
    eval_every: interval of evaluations; the last step is always evaluated.
    checkpoint_every: interval of checkpoints; the last step is always saved.
    steps_per_call: steps of one call of the compiled chunk, where so many fit
      before something is due.
    keep: number of checkpoints kept.
  """

  steps: int
  log_every: int
  eval_every: int
  checkpoint_every: int
  steps_per_call: int
  keep: int

  def is_due(self, interval: int, step: int) -> bool:
    """Whether what happens at this interval happens after `step` steps."""
    return step % interval == 0 or step == self.steps

  def steps_until_next_event(self, step: int) -> int:
    """Steps of the next call, which ends before or when something is due.

    Either of two numbers, since each is a program to compile: the largest
    divisor of all intervals up to `steps_per_call`, so that the second is not
    needed before the last steps; where that is too small to pay, as many steps
    as fit into the shortest interval. The second number is 1.
    """
    marks = [self.log_every, self.eval_every, self.checkpoint_every]
    several = min(self.steps_per_call, *marks)
    common = math.gcd(*marks)
    fitting = max(n for n in range(1, several + 1) if common % n == 0)
    if fitting >= _WORTH_A_CALL:
      several = fitting
    remaining = min(
      [self.steps - step] + [interval - step % interval for interval in marks]
    )
    return several if several <= remaining else 1

  def calls(self, step: int) -> Iterator[range]:
    """The steps of every call from `step` to the end."""
    while step < self.steps:
      steps = range(step, step + self.steps_until_next_event(step))
      yield steps
      step = steps.stop


def default_steps_per_call() -> int:
  """1 on CPU, where convolutions in a rolled loop are many times slower."""
  return 1 if jax.default_backend() == 'cpu' else 25


class Meter:
  """Metrics of the steps since the last line, kept on the device until they are
  fetched.

  Its content is part of a checkpoint, so that a line whose steps fall on both
  sides of a restart is the same as without one.
  """

  def __init__(self, values: list[dict[str, float]]):
    """`values`: metrics of steps already known, oldest first."""
    self.values = values
    self._waiting: list[tuple[int, int, Metrics]] = []

  def add(self, step: int, count: int, history: Metrics) -> None:
    """Takes the history of `count` steps that began at `step`; no fetch."""
    self._waiting.append((step, count, history))

  def fetch(self) -> None:
    """Waits for the device.

    Raises:
      errors.TrainingError: naming the first step with a value not finite.
    """
    waiting, self._waiting = self._waiting, []
    fetched = jax.device_get([history for _, _, history in waiting])
    for (step, count, _), history in zip(waiting, fetched):
      for i in range(count):
        values = {name: float(column[i]) for name, column in history.items()}
        bad = [n for n, value in values.items() if not math.isfinite(value)]
        if bad:
          raise errors.TrainingError(
            f'{bad[0]} is {values[bad[0]]} at step {step + i + 1}'
          )
        self.values.append(values)

  def flush_means(self) -> dict[str, float]:
    """Means over the steps since the last call."""
    self.fetch()
    values, self.values = self.values, []
    names = values[0] if values else ()
    return {n: math.fsum(v[n] for v in values) / len(values) for n in names}


@contextmanager
def _stop_signals(
  deadline: float | None,
) -> Iterator[Callable[[bool], int | None]]:
  """A function that returns the signal that stops the run, or None; after the
  deadline, `OUT_OF_TIME`.

  Several processes must stop at the same step, so they ask one another, and
  only when told that this is a moment to do so. Python handles signals
  in the main thread alone, so in another one none is ever seen.
  """
  caught: list[int] = []
  before = {}
  if threading.current_thread() is threading.main_thread():
    for number in (signal.SIGTERM, signal.SIGINT):
      before[number] = signal.signal(number, lambda n, _: caught.append(n))

  def requested(together: bool) -> int:
    number = caught[0] if caught else 0
    if not number and deadline is not None and time.monotonic() > deadline:
      number = OUT_OF_TIME
    if jax.process_count() == 1:
      return number
    return mesh_lib.process_max(number) if together else 0

  try:
    yield lambda together: requested(together) or None
  finally:
    for number, handler in before.items():
      signal.signal(number, handler or signal.SIG_DFL)


def _unknown(start: Mapping[str, Any], state: State) -> list[dict[str, Any]]:
  """The starts of a state whose checkpoint, by an older version, has none."""
  if int(state.step) == 0:
    return []
  return [{**start, 'device': 'not recorded', 'commit': 'not recorded'}]


class _Record:
  """What a run leaves in its folder, and what it goes on from.

  Attributes:
    state: the newest state that was saved, or the one to begin with.
    meter: the metrics since the last line.
    starts: the provenance of all starts that trained the state, each once.
  """

  def __init__(
    self,
    folder: files.Path,
    like: State,
    plan: Plan,
    sent: trackers.Trackers | None,
    start: Mapping[str, Any],
  ):
    """Opens the folder, `like` being the state to begin with, and `start` the
    `workdir.provenance` of this process.
    """
    self.folder = folder
    self._sent = sent
    with ExitStack() as opened:
      self._store = checkpoint.Checkpoints(
        folder / 'checkpoints', keep=plan.keep
      )
      opened.callback(self._store.abandon)
      self.state, position = self._restored(like, plan)
      self.starts = position.get('starts', _unknown(start, self.state))
      if int(self.state.step) < plan.steps and start not in self.starts:
        self.starts.append(dict(start))
      self.meter = Meter(position.get('pending', []))
      self._begun = time.perf_counter() - position.get('seconds', 0.0)
      self._best = checkpoint.Best(folder / 'best', position.get('best'))
      opened.callback(self._best.abandon)
      self._final = checkpoint.Checkpoints(folder / 'final', keep=1)
      opened.callback(self._final.abandon)
      for store in (self._store, self._final):
        store.remove_parts()
      self._lines = mesh_lib.in_first_process(
        lambda: self._open_lines(opened, position.get('lines')),
        f'use the metrics in {folder}',
      )
      self._opened = opened.pop_all()

  def _restored(self, like: State, plan: Plan) -> tuple[State, dict[str, Any]]:
    restored = self._store.restore(like)
    if restored:
      return restored
    path = self.folder / 'metrics.jsonl'
    last = max((line['step'] for line in metrics_log.read(path)), default=0)
    if last > 2 * plan.checkpoint_every:  # by then one is on the disk
      raise errors.UserError(
        f'{path} has lines up to step {last}, but no checkpoint exists to go '
        f'on from: restore {self.folder / "checkpoints"}, or use another '
        '--workdir'
      )
    return like, {}

  def _open_lines(
    self, opened: ExitStack, expected: int | None
  ) -> metrics_log.Log:
    lines = metrics_log.Log(self.folder, step=int(self.state.step))
    opened.callback(lines.close)
    if expected not in (None, lines.count):
      raise errors.UserError(
        f'{self.folder / "metrics.jsonl"} has {lines.count} lines up to the '
        f'checkpoint of step {int(self.state.step)}, which knows of '
        f'{expected}: restore the file, or use a new --workdir'
      )
    return lines

  def _with_lines(self, body: Callable[[metrics_log.Log], None]) -> None:
    """Writes lines in process 0; that these cannot be written ends all."""

    def write() -> None:
      assert self._lines is not None  # in process 0
      body(self._lines)

    mesh_lib.in_first_process(write, f'write the metrics in {self.folder}')

  def seconds(self) -> float:
    """Spent so far, over all starts."""
    return round(time.perf_counter() - self._begun, 3)

  def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
    """One line of metrics; all processes must call this."""
    if values:
      self._with_lines(
        lambda lines: lines.write(kind, step, self.seconds(), values)
      )
      if self._sent is not None:
        self._sent.write(kind, step, values)

  def evaluated(self, step: int, state: State, values: dict[str, Any]) -> None:
    """One line, and the network if it is the best so far."""
    self.write('eval', step, values)
    self._best.offer(step, state, values['validation_error'])

  def end(self, step: int, state: State) -> None:
    """Starts to write the network as it is evaluated at the last step."""
    self._store.wait()  # what was begun comes first where space is short
    self._final.save(step, state.replace(opt=()), {})

  def has_ended(self, step: int) -> bool:
    """Whether the network of this last step is there."""
    return self._final.latest() == step

  def save(self, step: int, state: State) -> None:
    """Starts to write a checkpoint."""
    self.meter.fetch()
    self._best.wait()
    self._final.wait()  # or no later start would write it
    self._with_lines(lambda lines: lines.sync())
    self._store.save(
      step,
      state,
      {
        'pending': list(self.meter.values),
        'seconds': self.seconds(),
        'best': self._best.seen,
        'lines': self._lines.count if self._lines else 0,
        'starts': self.starts,
      },
    )
    self._best.named()

  def wait(self) -> None:
    """Waits until all is on disk."""
    self._final.wait()
    self._store.wait()
    self._best.named()

  def kept(self) -> str:
    """A text about the checkpoint from which the run can resume."""
    step = self._store.latest()
    if step is None:
      return f'none saved in {self.folder}'
    return f'the checkpoint of step {step} is kept in {self.folder}'

  def close(self) -> None:
    """Closes all, without a word on what cannot be: see `wait` for that."""
    self._opened.close()


def run(
  folder: files.Path,
  *,
  plan: Plan,
  state: State,
  data: Data,
  streams: Mapping[str, sampler.Stream],
  chunk: TrainSteps,
  evaluate: Evaluate,
  mesh: Mesh,
  title: str,
  start: Mapping[str, Any],
  recompute: Callable[[State], State] | None = None,
  images: np.ndarray | None = None,
  verbose: bool = True,
  sent: trackers.Trackers | None = None,
  deadline: float | None = None,
) -> Trained:
  """Trains from the newest checkpoint in `folder`, or from `state`.

  Writes checkpoints, the network of the lowest validation error,
  `metrics.jsonl` and TensorBoard events there. A run that is stopped and
  started again writes what an unbroken one would have written, to the last bit
  on a CPU.

  `start` is the `workdir.provenance` of this process. `recompute` gives the
  state that is evaluated, and kept if it is the best, the
  batch-normalization statistics of its weights; training goes on without them.
  `images` are the training images where `data` has none, see `feed`. Progress
  is shown if `verbose`. `sent` gets the lines, too. The run stops at
  `deadline`, a time of `time.monotonic`.

  Raises:
    Interrupted: on SIGTERM, Ctrl-C or the deadline, once the state is saved.
    errors.TrainingError: if a metric is not finite; nothing is saved then.
    errors.WriteError: if a file cannot be written.
  """
  record = _Record(folder, state, plan, sent, start)
  state, step = record.state, int(record.state.step)
  bar = progress.progress(
    unit='step',
    total=plan.steps,
    initial=step,
    desc=title,
    disable=jax.process_index() > 0 or not verbose,
  )
  postfix: dict[str, str] = {}
  in_flight: list[Any] = []
  try:
    with (
      _stop_signals(deadline) as requested,
      closing(feed.calls(plan.calls(step), streams, mesh, images)) as calls,
    ):
      for steps, rows in calls:
        state, history = chunk(state, data, rows)
        mesh_lib.block_until_ready(history)
        if images is not None:  # or images of many calls wait on the devices
          in_flight.append(history)
          if len(in_flight) > _CALLS_IN_FLIGHT:
            jax.block_until_ready(in_flight.pop(0))
        record.meter.add(step, len(steps), history)
        step = steps.stop
        bar.update(len(steps))
        if plan.is_due(plan.log_every, step):
          means = record.meter.flush_means()
          record.write('train', step, means)
          postfix['loss'] = f'{means["loss"]:.4f}'
        if plan.is_due(plan.eval_every, step):
          record.meter.fetch()
          evaluated_state = recompute(state) if recompute else state
          values = evaluate(evaluated_state)
          record.evaluated(step, evaluated_state, values)
          if step == plan.steps:
            record.end(step, evaluated_state)
          if values['validation_error'] is not None:
            postfix['validation'] = f'{values["validation_error"]:.2f}%'
          del evaluated_state  # may be a second one on the devices
        bar.set_postfix(postfix, refresh=False)
        stopped = requested(plan.is_due(plan.log_every, step))
        if plan.is_due(plan.checkpoint_every, step) or stopped:
          record.save(step, state)
        if stopped:
          record.wait()
          raise Interrupted(stopped)
    if step == plan.steps and not record.has_ended(step):
      record.end(step, recompute(state) if recompute else state)
    record.wait()
  except (errors.TrainingError, errors.WriteError) as error:
    raise type(error)(f'{title}: {error}; {record.kept()}') from error
  finally:
    bar.close()
    record.close()
  return Trained(state, record.seconds(), record.starts or [dict(start)])
