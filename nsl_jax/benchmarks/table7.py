"""DN-T7: what a step of Mean Teacher, Dual Student and DNLL costs.

The paper's seconds are those of one graphics card; elsewhere only ratios
compare, and those only within one run. So the three are always timed together,
in turn, on random images of CIFAR-10's size. Beside each ratio of training
stands the lowest that the passes through a network alone allow.
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
  config as config_lib,
  experiment,
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
_CALLS = 20  # timed calls of each
_SHAPE, _CLASSES = (32, 32, 3), 10
_NETWORKS = 'a', 'b'  # of a method that has two
# Seconds that the paper gives for inference.
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
  """Images that a step sends through a network.

  Attributes:
    backward: forward and backward.
    forward: forward alone.
  """

  backward: int
  forward: int

  def units(self, both: float = 3.0) -> float:
    """In forward passes of one image.

    Args:
      both: how many of them a pass forward and backward is; by arithmetic 3.
    """
    return both * self.backward + self.forward


def passes(method: str, labeled: int, unlabeled: int) -> dict[str, Passes]:
  """What each step costs, by kind of step.

  Mean Teacher: all images with gradient, the unlabeled ones through the
  teacher. Dual Student: all with gradient
  in either network, and without gradient on the other's view. DNLL: all with
  gradient in either, the unlabeled ones without on the view that teaches.
  """
  both = labeled + unlabeled
  networks, trained = {
    'mean_teacher': (1, Passes(both, unlabeled)),
    'dual_student': (2, Passes(2 * both, 2 * both)),
    'dnll': (2, Passes(2 * both, 2 * unlabeled)),
  }[method]
  return {
    TRAINING: trained,
    INFERENCE: Passes(0, both),
    EVALUATION: Passes(0, networks * both),
  }


def configs() -> dict[str, ml_collections.ConfigDict]:
  """The rows' configs, all with the batch of the table."""
  found = {}
  for row_id in ROWS:
    config = config_lib.load(rows.find(row_id).config)
    config = config.copy_and_resolve_references().unlock()
    config.batch = dict(labeled=LABELED, unlabeled=UNLABELED)
    found[row_id] = config.lock()
  return found


def _reported(method: Method) -> stopwatch.Predict:
  """Logits of one network; the other is not even computed."""

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
  method = experiment.build_method(
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


def _both(
  taken: Mapping[str, list[float]], costs: Mapping[str, Passes]
) -> float:
  """What a pass forward and backward takes, in passes of an inference step,
  by the times of one method: with it all that a step does but passes.
  """
  one = statistics.median(taken[INFERENCE]) / costs[INFERENCE].forward
  step = statistics.median(taken[TRAINING]) / one
  return (step - costs[TRAINING].forward) / costs[TRAINING].backward


def measure(
  found: Mapping[str, ml_collections.ConfigDict],
  setting: stopwatch.Setting,
  *,
  steps: int,
) -> dict[str, dict[str, Any]]:
  """Times all steps of all methods in turn.

  Args:
    found: configs by row id; ratios are to the first.
    setting: sizes.
    steps: of each.

  Returns:
    By row id: `method` and by kind of step the milliseconds `ms` of every
    call, their median, `ratio`, `passes`, `units` and `floor`; of training
    also what ratio is `expected`, see `DEFINITIONS`.
  """
  train_step.use_precision(setting.precision)
  subjects = {
    (row_id, kind): one
    for row_id, config in found.items()
    for kind, one in _subjects(config, setting).items()
  }
  taken = stopwatch.in_turn(subjects, setting, steps=steps)
  sizes = setting.labeled, setting.unlabeled
  costs = {i: passes(config.method.name, *sizes) for i, config in found.items()}
  first = next(iter(found))
  of_first = {kind: taken[first, kind] for kind in costs[first]}
  both = _both(of_first, costs[first])
  measured: dict[str, dict[str, Any]] = {}
  for (row_id, kind), times in taken.items():
    cost, base = costs[row_id][kind], costs[first][kind]
    step = {
      'median_ms': statistics.median(times),
      'ratio': step_times.ratio(times, taken[first, kind]),
      'floor': cost.units() / base.units(),
      'units': cost.units(),
      'passes': cost._asdict(),
      'ms': times,
    }
    if kind == TRAINING:
      step['expected'] = cost.units(both) / base.units(both)
    one = measured.setdefault(row_id, {'method': found[row_id].method.name})
    one[kind] = step
  return measured


def whole_steps() -> int:
  """Timed steps of each kind of step and method."""
  return _CALLS * loop.default_steps_per_call()


def run(*, seeds: int = 1, reduced: int = 0) -> dict[str, Any]:
  """Times the three rows.

  Args:
    seeds: must be 1, nothing is drawn that matters.
    reduced: timed steps of each instead of all; 0 for all.

  Returns:
    What the ledger keeps.

  Raises:
    errors.UserError: for other numbers.
  """
  per_call, whole = loop.default_steps_per_call(), whole_steps()
  if seeds != 1:
    raise errors.UserError(f'--seeds={seeds}: a timing has no seeds, give 1')
  if not 0 <= reduced <= whole:
    raise errors.UserError(
      f'--reduced={reduced}: the whole timing has {whole} steps of each'
    )
  begun = time.perf_counter()
  steps, found = reduced or whole, configs()
  setting = stopwatch.Setting(
    LABELED,
    UNLABELED,
    _SHAPE,
    _CLASSES,
    per_call,
    found[ROWS[0]].precision,
    mesh_lib.make(1),
    kernels=kernels.choose('measured'),
  )
  measured = measure(found, setting, steps=steps)
  for row_id, one in measured.items():
    one['config'] = found[row_id].to_dict()
  return {
    'row': ' '.join(ROWS),
    'kind': 'timing',
    'seeds': [0],
    'steps': steps,
    'full_steps': whole,
    'reduced': steps < whole,
    'steps_per_call': per_call,
    'batch': found[ROWS[0]].batch.to_dict(),
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
  """The paper's seconds by row; empty where it has none."""
  if kind == TRAINING:
    return {i: rows.find(i).reported or 0.0 for i in ROWS}
  return _PAPER_INFERENCE if kind == INFERENCE else {}


def table(content: Mapping[str, Any]) -> str:
  """What is printed: milliseconds, and ratios to the first row."""
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
  for row_id, one in content['methods'].items():
    cells = [row_id, one['method']]
    for kind in (TRAINING, INFERENCE, EVALUATION):
      step, paper = one[kind], _paper(kind)
      cells += [f'{step["median_ms"]:.4g}', f'{step["ratio"]:.2f}']
      if paper:
        cells.append(f'{paper[row_id] / paper[ROWS[0]]:.2f}')
      if kind == TRAINING:
        cells += [f'{step["floor"]:.2f}', f'{step["expected"]:.2f}']
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)
