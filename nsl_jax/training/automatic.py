"""Settings that a config leaves open and that follow from the images.

Open are a number of -1 and the word `auto`. A config of the papers leaves
nothing open.
"""

import operator
from typing import Any

import jax
import ml_collections
import numpy as np

from nsl_jax import errors, models
from nsl_jax.data import normalize, sources
from nsl_jax.training import config_checks, config_options

OPEN = config_options.OPEN
_HELD_OUT = 5  # one of so many labeled images is held out for validation
_BATCH = 32
_PASSES = 10  # over the training images, within these numbers of steps:
_FEWEST, _MOST = 1000, 20_000
_MEASURING = 10  # fewer validation images would measure nothing
# Fewer than this measure but do not choose: many of 30 evaluations have
# the same error then, and the best of them is that by chance.
_CHOOSING = 100
_UNITS = 20.0  # largest deviation of features, in medians, of one kind
_EVALUATIONS = 30
_LINES = 100
_STRONG = 'randaugment:2,cutout:0.5'
_AVERAGED = 20  # weights are averaged over the last 1 / 20 of the run
_FIELDS = (
  'steps',
  'protocol',
  'data.labeled',
  'data.validation',
  'data.augment',
  'data.strong',
  'data.normalize',
  'batch.labeled',
  'batch.unlabeled',
  'model.name',
  'method.name',
  'ema_decay',
  'eval.every_steps',
  'log_every',
  'checkpoint.every',
)


def is_open(config: ml_collections.ConfigDict) -> bool:
  """Whether a config leaves settings open."""
  values = (operator.attrgetter(name)(config) for name in _FIELDS)
  return any(value in (OPEN, config_options.AUTO) for value in values)


def resolve(
  config: ml_collections.ConfigDict, source: sources.Source
) -> tuple[ml_collections.ConfigDict, tuple[str, ...]]:
  """A config with all settings, and lines that say what was chosen.

  Args:
    config: the config.
    source: the data.
  """
  config_checks.check_numbers(config, but=OPEN)
  config = config.copy_and_resolve_references().unlock()
  _set_split(config, source)
  reason = _set_method(config, source)
  _set_length(config, len(source.train.labels))
  config_options.complete(config)
  _set_ramps(config.method, config.steps)
  config_options.complete(config)  # the options that follow from the ramps
  return config.lock(), _chosen(config, source, reason)


def _set_split(
  config: ml_collections.ConfigDict, source: sources.Source
) -> None:
  labels, data = source.train.labels, config.data
  if source.form is not None:
    data.size, data.channels = source.form.height, source.form.channels
  labeled = sources.has_label(labels)
  if source.validation is not None:
    if data.validation not in (OPEN, len(source.validation)):
      raise errors.UserError(
        f'validation={data.validation}, but the data have '
        f'{len(source.validation)} validation images: leave it out, or move '
        'them to the labeled ones'
      )
    data.validation = len(source.validation)
    labeled[source.validation] = False
  counts = np.bincount(labels[labeled], minlength=source.num_classes)
  total = int(counts.sum())
  most = int(np.maximum(counts - 1, 0).sum())
  if (
    source.validation is None
    and data.labeled == OPEN
    and data.validation > most
  ):
    raise errors.UserError(
      f'validation={data.validation}: at most {most} of the {total} labeled '
      'images, since each class keeps one'
    )
  if data.validation == OPEN:
    held = min(total // _HELD_OUT, most)
    data.validation = held if held >= _MEASURING else 0
  if data.labeled == OPEN:
    held = 0 if source.validation is not None else data.validation
    data.labeled = total - held
  if config.protocol == config_options.AUTO:
    chooses = data.validation >= _CHOOSING
    config.protocol = 'best_validation' if chooses else 'last'


def _set_method(
  config: ml_collections.ConfigDict, source: sources.Source
) -> str:
  """Sets method, network, views and batch; gives the reason for the network."""
  shape = source.train.images.shape[1:]
  of_features = shape[:2] == (1, 1)
  unlabeled = _unlabeled(config, source)
  if config.method.name == config_options.AUTO:
    # With two labels a class of digits MixMatch on features came to 53 to 86 %
    # accuracy on the unlabeled rows, Mean Teacher to 71 to 79.
    name = 'mean_teacher' if of_features else 'mixmatch'
    name = name if unlabeled else 'supervised'
    terms = config.method.get('terms', {})
    gentle = config_options.GENTLE.get(name, {})
    config.method = dict(name=name, terms=terms, **gentle)
  reason = ''
  if config.model.name == config_options.AUTO:
    name, fields, reason = models.choose(
      shape, accelerator=jax.default_backend() != 'cpu'
    )
    model_options = {k: v for k, v in config.model.items() if k != 'name'}
    config.model = dict(name=name, **{**fields, **model_options})
  if config.data.augment == config_options.AUTO:
    config.data.augment = _view(shape)
  if config.data.strong == config_options.AUTO:
    harder = config_options.is_weak_strong(config.method) and not of_features
    config.data.strong = f'{config.data.augment},{_STRONG}' if harder else ''
  if config.data.normalize == config_options.AUTO:
    config.data.normalize = _normalization(source.train.images)
  uses = config_options.uses_unlabeled(config.method)
  if uses and not unlabeled:
    terms = config_options.learner_of(config.method).get('terms')
    needs = ', '.join(terms or [config.method.name])
    raise errors.UserError(
      f'the {source.name} data have no unlabeled images, which {needs} needs: '
      'add some, or use method=supervised without terms'
    )
  if config.batch.labeled == OPEN:
    config.batch.labeled = _BATCH
  if config.batch.get('holdout') == OPEN:
    config.batch.holdout = config.batch.labeled
  if config.batch.unlabeled == OPEN:
    config.batch.unlabeled = _BATCH if unlabeled and uses is not False else 0
  return reason


def _unlabeled(
  config: ml_collections.ConfigDict, source: sources.Source
) -> int:
  """Number of images that no label is used of."""
  used = config.data.labeled + config.data.validation
  return len(source.train.labels) - used


def _normalization(images: np.ndarray) -> str:
  """`common` for features of one kind, such as pixels, principal components or
  embeddings, whose scales say how much they matter; `standard` for those of
  different units, and for images.
  """
  if images.dtype == np.uint8:
    return 'standard'
  std = images.std((0, 1, 2), dtype=np.float64)
  std = std[~normalize.is_constant(images, std)]
  one_kind = len(std) and std.max() < _UNITS * np.median(std)
  return 'common' if one_kind else 'standard'


def _view(shape: tuple[int, ...]) -> str:
  """Noise for features; else shifts, and flips of color pictures, since gray
  ones are often of writing.
  """
  height, width, channels = shape
  if height == width == 1:
    return 'noise:0.1'
  shift = f'translate:{max(1, min(height, width) // 8)}'
  return f'flip,{shift}' if channels == 3 else shift


def _set_length(config: ml_collections.ConfigDict, images: int) -> None:
  if config.steps == OPEN:
    steps = round(_PASSES * images / max(config.batch.labeled, 1))
    steps = min(max(steps, _FEWEST), _MOST)
    config.steps = -(-steps // 100) * 100
  if config.full_steps == OPEN:
    config.full_steps = config.scheduled_steps = config.steps
  if config.ema_decay == OPEN:
    config.ema_decay = max(1.0 - _AVERAGED / config.steps, 0.0)
  eval_interval = max(config.steps // _EVALUATIONS // 10 * 10, 10)
  if config.eval.every_steps == OPEN:
    config.eval.every_steps = eval_interval
  if config.log_every == OPEN:
    config.log_every = max(config.steps // _LINES // 10 * 10, 10)
  if config.checkpoint.every == OPEN:
    config.checkpoint.every = 5 * eval_interval


def _set_ramps(fields: Any, steps: int) -> None:
  full_length = fields.get('name') in config_options.GENTLE
  for name, value in list(fields.items()):
    if isinstance(value, ml_collections.ConfigDict):
      _set_ramps(value, steps)
    elif name == 'ramp_steps' and value == OPEN and full_length:
      fields[name] = steps
    elif name in ('ramp_steps', 'hold_steps') and value == OPEN:
      del fields[name]  # follows from the steps, see `config_options`


def _chosen(
  config: ml_collections.ConfigDict, source: sources.Source, reason: str
) -> tuple[str, ...]:
  held = config.data.validation
  origin = 'held out of the labeled ones'
  if source.validation is not None:
    origin = 'given'
  network = reason or f'network {config.model.name}'
  batch = f'{config.batch.labeled} labeled'
  if config.batch.unlabeled:
    batch += f' + {config.batch.unlabeled} unlabeled'
  lines = [
    f'trains {config.method.name}, {network}, {config.steps:,} steps of '
    f'{batch} images',
    f'{config.data.labeled:,} labeled images to train on, {held:,} for '
    f'validation ({origin})',
  ]
  unlabeled = _unlabeled(config, source)
  if not unlabeled:
    lines.append('no unlabeled images: trains on the labeled ones alone')
  elif not config.batch.unlabeled:
    lines.append(f'the {unlabeled:,} unlabeled images are not used')
  if not held:
    lines.append('no validation images: the weights of the last step are used')
  elif config.protocol == 'last':
    reason = ''
    if held < _CHOOSING:
      reason = '; they are too few to choose among the weights of the run'
    lines.append(
      f'{held:,} validation images measure the error{reason}: the weights of '
      'the last step are used'
    )
  return tuple(lines)
