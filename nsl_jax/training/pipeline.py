"""What a seed trains on: its source, split, per-image tables and rows."""

from collections.abc import Sequence

import ml_collections
import numpy as np

from nsl_jax import errors, memory, options
from nsl_jax.data import examples, open_set, sampler, sources, splits
from nsl_jax.terms import negative_samplers


def load_source(config: ml_collections.ConfigDict) -> sources.Source:
  """The config's data set, cut to `data.limit` images a split if that is set.

  Raises:
    errors.UserError: if it is not there.
  """
  name = config.data.name
  declared = sources.options_of(name)
  values = {k: config.data[k] for k in declared if k in config.data}
  options.check_values(declared, values, 'config.data.')
  source = sources.load(name, config.data.dir or None, **values)
  return selected(source, config)


def selected(
  source: sources.Source, config: ml_collections.ConfigDict
) -> sources.Source:
  """A source with the classes and images that `config.data` asks for.

  Raises:
    errors.UserError: if a class does not exist, or no image remains.
  """
  source = open_set.without_classes(
    source, config.data.unknown_classes, config.data.unlabeled_classes
  )
  return limited(source, config.data.limit)


def limited(source: sources.Source, limit: int) -> sources.Source:
  """A source cut to `limit` images a split, 0 for all, whose images the host
  and a CPU device can share.
  """
  if limit:
    rows = _first(source.train.labels, limit, 'train')
    if source.validation is not None:  # all of which are kept
      rows = np.union1d(rows, source.validation)
    tested = np.arange(len(source.test.labels))
    if len(tested):
      tested = _first(source.test.labels, limit, 'test')
    before = len(source.train.labels), len(source.test.labels)
    source = examples.take(source, rows, tested)
    if before != (len(rows), len(tested)):
      line = (
        f'config.data.limit={limit}: {len(rows):,} of {before[0]:,} images to '
        f'train on, {len(tested):,} of {before[1]:,} test images'
      )
      source = source._replace(report=(*source.report, line))
  if not isinstance(source.train.images, np.ndarray):
    return source  # decoded as it is read
  images = memory.shared(source.train.images)
  return source._replace(train=source.train._replace(images=images))


def _first(labels: np.ndarray, limit: int, split: str) -> np.ndarray:
  """The first rows, or of rows that are sorted by class evenly spaced ones;
  half of them with a label if some have none.

  Raises:
    errors.UserError: if that is no row.
  """
  labeled = sources.has_label(labels)
  if labeled.all():
    rows = _some(np.arange(len(labeled)), labels, limit)
  else:
    halves = (np.flatnonzero(labeled), np.flatnonzero(~labeled))
    rows = np.concatenate([_some(half, labels, limit // 2) for half in halves])
  if not len(rows):
    raise errors.UserError(
      f'config.data.limit={limit} leaves no image of split {split}: raise '
      'it, or set it to 0 for all'
    )
  return rows


def _some(rows: np.ndarray, labels: np.ndarray, limit: int) -> np.ndarray:
  by_class = labels.ndim == 1 and (np.diff(labels[rows]) >= 0).all()
  if by_class and len(rows) > limit:
    return rows[np.arange(limit) * len(rows) // limit]
  return rows[:limit]


def split_of(
  config: ml_collections.ConfigDict, source: sources.Source, seed: int
) -> splits.Split:
  """The seed's split of the training images; those with points have no classes
  to balance. The validation images of the data set itself, if it has some, are
  those of the split.
  """
  labels = source.train.labels
  if not source.num_classes:
    for name in ('imbalance', 'imbalance_unlabeled'):
      if config.data[name] != 1.0:
        raise errors.UserError(
          f'config.data.{name}={config.data[name]}: images with points have no '
          'classes; set it to 1'
        )
    labels = np.where(sources.has_label(labels), 0, -1).astype(np.int32)
  return splits.make(
    labels,
    source.num_classes or 1,
    labeled=config.data.labeled,
    validation=config.data.validation,
    rule=config.data.rule,
    validation_rule=config.data.validation_rule,
    unlabeled_includes_labeled=config.data.unlabeled_includes_labeled,
    holdout=config.data.holdout,
    seed=seed,
    imbalance=config.data.imbalance,
    imbalance_unlabeled=config.data.imbalance_unlabeled,
    unlabeled_classes=open_set.renumbered(
      config.data.unlabeled_classes, config.data.unknown_classes
    )
    if config.data.unlabeled_classes
    else None,
    given=source.validation,
  )


def counts_by_class(source: sources.Source, split: splits.Split) -> list[int]:
  """Labeled images of every class; none where images have points."""
  if not source.num_classes:
    return []
  labels = source.train.labels[split.labeled]
  return np.bincount(labels, minlength=source.num_classes).tolist()


def per_image_tables(
  names: Sequence[str], source: sources.Source, split: splits.Split
) -> dict[str, np.ndarray]:
  """The tables that a method looks up, a row per training image.

  Raises:
    errors.UserError: if one cannot be made of this data.
  """
  tables = {}
  images, labels = source.train
  if negative_samplers.DISTANCE in names:
    tables[negative_samplers.DISTANCE] = negative_samplers.class_distances(
      images, images[split.labeled], labels[split.labeled], source.num_classes
    )
  if negative_samplers.TRUE_CLASS in names:
    if not sources.has_label(labels[split.unlabeled]).all():
      raise errors.UserError(
        'the oracle sampler needs the true class of every unlabeled image, '
        f'which {source.name} does not have: choose another sampler'
      )
    tables[negative_samplers.TRUE_CLASS] = labels
  return tables


def index_iterators(
  config: ml_collections.ConfigDict, split: splits.Split, seed: int
) -> dict[str, sampler.Stream]:
  """The rows of every step: what is drawn, how many, in which order.

  Raises:
    errors.UserError: if unlabeled images are wanted and there are none.
  """
  rows = {
    'labeled': split.labeled,
    'unlabeled': split.unlabeled,
    # Another draw from the same images where none are kept apart.
    'holdout': split.holdout if len(split.holdout) else split.labeled,
  }
  for name, size in config.batch.items():
    if size and not len(rows[name]):
      raise errors.UserError(
        f'no {name} image is left for config.batch.{name}={size}: label or '
        'hold out fewer, or set it to 0'
      )
  return {
    name: sampler.Stream(rows[name], size, seed=seed, name=name)
    for name, size in config.batch.items()
    if size or name != 'holdout'
  }
