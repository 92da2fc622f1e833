"""DN-T7: cost of a step of Mean Teacher, Dual Student and DNLL.

The paper reports seconds on one graphics card. On other machines only ratios
within one run are comparable, so the three methods are timed alternately, on
random images of CIFAR-10's size. The table also has a lower bound of each
training ratio, from the passes through the networks.
"""

import functools
import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from nsl_jax import errors
from nsl_jax.benchmarks import step_times, stopwatch
from nsl_jax.data import normalize
from nsl_jax.papers import rows
from nsl_jax.training import (
  assembly,
  config as config_lib,
  kernels,
  loop,
  sharding as mesh_lib,
  train_step,
  workdir as workdir_lib,
)
from nsl_jax.types import Method

TABLE = 'DN-T7'
ROWS = ('DN-T7-1', 'DN-T7-2', 'DN-T7-3')
LABELED = UNLABELED = 50
_CALLS = 20  # timed calls of each program
_SHAPE, _CLASSES = (32, 32, 3), 10
_NETWORKS = 'a', 'b'  # names of the networks of a method with two
# The paper's seconds for inference.
_PAPER_INFERENCE = {'DN-T7-1': 0.0183, 'DN-T7-2': 0.0189, 'DN-T7-3': 0.0184}
TRAINING, INFERENCE, EVALUATION = 'training', 'inference', 'evaluation'
DEFINITIONS = {
  TRAINING: 'one update, as training runs it: rows sent by the host, '
  'normalization, augmentation, passes, optimizer, averages',
  INFERENCE: 'classes of as many images by one network, the one that would '
  'be reported; normalization is part of it',
  EVALUATION: 'the same by every network that is evaluated',
  'units': 'passes of an image through a network: 1 forward, 3 forward and '
  'backward',
  'floor': 'units divided by those of Mean Teacher: the ratio if nothing '
  'but passes took time',
  'expected': 'the same if a pass forward and backward is as many units as '
  "Mean Teacher's step takes beyond its forward passes, by the "
  'time of an inference step',
}


class Passes(NamedTuple):
  """Images per step that pass through a network.

  Attributes:
    backward: images with a forward and a backward pass.
    forward: images with a forward pass only.
  """

  backward: int
  forward: int

  def units(self, forward_backward: float = 3.0) -> float:
    """The cost in forward passes of one image.

    Args:
      forward_backward: cost of a forward and backward pass; 3 by arithmetic.
    """
    return forward_backward * self.backward + self.forward


def passes(method: str, labeled: int, unlabeled: int) -> dict[str, Passes]:
  """Passes of each step, by kind of step.

  Mean Teacher: all images with gradient, and the unlabeled ones through the
  teacher. Dual Student: in each network all images with gradient, and without
  gradient on the other view. DNLL: in each network all images with gradient,
  and the unlabeled ones without gradient on the weak view.
  """
  total = labeled + unlabeled
  networks, trained = {
    'mean_teacher': (1, Passes(total, unlabeled)),
    'dual_student': (2, Passes(2 * total, 2 * total)),
    'dnll': (2, Passes(2 * total, 2 * unlabeled)),
  }[method]
  return {
    TRAINING: trained,
    INFERENCE: Passes(0, total),
    EVALUATION: Passes(0, networks * total),
  }


def configs() -> dict[str, ml_collections.ConfigDict]:
  """The configs of the rows, with the batch of the table."""
  configs_by_row = {}
  for row_id in ROWS:
    config = config_lib.load(rows.find(row_id).config)
    config = config.copy_and_resolve_references().unlock()
    config.batch = dict(labeled=LABELED, unlabeled=UNLABELED)
    configs_by_row[row_id] = config.lock()
  return configs_by_row


def _reported(method: Method) -> stopwatch.Predict:
  """Logits of one network only, so that the other is not computed."""

  def predict(state, images):
    logits = method.predict(state, images)
    return logits[_NETWORKS[0]] if isinstance(logits, dict) else logits

  return predict


def _subjects(
  config: ml_collections.ConfigDict, setting: stopwatch.Setting
) -> dict[str, stopwatch.Subject]:
  """The steps of one method, by kind."""
  kind = config.data.normalize
  data = stopwatch.random_data((), setting, kind)
  method = assembly.build_method(
    config, setting.classes, setting.shape, lambda: data.normalization
  )
  apply = functools.partial(normalize.apply, kind)
  state = train_step.initial_state(method, 0, setting.mesh)
  predict = lambda networks: stopwatch.inference(
    networks, state, setting, apply, data
  )
  return {
    TRAINING: stopwatch.training(
      method, setting, functools.partial(train_step.make_batch, apply), data
    ),
    INFERENCE: predict(_reported(method)),
    EVALUATION: predict(method.predict),
  }


def _forward_backward_cost(
  step_ms: Mapping[str, list[float]], costs: Mapping[str, Passes]
) -> float:
  """Cost of a forward and backward pass, in passes of an inference step, from
  the times of one method; includes all other work of a step.
  """
  forward_ms = statistics.median(step_ms[INFERENCE]) / costs[INFERENCE].forward
  step = statistics.median(step_ms[TRAINING]) / forward_ms
  return (step - costs[TRAINING].forward) / costs[TRAINING].backward


def measure(
  configs_by_row: Mapping[str, ml_collections.ConfigDict],
  setting: stopwatch.Setting,
  *,
  steps: int,
) -> dict[str, dict[str, Any]]:
  """Times all steps of all methods alternately.

  Args:
    configs_by_row: configs by row id; ratios are to the first.
    setting: sizes.
    steps: steps of each.

  Returns:
    By row id: `method`, and by kind of step the milliseconds `ms` of every
    call, their median, `ratio`, `passes`, `units` and `floor`; for training
    also the `expected` ratio, see `DEFINITIONS`.
  """
  train_step.use_precision(setting.precision)
  subjects = {
    (row_id, kind): subject
    for row_id, config in configs_by_row.items()
    for kind, subject in _subjects(config, setting).items()
  }
  step_ms = stopwatch.in_turn(subjects, setting, steps=steps)
  sizes = setting.labeled, setting.unlabeled
  costs = {
    i: passes(config.method.name, *sizes)
    for i, config in configs_by_row.items()
  }
  first = next(iter(configs_by_row))
  of_first = {kind: step_ms[first, kind] for kind in costs[first]}
  forward_backward = _forward_backward_cost(of_first, costs[first])
  measured: dict[str, dict[str, Any]] = {}
  for (row_id, kind), times in step_ms.items():
    cost, base = costs[row_id][kind], costs[first][kind]
    step = {
      'median_ms': statistics.median(times),
      'ratio': step_times.ratio(times, step_ms[first, kind]),
      'floor': cost.units() / base.units(),
      'units': cost.units(),
      'passes': cost._asdict(),
      'ms': times,
    }
    if kind == TRAINING:
      step['expected'] = cost.units(forward_backward) / base.units(
        forward_backward
      )
    subject = measured.setdefault(
      row_id, {'method': configs_by_row[row_id].method.name}
    )
    subject[kind] = step
  return measured


def whole_steps() -> int:
  """Number of timed steps of each kind and method."""
  return _CALLS * loop.default_steps_per_call()


def run(*, seeds: int = 1, reduced: int = 0) -> dict[str, Any]:
  """Times the three rows.

  Args:
    seeds: must be 1, as results do not depend on random numbers.
    reduced: number of timed steps of each; 0 for all.

  Returns:
    Content of the ledger file.

  Raises:
    errors.UserError: for other numbers.
  """
  per_call, full_steps = loop.default_steps_per_call(), whole_steps()
  if seeds != 1:
    raise errors.UserError(f'--seeds={seeds}: a timing has no seeds, give 1')
  if not 0 <= reduced <= full_steps:
    raise errors.UserError(
      f'--reduced={reduced}: the whole timing has {full_steps} steps of each'
    )
  begun = time.perf_counter()
  steps, configs_by_row = reduced or full_steps, configs()
  setting = stopwatch.Setting(
    LABELED,
    UNLABELED,
    _SHAPE,
    _CLASSES,
    per_call,
    configs_by_row[ROWS[0]].precision,
    mesh_lib.make(1),
    kernels=kernels.choose('measured'),
  )
  measured = measure(configs_by_row, setting, steps=steps)
  for row_id, measurement in measured.items():
    measurement['config'] = configs_by_row[row_id].to_dict()
  return {
    'row': ' '.join(ROWS),
    'kind': 'timing',
    'seeds': [0],
    'steps': steps,
    'full_steps': full_steps,
    'reduced': steps < full_steps,
    'steps_per_call': per_call,
    'batch': configs_by_row[ROWS[0]].batch.to_dict(),
    'precision': setting.precision,
    'kernels': setting.kernels,
    'definitions': DEFINITIONS,
    **workdir_lib.provenance(1),
    'data_note': 'random images',
    'peak_memory_mb': round(stopwatch.peak_memory_mb(), 1),
    'wall_time_s': round(time.perf_counter() - begun, 3),
    'methods': measured,
  }


def _paper(kind: str) -> dict[str, float]:
  """The paper's seconds by row; empty if it has none."""
  if kind == TRAINING:
    return {i: rows.find(i).reported or 0.0 for i in ROWS}
  return _PAPER_INFERENCE if kind == INFERENCE else {}


def table(content: Mapping[str, Any]) -> str:
  """A table of milliseconds and ratios to the first row, to print."""
  names = [
    'row',
    'method',
    'training ms',
    'ratio',
    'paper',
    'floor',
    'expected',
    'inference ms',
    'ratio',
    'paper',
    'evaluation ms',
    'ratio',
  ]
  lines = ['| ' + ' | '.join(names) + ' |', '|' + ' --- |' * len(names)]
  for row_id, measurement in content['methods'].items():
    cells = [row_id, measurement['method']]
    for kind in (TRAINING, INFERENCE, EVALUATION):
      step, paper = measurement[kind], _paper(kind)
      cells += [f'{step["median_ms"]:.4g}', f'{step["ratio"]:.2f}']
      if paper:
        cells.append(f'{paper[row_id] / paper[ROWS[0]]:.2f}')
      if kind == TRAINING:
        cells += [f'{step["floor"]:.2f}', f'{step["expected"]:.2f}']
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)
