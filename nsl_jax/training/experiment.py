"""Composition root: from a config to trained seeds and their results."""

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from flax import traverse_util

from nsl_jax import errors, files, references
from nsl_jax.data import (
  duplicates,
  on_demand,
  sampler,
  sources,
  split_file,
  splits,
)
from nsl_jax.models import weights
from nsl_jax.training import (
  assembly,
  automatic,
  checkpoint,
  evaluate,
  feed,
  lock,
  loop,
  network_file,
  origin,
  pipeline,
  results,
  run_warnings,
  sharding as mesh_lib,
  trackers,
  train_step,
  workdir as workdir_lib,
)
from nsl_jax.types import Data, State


def _evaluation(
  config: ml_collections.ConfigDict,
  parts: assembly.Parts,
  split: splits.Split,
  data: Data,
  title: str,
  verbose: bool,
) -> loop.Evaluate:
  fitted = data.normalization
  held_out = None
  if len(split.validation):
    held_out = evaluate.on_device(
      *parts.source.train,
      config.eval.batch,
      parts.mesh,
      rows=split.validation,
      stream=parts.streamed,
    )

  labels = _labels(parts.source, split)
  warned: list[str] = []

  def run(state: State) -> dict[str, Any]:
    tested = parts.test and parts.evaluate(state, fitted, parts.test)
    validation = held_out and parts.evaluate(state, fitted, held_out)
    line = evaluate.report(tested, validation)
    collapsed = evaluate.collapse(line, labels)
    if collapsed and verbose and not warned:
      warned.append(collapsed)
      logging.warning('%s: %s (by_class in metrics.jsonl)', title, collapsed)
    return line

  return run


def _streamed_images(parts: assembly.Parts) -> np.ndarray | None:
  return parts.source.train.images if parts.streamed else None


def _recompute(
  parts: assembly.Parts, data: Data, streams: Mapping[str, sampler.Stream]
) -> Callable[[State], State] | None:
  if parts.recompute is None:
    return None

  def recompute(state: State) -> State:
    step = int(state.step)
    steps = range(step, step + evaluate.RECOMPUTED_BATCHES)
    rows = feed.rows_at(streams, steps, parts.mesh, _streamed_images(parts))
    return parts.recompute(state, data, rows)

  return recompute


def _content(split: splits.Split, source: sources.Source) -> bytes:
  """The split, all labels, and hashes of the pixels of the labeled images."""
  labels = (part.labels.tobytes() for part in (source.train, source.test))
  codes = itertools.chain.from_iterable(_codes(split, source).values())
  return b' '.join([split.sha256().encode(), *labels, *codes])


def _codes(
  split: splits.Split, source: sources.Source
) -> dict[str, list[bytes]]:
  """Part -> hashes of the pixels of its images, but for the unlabeled ones."""
  return {
    name: list(duplicates.hashes(source.train.images, rows).values())
    for name, rows in split._asdict().items()
    if name != 'unlabeled'
  }


# Hash of the data -> what other data have, where it differs.
_OF_HASHES = {
  'unlabeled': 'unlabeled images',
  'test': 'test images or labels',  # their errors would have no common mean
  'pixels': 'unlabeled or test images',
}


def _pixels(split: splits.Split, source: sources.Source) -> str:
  """`split_file.pixels_sha256` of images that may change under their names; ''
  of known data sets, of very many images, and where this process has not
  decoded all.
  """
  images = source.train.images, source.test.images
  if source.name in sources.NAMES or any(
    isinstance(part, on_demand.Images) or not duplicates.are_compared(part)
    for part in images
  ):
    return ''
  return split_file.pixels_sha256(split, *images)


def _keep_split(
  split: splits.Split,
  source: sources.Source,
  path: files.Path,
  earlier: Collection[bytes],
) -> str:
  """Writes the split, or makes sure that it is the one written before, of the
  same classes; returns the hash of its images and labels. `earlier` are hashes
  of images whose labels the initial weights were trained with.
  """
  now = split_file.Hashes(
    split_file.content_sha256(split, *source.train),
    split_file.test_sha256(*source.test),
    split_file.unlabeled_sha256(split, source.train.images),
    _pixels(split, source),
  )
  if path.exists():
    same_rows = split_file.load(path).sha256() == split.sha256()
    before = split_file.load_hashes(path)
    if not same_rows or before.content != now.content:
      difference = 'images or labels' if same_rows else 'rows'
      raise errors.UserError(
        f'{path} has other {difference} than this data gives: the data set has '
        'changed since; use another --workdir'
      )
    for name, others in _OF_HASHES.items():
      old, new = getattr(before, name), getattr(now, name)
      if old and new and old != new:
        raise errors.UserError(
          f'{path} is of a run with other {others} than this data gives: use '
          'another --workdir'
        )
    now = now._replace(pixels=now.pixels or before.pixels)
  # Of known data sets a copy may lack the names.
  named = source.classes and source.name not in sources.NAMES
  if named and network_file.exists(path.parent):
    classes = network_file.read(path.parent).classes
    if list(map(str, classes)) != list(map(str, source.class_names)):
      raise errors.UserError(
        f'{path.parent} was trained on the classes {errors.shown(classes)}, '
        f'and this data has {errors.shown(source.class_names)}: use another '
        '--workdir'
      )
  codes = {**_codes(split, source), split_file.EARLIER: sorted(earlier)}
  split_file.save(split, path, now, codes)
  return now.content


def _labels(
  source: sources.Source, split: splits.Split
) -> dict[str, np.ndarray]:
  """Labels of the images that are evaluated."""
  return {
    'test': source.test.labels,
    'validation': source.train.labels[split.validation],
  }


@contextlib.contextmanager
def _closing(sent: trackers.Trackers | None) -> Iterator[None]:
  """Tells the trackers at the end how the run has ended."""
  status = trackers.FAILED
  try:
    yield
    status = trackers.FINISHED
  except loop.Interrupted:
    status = trackers.KILLED
    raise
  finally:
    if sent is not None:
      sent.close(status)


def _done(file: files.Path, steps: int) -> dict[str, Any]:
  """The result after so many steps; {} if it is not there yet."""
  if not file.exists():
    return {}
  content = workdir_lib.read_json(file)
  if content.get('last', {}).get('step') == steps:
    return content
  checkpoints = file.parent / 'checkpoints'  # the run was made longer since
  if not checkpoint.steps_in(checkpoints):
    raise errors.UserError(
      f'{file.parent} has a result but no checkpoint to go on from: restore '
      f'{checkpoints}, or use another --workdir'
    )
  return {}


def train_seed(
  config: ml_collections.ConfigDict,
  parts: assembly.Parts,
  seed: int,
  folder: files.Path,
  title: str,
  verbose: bool = True,
  deadline: float | None = None,
) -> dict[str, Any]:
  """Trains one seed, or finds that it is done.

  Returns:
    Its result; of several processes only the first has one.
  """
  file = folder / 'result.json'
  if not files.in_bucket(folder):  # which has no folders
    files.make_folder(folder, '--workdir')
  split = pipeline.split_of(config, parts.source, seed)
  mesh_lib.check_same(
    lambda: _content(split, parts.source), 'other images or labels'
  )
  content_sha256 = mesh_lib.in_first_process(
    lambda: _keep_split(
      split, parts.source, folder / 'split.npz', origin.labeled(config)
    ),
    f'use the split in {folder}',
  )
  done = mesh_lib.in_first_process(
    lambda: _done(file, parts.plan.steps), f'read {file}'
  )
  if mesh_lib.process_max(bool(done)):
    return done or {}
  data = assembly.data_of(parts, split)
  mesh_lib.in_first_process(
    lambda: network_file.write(folder, _network_facts(config, parts, data)),
    f'write to {folder}',
  )
  streams = pipeline.index_iterators(config, split, seed)
  sent = None
  if jax.process_index() == 0:
    sent = trackers.Trackers(config, folder, title)
  with _closing(sent):
    trained = loop.run(
      folder,
      plan=parts.plan,
      mesh=parts.mesh,
      title=title,
      state=train_step.initial_state(parts.method, seed, parts.mesh),
      data=data,
      streams=streams,
      chunk=parts.chunk,
      evaluate=_evaluation(config, parts, split, data, title, verbose),
      recompute=_recompute(parts, data, streams),
      images=_streamed_images(parts),
      verbose=verbose,
      sent=sent,
      deadline=deadline,
      start=workdir_lib.provenance(parts.mesh.size),
    )

  def report() -> dict[str, Any]:
    content = {
      'seed': seed,
      'split_sha256': split.sha256(),
      'content_sha256': content_sha256,
      'labeled_by_class': pipeline.counts_by_class(parts.source, split),
      'wall_time_s': trained.seconds,
      'provenance': results.joined_provenance(trained.starts),
      **results.of_seed(folder, _labels(parts.source, split)),
    }
    content['warnings'] += sent.warnings if sent else []
    workdir_lib.write_json(file, content)
    return content

  return mesh_lib.in_first_process(report, f'write {file}') or {}


def _network_facts(
  config: ml_collections.ConfigDict, parts: assembly.Parts, data: Data
) -> network_file.Facts:
  source = parts.source
  return network_file.Facts(
    task=parts.task.name,
    outputs=source.outputs,
    classes=source.class_names,
    image_shape=source.train.images.shape[1:],
    fit=source.form.fit if source.form else 'crop',
    normalize=config.data.normalize,
    arrays={k: np.asarray(v) for k, v in data.normalization.items()},
    num_images=len(source.train.labels),
  )


def _warnings(
  config: ml_collections.ConfigDict, parts: assembly.Parts, seeds: range
) -> list[str]:
  """Warnings of the run; also detects early a split that cannot be made."""
  lines = [
    *run_warnings.of_horizons(config),
    *run_warnings.of_batch(config),
    *run_warnings.of_views(config),
    *run_warnings.of_holdout(config),
    *run_warnings.of_network(
      config, parts.parameters, parts.source.train.images
    ),
    *run_warnings.of_initial_weights(config, parts.source),
    *run_warnings.of_error(config, parts.source),
    *run_warnings.of_networks(
      config, parts.method, parts.source.train.images.shape[1:]
    ),
  ]
  for seed in seeds:
    split = pipeline.split_of(config, parts.source, seed)
    pipeline.index_iterators(config, split, seed)
    rows = {name: part for name, part in split._asdict().items() if len(part)}
    source = parts.source
    lines += [
      f'seed {seed}: {line}'
      for line in (
        *run_warnings.of_split(source, split),
        *origin.of_evaluated(config, source, split),
        *_copies(source, rows),
      )
    ]
  return lines


def _names_of_parts(config: ml_collections.ConfigDict) -> Iterator[str]:
  """The words of a config that may name a part from outside."""
  yield from (config.model.name, config.data.augment, config.data.strong)
  fields = traverse_util.flatten_dict(config.method.to_dict())
  for path, value in fields.items():
    yield from path  # a term may be named by its part
    if path[-1] in ('name', 'module'):
      yield value


def _copies(
  source: sources.Source, rows: Mapping[str, np.ndarray]
) -> list[str]:
  """Images in two parts; of a large data set all but the unlabeled ones."""
  lines = []
  if not duplicates.are_compared(source.train.images):
    rows = {k: v for k, v in rows.items() if k != 'unlabeled'}
    lines = ['unlabeled images are not compared with those to evaluate on']
  return lines + duplicates.across(
    source.train.images, rows, source.test.images, source.files
  )


def run(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  source: sources.Source | None = None,
  *,
  verbose: bool = True,
  deadline: float | None = None,
) -> dict[str, Any]:
  """Trains all seeds of a config in `workdir` and writes `results.json`.

  Args:
    config: the config; what it leaves open follows from the data.
    workdir: where to write.
    source: the data, such as by `nsl_jax.data.of_arrays`; the stored config
      has its name, and none of `data.dir`. None for those that the config
      names.
    verbose: whether to print what was read and chosen, warnings and progress;
      all but the last are in the result, too.
    deadline: when to stop and save, as a time of `time.monotonic`.

  Returns:
    What that file holds; of several processes only the first has it.

  Raises:
    errors.UserError: for wrong input, or if another run is at work there.
    errors.TrainingError: if a seed's loss is not finite.
    errors.WriteError: if a file cannot be written.
    loop.Interrupted: if a signal, or the deadline, stops the run.
  """
  folder = files.path_of(workdir, '--workdir')
  with lock.Lock(folder) as held:
    return _run(config, folder, held, source, verbose, deadline)


def _run(
  config: ml_collections.ConfigDict,
  workdir: files.Path,
  held: lock.Lock,
  source: sources.Source | None,
  verbose: bool,
  deadline: float | None,
) -> dict[str, Any]:
  if source is not None:
    source = pipeline.selected(source, config)
    config = config.copy_and_resolve_references().unlock()
    config.data.name, config.data.dir = source.name, ''
    config.lock()
  config, warnings = run_warnings.confirm_row(config)
  chosen: tuple[str, ...] = ()
  if automatic.is_open(config):
    source = source or pipeline.load_source(config)
    config, chosen = automatic.resolve(config, source)
  parts = assembly.prepare(config, workdir, source)
  printed = verbose and jax.process_index() == 0
  if printed:
    init_from = config.model.get('init_from')
    start = (f'starts from the weights in {init_from}',) if init_from else ()
    for line in (*parts.source.report, *chosen, *start):
      print(line, file=sys.stderr)
  objects = references.sources(_names_of_parts(config))
  with config.unlocked():
    config.kernels = parts.kernels
    if objects:
      config.objects = objects
    if config.model.get('init_from'):
      config.init_from_sha256 = weights.sha256(config.model.init_from)
  seeds = range(config.seed, config.seed + config.seeds)
  warnings += _warnings(config, parts, seeds)
  if printed:
    for line in warnings:
      print(f'warning: {line}', file=sys.stderr)
  if not mesh_lib.process_max((workdir / 'config.json').exists()):
    assembly.check_step(config, parts, config.seed)
  if not files.in_bucket(workdir):  # where taking the lock tries to write
    files.make_folder(workdir, '--workdir')
  mesh_lib.check_same(
    lambda: workdir_lib.text_of(config.to_dict()).encode(), 'another config'
  )
  held.take()

  def take_folder() -> None:
    for seed in seeds:  # before the config is that of a longer run
      _done(workdir / f'seed_{seed}' / 'result.json', config.steps)
    workdir_lib.lock_workdir_to_config(workdir, config.to_dict())

  mesh_lib.in_first_process(take_folder, f'use {workdir}')
  per_seed = []
  for seed in seeds:
    title = f'seed {seed}' if len(seeds) > 1 else config.method.name
    folder = workdir / f'seed_{seed}'
    report = train_seed(config, parts, seed, folder, title, verbose, deadline)
    logging.info('seed %d: %s', seed, report)
    per_seed.append(report)

  def report_all() -> dict[str, Any]:
    content = results.of_run(
      config,
      per_seed,
      parts.source,
      parameters=parts.parameters,
      devices=parts.mesh.size,
      warnings=warnings,
      chosen=chosen,
    )
    workdir_lib.write_json(workdir / 'results.json', content)
    return content

  return mesh_lib.in_first_process(report_all, f'write to {workdir}') or {}
