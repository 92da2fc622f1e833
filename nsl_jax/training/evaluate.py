"""Exact errors over a whole split: padded, masked, counted."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nsl_jax.compose import tasks
from nsl_jax.training import sharding as mesh_lib
from nsl_jax.training.train_step import Normalize, Read
from nsl_jax.types import Array, Method, State, Task

ENSEMBLE = '_ensemble'
STATISTICS = ('running', 'recomputed')  # of batch normalization, to evaluate by
RECOMPUTED_BATCHES = 20
_NO_STEP = 2**32 - 2  # steps fold their number into the key of the run, too
BY_CLASS = 'by_class'
BALANCED = 'balanced_error'  # 100 % minus the balanced accuracy
_NEARLY_ALL, _MANY = 95.0, 80.0  # % of the predictions, of the labels
_PERCENT = ('error', 'failure')
_BESIDE = ('test_cross_entropy', 'test_failure')  # what else there may be


_Batch = tuple[Array, Array, Array]


class Batches(NamedTuple):
  """A split cut into equal batches.

  Attributes:
    batches: `(images u8[B, H, W, C], labels i32[B] or f32[B, P], real
      bool[B])` each; what is not real is padding. On the devices, or a function
      that puts them there one after another.
    size: number of real images.
  """

  batches: list[_Batch] | Callable[[], Iterator[_Batch]]
  size: int


def on_device(
  images: np.ndarray,
  labels: np.ndarray,
  batch: int,
  mesh: Mesh,
  *,
  rows: np.ndarray | None = None,
  stream: bool = False,
) -> Batches:
  """Cuts a split into whole batches, which are divided over the devices.

  Args:
    images: u8[N, H, W, C], or f32 features.
    labels: i32[N] or f32[N, P].
    batch: size of a batch; the last one is padded.
    mesh: the devices.
    rows: i32[n], which of them; None for all.
    stream: whether batches are put on the devices when they are used, and not
      at once.
  """
  count = len(images) if rows is None else len(rows)
  batch = min(batch, count)
  batch += -batch % mesh.size
  sharding = mesh_lib.batch_sharding(mesh)

  def cut(at: int) -> _Batch:
    chosen = np.arange(at, min(at + batch, count))
    if rows is not None:
      chosen = rows[chosen]
    batch_labels = labels[chosen]
    real = np.arange(batch) < len(chosen)
    short = batch - len(chosen)
    padding = np.full((short, *labels.shape[1:]), -1, labels.dtype)
    chosen = np.concatenate([chosen, np.full(short, -1, chosen.dtype)])
    on_devices = mesh_lib.put_rows(images, chosen, sharding)
    batch_labels = np.concatenate([batch_labels, padding])
    return (on_devices, *mesh_lib.put((batch_labels, real), sharding))

  starts = range(0, count, batch)
  if stream:
    return Batches(lambda: map(cut, starts), count)
  return Batches([cut(at) for at in starts], count)


def _by_network(logits: Array | dict[str, Array]) -> dict[str, Array]:
  """Logits by the suffix of their metrics; several networks also together."""
  if not isinstance(logits, dict):
    return {'': logits}
  log_probs = jnp.stack(
    [jax.nn.log_softmax(network_logits) for network_logits in logits.values()]
  )
  return {
    **{f'_{name}': network_logits for name, network_logits in logits.items()},
    ENSEMBLE: jax.nn.logsumexp(log_probs, axis=0),  # but for a constant
  }


def _counts(logits: Array, labels: Array, real: Array) -> dict[str, Array]:
  """i32[K] each: real images by class, wrong predictions, and by what the
  network says of them."""
  predicted = jnp.argmax(logits, axis=-1)
  by = lambda classes, which: jnp.where(
    which[:, None], jax.nn.one_hot(classes, logits.shape[-1], dtype=int), 0
  ).sum(0)
  return {
    'images': by(labels, real),
    'wrong': by(labels, real & (predicted != labels)),
    'predicted': by(predicted, real),
  }


def _shares(counts: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
  """From `_counts` over the whole split to what is reported by class: the
  error in %, None where there are no images of it, and the counts."""
  images, wrong, predicted = (
    [int(count) for count in counts[name]]
    for name in ('images', 'wrong', 'predicted')
  )
  error = [100.0 * w / n if n else None for w, n in zip(wrong, images)]
  return {'error': error, 'predicted': predicted}


def make_evaluate(
  method: Method,
  normalize: Normalize,
  task: Task = tasks.CLASSIFICATION,
  *,
  compiler_options: dict[str, Any] | None = None,
) -> Callable[[State, Any, Batches], dict[str, Any]]:
  """A function `(state, fitted, split) -> {metric: mean}`.

  Of classes: `error`, the percentage of images whose largest logit is not that
  of their class, and `cross_entropy` in nats. A method of several networks has
  both for each (`error_a`) and for the mean of their probabilities
  (`error_ensemble`). Beside each error stands `by_class` (`by_class_a`): the
  `error` of every class, and of how many images it is `predicted`.
  Of points: `error`, the mean distance over points in percent of the distance
  of the first two true ones, and `failure`, the percentage of images where
  that is above 10.
  """

  @functools.partial(jax.jit, compiler_options=compiler_options)
  def count(state, fitted, images, labels, real):
    sums, counts = {}, {}
    predicted = method.predict(state, normalize(fitted, images))
    for name, outputs in _by_network(predicted).items():
      for metric, values in task.metrics(outputs, labels, fitted).items():
        sums[f'{metric}{name}'] = jnp.where(real, values, 0).sum()
      if task is tasks.CLASSIFICATION:
        counts[f'{BY_CLASS}{name}'] = _counts(outputs, labels, real)
    return sums, counts

  def evaluate(state: State, fitted, split: Batches) -> dict[str, Any]:
    measure = lambda batch: mesh_lib.block_until_ready(
      count(state, fitted, *batch)
    )
    if isinstance(split.batches, list):
      measured = jax.device_get([measure(batch) for batch in split.batches])
    else:  # one batch on the devices at a time
      measured = [jax.device_get(measure(batch)) for batch in split.batches()]
    sums, counts = zip(*measured)
    totals = {k: math.fsum(float(part[k]) for part in sums) for k in sums[0]}
    means = {
      name: (100.0 if name.startswith(_PERCENT) else 1.0) * total / split.size
      for name, total in totals.items()
    }
    total_counts = jax.tree.map(lambda *parts: sum(parts), *counts)
    return means | {name: _shares(part) for name, part in total_counts.items()}

  return evaluate


def _statistics(state: State) -> dict[str, Any]:
  """The fields of a state in which statistics of batch normalization are."""
  return {'stats': state.stats, 'slots': state.slots}


def make_recompute(
  method: Method,
  make_batch: Read,
  mesh: Mesh,
  *,
  compiler_options: dict[str, Any] | None = None,
) -> Callable[[State, Any, Mapping[str, Array]], State]:
  """A function `(state, data, rows) -> state` to evaluate a short run with.

  Its batch-normalization statistics are means over training batches with the
  weights that `method.predict` reads. The running ones are of past weights,
  which in a short run, or beside averaged weights, are those of another
  network: a wide residual network that makes 2 % errors was scored at 54 %.

  Args:
    method: with `recompute`; training does not see what it returns.
    make_batch: `(data, rows) -> Batch`.
    mesh: the devices.

  Returns:
    The function; `rows` are those of several steps, i32[N, B] each.
  """

  def add_batch(mean, state, data, rows, index):
    batch = make_batch(data, jax.tree.map(lambda r: r[index], rows))
    key = jax.random.fold_in(jax.random.fold_in(state.key, _NO_STEP), index)
    updated = method.recompute(state, jnp.concatenate([batch.x, batch.u]), key)
    return jax.tree.map(
      lambda m, f: (
        m + (f - m) / (index + 1.0)
        if jnp.issubdtype(m.dtype, jnp.floating)
        else m
      ),  # such as a table of classes
      mean,
      _statistics(updated),
    )

  step = jax.jit(
    add_batch,
    out_shardings=mesh_lib.replicated_sharding(mesh),
    compiler_options=compiler_options,
  )

  def recompute(state: State, data: Any, rows: Mapping[str, Array]) -> State:
    mean = _statistics(state)
    for index in range(len(rows['labeled'])):
      mean = mesh_lib.block_until_ready(step(mean, state, data, rows, index))
    return state.replace(**mean)

  return recompute


def report(
  tested: Mapping[str, Any] | None, held_out: Mapping[str, Any] | None
) -> dict[str, Any]:
  """One evaluation's line, `test_error` and `validation_error` among it.

  Of several networks these are the errors of the one with the lowest
  validation error, named in `submodel`, or of the first where nothing is held
  out: DNLL does not say which network it reports, and its released code takes
  the better one on test images (F-D12); those of each and of the ensemble are
  included. Of classes also `by_class`, of that network: `test_error` and
  `test_predicted` by class, and the same of the validation images; and
  `test_balanced_error`, the mean of the errors of the classes.

  Args:
    tested: what `make_evaluate`'s function found of the test images; None where
      there are none.
    held_out: the same of the validation images.
  """
  if tested is None and held_out is None:
    return {'validation_error': None, 'test_error': None}
  line: dict[str, Any] = {}
  values_of = {'validation': held_out or {}, 'test': tested or {}}
  evaluated = tested or held_out or {}
  for prefix, values in values_of.items():
    line.update(
      {
        f'{prefix}_{k}': v
        for k, v in values.items()
        if not k.startswith(BY_CLASS)
      }
    )
  chosen = BY_CLASS
  if 'error' not in evaluated:
    names = [
      k.removeprefix('error_')
      for k in evaluated
      if k.startswith('error_') and not k.endswith(ENSEMBLE)
    ]
    validation = held_out or {f'error_{name}': 0.0 for name in names}
    line['submodel'] = best = min(names, key=lambda n: validation[f'error_{n}'])
    chosen = f'{BY_CLASS}_{best}'
    for prefix, values in values_of.items():
      for metric in ('error', 'cross_entropy') if values else ():
        line[f'{prefix}_{metric}'] = line[f'{prefix}_{metric}_{best}']
  if held_out is None:
    test_fields = [k for k in line if k in ('test_error', *_BESIDE)]
    line.update({k.replace('test', 'validation', 1): None for k in test_fields})
  if tested is None:
    line['test_error'] = None
  if chosen in evaluated:
    line[BY_CLASS] = {
      f'{prefix}_{name}': numbers
      for prefix, values in values_of.items()
      for name, numbers in values.get(chosen, {}).items()
    }
    for prefix in values_of:
      errors = line[BY_CLASS].get(f'{prefix}_error')
      if errors is not None:
        line[f'{prefix}_{BALANCED}'] = _balanced(errors)
  return line


def _balanced(errors: Sequence[float | None]) -> float | None:
  """Mean of the errors of the classes that have images, in %."""
  present = [error for error in errors if error is not None]
  return math.fsum(present) / len(present) if present else None


def collapse(
  line: Mapping[str, Any], labels: Mapping[str, np.ndarray]
) -> str | None:
  """Warns if a network predicts one class for nearly all images.

  Args:
    line: what `report` gave.
    labels: by `test` and `validation` the labels of those images, i32[N].

  Returns:
    One line if a class is more than 95 % of the predictions and less than 80 %
    of the labels; else None.
  """
  for prefix, split_labels in labels.items():
    predicted = line.get(BY_CLASS, {}).get(f'{prefix}_predicted')
    if not predicted:
      continue
    top = int(np.argmax(predicted))
    share = 100.0 * predicted[top] / sum(predicted)
    true_share = 100.0 * float(np.mean(split_labels == top))
    if share > _NEARLY_ALL and true_share < _MANY:
      return (
        f'class {top} is {share:.1f} % of the {prefix} predictions and '
        f'{true_share:.1f} % of the labels'
      )
  return None
