"""Warnings about the config, split and network of a run, one line each, which
are logged before it starts and stored with its results.
"""

from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from nsl_jax import errors, models
from nsl_jax.data import sources, splits
from nsl_jax.papers import rows
from nsl_jax.training import (
  config as config_lib,
  config_options,
  origin,
  pipeline,
  workdir,
)
from nsl_jax.types import Method

# Fields that may differ from the config of a paper's row: seeds, intervals of
# writing, and those of `workdir.FREE`.
_FREE = (*workdir.FREE, 'seed', 'log_every', 'checkpoint.every', 'eval.batch')
_SHOWN = 3  # fields in a message
_LARGE = 5_000_000  # parameters; small_cnn has 0.4 million at 28x28


def _flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
  return traverse_util.flatten_dict(config.to_dict(), sep='.')


def _difference(config: ml_collections.ConfigDict, row_id: str) -> str:
  """The fields that differ from the row's config; '' for none."""
  row = rows.find(row_id)
  reduced = config.steps if config.steps < config.full_steps else 0
  row_fields = _flat(config_lib.load(row.config, reduced=reduced))
  now = _flat(config)
  differences = [
    f'{name} is {now.get(name)!r} and not {row_fields.get(name)!r}'
    for name in sorted(row_fields.keys() | now.keys())
    if name not in _FREE and row_fields.get(name) != now.get(name)
  ]
  omitted = f' and {len(differences) - _SHOWN} more fields' * (
    len(differences) > _SHOWN
  )
  return ', '.join(differences[:_SHOWN]) + omitted


def confirm_row(
  config: ml_collections.ConfigDict,
) -> tuple[ml_collections.ConfigDict, list[str]]:
  """The config without the rows of the papers that it does not reproduce.

  A config file names the rows that it reproduces, but overrides may change the
  run.

  Returns:
    The config, and a warning for each removed row.
  """
  table, confirmed, warnings = rows.read(), [], []
  for row_id in config.row.split():
    try:
      difference = _difference(config, row_id) if row_id in table else ''
    except errors.UserError as error:
      difference = str(error)
    if difference:
      warnings.append(
        f'the results are not those of row {row_id}: {difference}'
      )
    else:
      confirmed.append(row_id)
  if not warnings:
    return config, []
  config = config.copy_and_resolve_references().unlock()
  config.row = ' '.join(confirmed)
  return config.lock(), warnings


def _horizons(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Fields that depend on the length of the run, by their dotted names."""
  horizons = {
    name: value
    for name, value in _flat(config).items()
    if name.endswith('_steps')
    and value
    and name not in config.passes
    and name.rpartition('.')[2]
    not in ('full_steps', 'scheduled_steps', 'every_steps')
  }
  if config.ema_decay:
    horizons['ema_decay'] = config.ema_decay
  if config.eval.batch_norm == 'running' and (
    config.steps < config.scheduled_steps
  ):
    horizons['eval.batch_norm'] = 'running'
  return horizons


def of_horizons(config: ml_collections.ConfigDict) -> Iterator[str]:
  """Warnings of horizons that do not fit the length of the run."""
  horizons = _horizons(config)
  if config.steps != config.scheduled_steps and horizons:
    fields = ', '.join(f'{k}={v}' for k, v in horizons.items())
    remedy = 'set them too'
    if config.steps < config.scheduled_steps:
      remedy = (
        f'use the argument reduced={config.steps} of the config instead of '
        '--config.steps, or set them too'
      )
    yield (
      f'config.steps={config.steps}, but {fields} are set for '
      f'{config.scheduled_steps} steps: {remedy}'
    )
  if config.steps < config.full_steps and config.passes:
    flat = _flat(config)
    fields = ', '.join(f'{k}={flat[k]}' for k in config.passes if k in flat)
    if fields:
      yield f'not shortened, since they count passes over the data: {fields}'


def of_views(config: ml_collections.ConfigDict) -> Iterator[str]:
  """Warnings of a strong view without a use, and of one that is missing."""
  method, strong = config.method, config.data.strong
  name = config_options.learner_of(method).name
  if strong and config_options.uses_strong_view(method) is False:
    yield f'config.data.strong={strong} is not used: {name} has no strong view'
  elif not strong and config_options.is_weak_strong(method):
    yield (
      f'config.data.strong is empty: the strong view of {name} is drawn like '
      'the weak one'
    )


def of_holdout(config: ml_collections.ConfigDict) -> Iterator[str]:
  """Warning of a separate hold-out set that nothing reads."""
  if config.data.holdout and not config.batch.get('holdout'):
    yield (
      f'config.data.holdout={config.data.holdout} takes these images from the '
      f'validation ones, and {config.method.name} does not use them'
    )


def of_batch(config: ml_collections.ConfigDict) -> Iterator[str]:
  """Warning of unlabeled images in the batches of a method without a use for
  them.
  """
  uses = config_options.uses_unlabeled(config.method)
  if config.batch.unlabeled and uses is False:
    yield (
      f'config.batch.unlabeled={config.batch.unlabeled}, but no loss uses '
      'unlabeled images: they only enter the statistics of batch '
      'normalization, if the network has it; set it to 0 to leave them out'
    )


def of_split(source: sources.Source, split: splits.Split) -> Iterator[str]:
  """Warnings of classes without labeled images, and of unequal numbers."""
  counts = pipeline.counts_by_class(source, split)
  if not counts:
    return
  counts_text = ' '.join(map(str, counts))
  if len(counts) > 20:
    counts_text = f'{min(counts)} to {max(counts)} each'
  empty = [str(k) for k, count in enumerate(counts) if not count]
  if empty:
    yield (
      f'no labeled image of class {", ".join(empty)} (of the classes: '
      f'{counts_text}): raise config.data.labeled or use '
      'config.data.rule=balanced'
    )
  elif max(counts) - min(counts) == 1:
    yield (
      f'{sum(counts)} labeled images are not the same number of each of '
      f'{len(counts)} classes: {counts_text}'
    )


def of_error(
  config: ml_collections.ConfigDict, source: sources.Source
) -> Iterator[str]:
  """Warning of an error measured on the images that choose the weights."""
  if not len(source.test.labels) and (
    config.data.validation and config.protocol == 'best_validation'
  ):
    number = -(-config.steps // config.eval.every_steps)
    yield (
      f'no test images: the error will be the lowest of {number} evaluations '
      'on the images that choose the weights, and so lower than that of new '
      'images'
    )


def of_network(
  config: ml_collections.ConfigDict, parameters: int, images: np.ndarray
) -> Iterator[str]:
  """Warning of a large dense layer, whose size depends on the images."""
  if config.model.name == 'small_cnn' and parameters > _LARGE:
    height, width, channels = images.shape[1:]
    yield (
      f'small_cnn has {parameters:,} parameters at {height}x{width}x'
      f'{channels}, nearly all in one dense layer: use '
      '--config.model.name=wide_resnet, whose size does not follow the images'
    )


def of_networks(
  config: ml_collections.ConfigDict,
  method: Method,
  image_shape: tuple[int, ...],
) -> Iterator[str]:
  """Warning where no image chooses one of a method's networks."""
  if config.data.validation:
    return
  state = jax.eval_shape(method.init, jax.random.key(0))
  images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
  predicted = jax.eval_shape(method.predict, state, images)
  if isinstance(predicted, dict):
    yield (
      f'{config.method.name} trains {len(predicted)} networks, and without '
      f'validation images the first ({min(predicted)}) is the one that predicts'
    )


def of_initial_weights(
  config: ml_collections.ConfigDict, source: sources.Source
) -> list[str]:
  """What the network does not take of `config.model.init_from`.

  Raises:
    errors.UserError: if the weights cannot be read, or do not fit.
  """
  other = origin.of_classes(config, source.class_names)
  model = models.build(
    config.model.to_dict(), source.outputs, new_head=bool(other)
  )
  return other + model.notes(source.train.images.shape[1:])
