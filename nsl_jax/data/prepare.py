"""Location and preparation of data sets on disk."""

import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nsl_jax import errors
from nsl_jax.data import cache, download, features as features_lib, versions


class Recipe(NamedTuple):
  """Where the training examples of a name come from, in TFDS's words.

  Attributes:
    tfds_name: data set.
    labeled: splits.
    unlabeled: splits whose labels are not read.
    papers: images that the papers train with and test on, where a data set of
      that name can be another.
  """

  tfds_name: str
  labeled: tuple[str, ...] = ('train',)
  unlabeled: tuple[str, ...] = ()
  papers: tuple[int, int] | None = None


class Layout(NamedTuple):
  """Metadata of a prepared data set.

  Attributes:
    folder: holds dataset_info.json, features.json and the shards.
    channels: 1 or 3.
    num_classes: K; 0 where images have points.
    jpeg: the images are JPEG files; every original here is PNG.
    direct: there are array_record shards, which need no TensorFlow.
    points: number of points of each image; 0 where images have classes.
    counts: facts of `pictures` that held when the data set was made -> of how
      many images.
  """

  folder: pathlib.Path
  channels: int
  num_classes: int
  jpeg: bool
  direct: bool
  points: int = 0
  counts: Mapping[str, int] = {}


RECIPES = {
  'mnist': Recipe('mnist'),
  'fashion_mnist': Recipe('fashion_mnist'),
  'cifar10': Recipe('cifar10'),
  'cifar100': Recipe('cifar100'),
  'svhn': Recipe('svhn_cropped'),
  'svhn_extra': Recipe('svhn_cropped', labeled=('train', 'extra')),
  'stl10': Recipe('stl10', unlabeled=('unlabeled',)),
  'usps': Recipe('usps'),
  'aflw': Recipe('aflw', papers=(10_122, 2_991)),
  'tiny_imagenet': Recipe('tiny_imagenet'),
}
NAMES = ('digits', *RECIPES)
# What TFDS has not: name -> files in its manual folder, any of which says all
# is there to make it.
MANUAL = {
  'usps': ('usps.h5',),
  'aflw': ('aflw/aflw_train_images.txt', 'aflw/training.txt'),
  'tiny_imagenet': ('tiny-imagenet-200/wnids.txt', 'tiny-imagenet-200.zip'),
}
# Who makes the data sets that `command` makes again as they were.
_MAKERS = ('tensorflow_datasets.', 'nsl_jax.')


def recipe(name: str) -> Recipe:
  """Where the examples of a name come from; of a name that is not one of
  `NAMES` the splits train and test of the TFDS data set of that name.
  """
  return RECIPES.get(name) or Recipe(name)


def check_name(
  name: str, data_dir: str | None = None, names: Sequence[str] = NAMES
) -> None:
  """Raises UserError unless `name` is one of `NAMES`, or there is a TFDS data
  set of that name in the data folder.
  """
  if name in NAMES:
    return
  if not re.fullmatch(r'\w+', name) or newest(name, data_dir) is None:
    hint = errors.did_you_mean(name, names)
    raise errors.UserError(
      f'unknown data set {name!r}; {hint} (nor is there a TFDS data set of '
      f'that name in {directory(data_dir)})'
    )


def has_module(name: str) -> bool:
  """Whether `import name` would find something; imports nothing."""
  return importlib.util.find_spec(name) is not None


def directory(data_dir: str | None = None) -> pathlib.Path:
  """The folder of TFDS data sets: the argument, TFDS_DATA_DIR or TFDS's own."""
  chosen = data_dir or os.environ.get('TFDS_DATA_DIR')
  chosen = os.fspath(chosen or '~/tensorflow_datasets')
  if '://' in chosen:
    raise errors.UserError(
      f'data_dir {chosen} is not a local folder; copy the data set to one'
    )
  return pathlib.Path(chosen).expanduser().absolute()


def command(name: str, data_dir: str | None = None) -> str:
  """The command line that puts data set `name` into `data_dir`."""
  folder = directory(data_dir)
  return f'python -m nsl_jax data --prepare {name} --data_dir {folder}'


def newest(name: str, data_dir: str | None = None) -> pathlib.Path | None:
  """The folder <data_dir>/<TFDS name>/<version>, or None.

  The version is the highest; of what is made here, that of its builder.
  """
  available = _versions(name, data_dir)
  if name in MANUAL:
    return available.get(versions.MADE[name])
  order = sorted(
    available, key=lambda version: tuple(map(int, version.split('.')))
  )
  return available[order[-1]] if order else None


def _versions(name: str, data_dir: str | None) -> dict[str, pathlib.Path]:
  """Version -> folder of all that are prepared."""
  folder = directory(data_dir) / recipe(name).tfds_name
  return {
    path.name: path
    for path in (folder.iterdir() if folder.is_dir() else ())
    if re.fullmatch(r'\d+\.\d+\.\d+', path.name)
    and (path / 'dataset_info.json').is_file()
  }


def read_layout(
  name: str, folder: pathlib.Path, data_dir: str | None = None
) -> Layout:
  """Reads what `folder` holds from its JSON files.

  Raises:
    UserError: the files are damaged, or the features are not of a kind that is
      read.
  """
  try:
    info = json.loads((folder / 'dataset_info.json').read_text())
    features = json.loads((folder / 'features.json').read_text())
    features = features['featuresDict']['features']
    formats = (info.get('fileFormat'), *info.get('alternativeFileFormats', ()))
    channels, jpeg = features_lib.image(folder, features)
    num_classes, points = features_lib.target(folder, features)
    counts = features_lib.counts(folder)
  except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
    raise unreadable(name, folder, error, data_dir) from error
  direct = 'array_record' in formats
  return Layout(folder, channels, num_classes, jpeg, direct, points, counts)


def unreadable(
  name: str,
  unread: Any,
  error: Exception,
  data_dir: str | None = None,
  *,
  folder: pathlib.Path | None = None,
  item: str = 'its files',
) -> errors.UserError:
  """The error for files that cannot be read, on one line.

  Args:
    name: of the data set.
    unread: cannot be read.
    error: why.
    data_dir: as for `command`.
    folder: of the data set, if that is not `unread`.
    item: what to replace in a data set that may be the user's own.
  """
  second_pass = f'move that version away, then run: {command(name, data_dir)}'
  if not _maker(folder or unread).startswith(_MAKERS):
    second_pass = f'replace {item}, or {second_pass}'
  return errors.UserError(
    f'cannot read {unread} ({download.reason(error)}); {second_pass}'
  )


def _maker(folder: pathlib.Path) -> str:
  """The module that made a data set, '' if that is not known."""
  try:
    info = json.loads((folder / 'dataset_info.json').read_text())
    return str(info['moduleName'])
  except (OSError, ValueError, LookupError, TypeError):
    return ''


def tfrecord_only(
  name: str, folder: pathlib.Path, data_dir: str | None = None
) -> errors.UserError:
  """The error for a data set that cannot be read without TensorFlow."""
  return errors.UserError(
    f'{folder} holds only TFRecord files; either pip install '
    'tensorflow to read them through TensorFlow (once: the decoded '
    'images are kept), or move that version away and, on a machine with '
    f'TensorFlow, run: {command(name, data_dir)}'
  )


def status(name: str, data_dir: str | None = None) -> tuple[str, str]:
  """One of ready, missing, TFRecord only and damaged; and the folder."""
  if name == 'digits':
    return 'ready', 'comes with scikit-learn'
  folder = newest(name, data_dir)
  if folder is not None:
    try:
      direct = read_layout(name, folder, data_dir).direct
    except errors.UserError:
      return 'damaged', str(folder)
    return 'ready' if direct else 'TFRecord only', str(folder)
  manual = directory(data_dir) / 'downloads' / 'manual'
  for file in MANUAL.get(name, ()):
    if (manual / file).is_file():
      return 'ready', f'made on first use from {manual / file}'
  return 'missing', str(directory(data_dir) / recipe(name).tfds_name)


def prepare(name: str, data_dir: str | None = None) -> str:
  """Puts a data set into `data_dir` in array_record form, if it is not there.

  Args:
    name: one of `NAMES`.
    data_dir: folder of TFDS data sets; None for TFDS_DATA_DIR, else TFDS's own.

  Returns:
    One line that says where it is.

  Raises:
    UserError: TensorFlow, a file or the network is missing.
  """
  check_name(name, data_dir)
  state, location = status(name, data_dir)
  if name in MANUAL and state in ('ready', 'missing'):
    if newest(name, data_dir) is None:
      location = str(make(name, data_dir))
    return f'{name} is ready: {location}'
  if state == 'damaged':
    read_layout(name, pathlib.Path(location), data_dir)  # Says what is wrong.
  if state == 'TFRecord only' and not has_module('tensorflow'):
    raise tfrecord_only(name, pathlib.Path(location), data_dir)
  if state != 'missing':
    return f'{name} is {state}: {location}'
  tfds_name, folder = recipe(name).tfds_name, directory(data_dir)
  if not has_module('tensorflow'):
    raise errors.UserError(
      f'preparing {name} needs TensorFlow: pip install tensorflow (here, or '
      f'on another machine and copy the folder {tfds_name} into {folder})'
    )
  builder_path = download.prepare(
    name, tfds_name, folder, command(name, data_dir)
  )
  return f'{name} is ready: {builder_path}'


def make(
  name: str, data_dir: str | None = None, cache_dir: str | None = None
) -> pathlib.Path:
  """Makes a data set of `MANUAL` from the files placed by hand.

  Returns:
    Its folder, in the cache where the data folder cannot be written.

  Raises:
    UserError: a file is missing, or is not as it should be.
  """
  from nsl_jax.data.datasets import aflw, tiny_imagenet, usps

  makers = {
    'aflw': aflw.prepare,
    'tiny_imagenet': tiny_imagenet.prepare,
    'usps': usps.prepare,
  }
  try:
    return makers[name](directory(data_dir), cache.directory(cache_dir))
  except errors.UserError as error:
    found = sorted(_versions(name, data_dir))
    older = ', '.join(v for v in found if v != versions.MADE.get(name))
    if not older:
      raise
    raise errors.UserError(
      f'{error}; {name} {older} there is not read, since {name} '
      f'{versions.MADE[name]} is made by another rule'
    ) from error
