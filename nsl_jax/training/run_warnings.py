"""What a run tells before it starts, and stores with its results: what is
unusual about its config, its split and its network, in a line each.
"""

from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
from flax import traverse_util

from nsl_jax import errors, models
from nsl_jax.data import sources, splits
from nsl_jax.papers import rows
from nsl_jax.training import config as config_lib, pipeline, workdir

# What may differ from the config of a paper's row: another seed, how often
# progress is written, and what `workdir.FREE` lists.
_FREE = (*workdir.FREE, 'seed', 'log_every', 'checkpoint.every', 'eval.batch')
_SHOWN = 3  # fields of a message
_LARGE = 5_000_000  # parameters; small_cnn has 0.4 million at 28x28


def _flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
  return traverse_util.flatten_dict(config.to_dict(), sep='.')


def _difference(config: ml_collections.ConfigDict, row_id: str) -> str:
  """The fields that differ from the row's own config; '' for none."""
  row = rows.find(row_id)
  reduced = config.steps if config.steps < config.full_steps else 0
  own = _flat(config_lib.load(row.config, reduced=reduced))
  now = _flat(config)
  found = [
    f'{name} is {now.get(name)!r} and not {own.get(name)!r}'
    for name in sorted(own.keys() | now.keys())
    if name not in _FREE and own.get(name) != now.get(name)
  ]
  more = f' and {len(found) - _SHOWN} fields more' * (len(found) > _SHOWN)
  return ', '.join(found[:_SHOWN]) + more


def confirm_row(
  config: ml_collections.ConfigDict,
) -> tuple[ml_collections.ConfigDict, list[str]]:
  """The config without the rows of the papers that it no longer is.

  A config file names the row that it reproduces; an option of the command line
  may have changed what is run since.

  Returns:
    The config, and a warning for each row that was taken out.
  """
  known, kept, warnings = rows.read(), [], []
  for row_id in config.row.split():
    try:
      what = _difference(config, row_id) if row_id in known else ''
    except errors.UserError as error:
      what = str(error)
    if what:
      warnings.append(f'the results are not those of row {row_id}: {what}')
    else:
      kept.append(row_id)
  if not warnings:
    return config, []
  config = config.copy_and_resolve_references().unlock()
  config.row = ' '.join(kept)
  return config.lock(), warnings


def _horizons(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Fields that are set for a length of the run, by their dotted names."""
  found = {
    name: value
    for name, value in _flat(config).items()
    if name.endswith('_steps')
    and value
    and name not in config.passes
    and name.rpartition('.')[2]
    not in ('full_steps', 'scheduled_steps', 'every_steps')
  }
  if config.ema_decay:
    found['ema_decay'] = config.ema_decay
  if config.eval.batch_norm == 'running' and (
    config.steps < config.scheduled_steps
  ):
    found['eval.batch_norm'] = 'running'
  return found


def of_horizons(config: ml_collections.ConfigDict) -> Iterator[str]:
  """Which horizons a run of another length has not moved, or a reduced one."""
  found = _horizons(config)
  if config.steps != config.scheduled_steps and found:
    fields = ', '.join(f'{k}={v}' for k, v in found.items())
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


def of_split(source: sources.Source, split: splits.Split) -> Iterator[str]:
  """Classes without a labeled image, and uneven numbers of them."""
  counts = pipeline.counts_by_class(source, split)
  if not counts:
    return
  shown = ' '.join(map(str, counts))
  if len(counts) > 20:
    shown = f'{min(counts)} to {max(counts)} each'
  empty = [str(k) for k, count in enumerate(counts) if not count]
  if empty:
    yield (
      f'no labeled image of class {", ".join(empty)} (of the classes: '
      f'{shown}): raise config.data.labeled or use config.data.rule=balanced'
    )
  elif max(counts) - min(counts) == 1:
    yield (
      f'{sum(counts)} labeled images are not the same number of each of '
      f'{len(counts)} classes: {shown}'
    )


def of_network(
  config: ml_collections.ConfigDict, parameters: int, images: np.ndarray
) -> Iterator[str]:
  """A dense layer that follows the size of the images."""
  if config.model.name == 'small_cnn' and parameters > _LARGE:
    height, width, channels = images.shape[1:]
    yield (
      f'small_cnn has {parameters:,} parameters at {height}x{width}x'
      f'{channels}, nearly all in one dense layer: use '
      '--config.model.name=wide_resnet, whose size does not follow the images'
    )


def of_initial_weights(
  config: ml_collections.ConfigDict,
  outputs: int,
  image_shape: tuple[int, int, int],
) -> list[str]:
  """What the network does not take of `config.model.init_from`.

  Args:
    config: the config.
    outputs: K, how many numbers the network says of an image.
    image_shape: (H, W, C).

  Raises:
    errors.UserError: if the weights cannot be read, or do not fit.
  """
  return models.build(config.model.to_dict(), outputs).notes(image_shape)
