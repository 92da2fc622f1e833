"""Where data sets lie on disk, and how they get there."""

import importlib.util
import json
import os
import pathlib
import re
from typing import Any, NamedTuple

from nsl_jax import errors
from nsl_jax.data import cache
from nsl_jax.data import download


class Recipe(NamedTuple):
  """Where the training examples of a name come from, in TFDS's words.

  Attributes:
    tfds_name: data set.
    labelled: splits.
    unlabelled: splits whose labels are not read.
    papers: images that the papers train with and test on, where a data set of
      that name can be another.
  """

  tfds_name: str
  labelled: tuple[str, ...] = ('train',)
  unlabelled: tuple[str, ...] = ()
  papers: tuple[int, int] | None = None


class Layout(NamedTuple):
  """What the files of one prepared data set say about themselves.

  Attributes:
    folder: holds dataset_info.json, features.json and the shards.
    channels: 1 or 3.
    num_classes: K; 0 where images have points.
    jpeg: the images are JPEG files; every original here is PNG.
    direct: there are array_record shards, which need no TensorFlow.
    points: number of points of each image; 0 where images have classes.
  """

  folder: pathlib.Path
  channels: int
  num_classes: int
  jpeg: bool
  direct: bool
  points: int = 0


RECIPES = {
    'mnist': Recipe('mnist'),
    'fashion_mnist': Recipe('fashion_mnist'),
    'cifar10': Recipe('cifar10'),
    'cifar100': Recipe('cifar100'),
    'svhn': Recipe('svhn_cropped'),
    'svhn_extra': Recipe('svhn_cropped', labelled=('train', 'extra')),
    'stl10': Recipe('stl10', unlabelled=('unlabelled',)),
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


def check_name(name: str) -> None:
  """Raises UserError unless `name` is one of `NAMES`."""
  if name not in NAMES:
    hint = errors.did_you_mean(name, NAMES)
    raise errors.UserError(f'unknown data set {name!r}; {hint}')


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
  return f'python -m nsl_jax.data --prepare {name} --data_dir {folder}'


def newest(name: str, data_dir: str | None = None) -> pathlib.Path | None:
  """The folder <data_dir>/<TFDS name>/<highest version>, or None."""
  folder = directory(data_dir) / RECIPES[name].tfds_name
  versions = [
      (tuple(map(int, path.name.split('.'))), path)
      for path in (folder.iterdir() if folder.is_dir() else ())
      if re.fullmatch(r'\d+\.\d+\.\d+', path.name)
      and (path / 'dataset_info.json').is_file()
  ]
  return max(versions)[1] if versions else None


def read_layout(
    name: str, folder: pathlib.Path, data_dir: str | None = None
) -> Layout:
  """Reads what `folder` holds from its two JSON files.

  Raises:
    UserError: the files are damaged, or the images have neither 1 nor 3
      channels.
  """
  try:
    info = json.loads((folder / 'dataset_info.json').read_text())
    features = json.loads((folder / 'features.json').read_text())
    features = features['featuresDict']['features']
    image = features['image']['image']
    channels = int(image['shape']['dimensions'][-1])
    points, num_classes = 0, 0
    if 'landmarks' in features:
      shape = features['landmarks']['tensor']['shape']
      points = int(shape['dimensions'][0])
    else:
      num_classes = int(features['label']['classLabel']['numClasses'])
    formats = (info.get('fileFormat'), *info.get('alternativeFileFormats', ()))
  except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
    raise unreadable(name, folder, error, data_dir) from error
  if channels not in (1, 3):
    raise errors.UserError(
        f'{folder}: images have {channels} channels; only 1 and 3 are read'
    )
  jpeg = image.get('encodingFormat') == 'jpeg'
  direct = 'array_record' in formats
  return Layout(folder, channels, num_classes, jpeg, direct, points)


def unreadable(
    name: str, what: Any, error: Exception, data_dir: str | None = None
) -> errors.UserError:
  """The error for files that cannot be read, on one line."""
  return errors.UserError(
      f'cannot read {what} ({download.reason(error)}); delete that version, '
      f'then run: {command(name, data_dir)}'
  )


def tfrecord_only(
    name: str, folder: pathlib.Path, data_dir: str | None = None
) -> errors.UserError:
  """The error for a data set that cannot be read without TensorFlow."""
  return errors.UserError(
      f'{folder} holds only TFRecord files; either pip install '
      'tensorflow to read them through TensorFlow (once: the decoded '
      'images are kept), or delete that version and, on a machine with '
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
  return 'missing', str(directory(data_dir) / RECIPES[name].tfds_name)


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
  check_name(name)
  state, where = status(name, data_dir)
  if name in MANUAL and state in ('ready', 'missing'):
    if newest(name, data_dir) is None:
      where = str(make(name, data_dir))
    return f'{name} is ready: {where}'
  if state == 'damaged':
    read_layout(name, pathlib.Path(where), data_dir)  # Says what is wrong.
  if state == 'TFRecord only' and not has_module('tensorflow'):
    raise tfrecord_only(name, pathlib.Path(where), data_dir)
  if state != 'missing':
    return f'{name} is {state}: {where}'
  tfds_name, folder = RECIPES[name].tfds_name, directory(data_dir)
  if not has_module('tensorflow'):
    raise errors.UserError(
        f'preparing {name} needs TensorFlow: pip install tensorflow (here, or '
        f'on another machine and copy the folder {tfds_name} into {folder})'
    )
  made = download.prepare(name, tfds_name, folder, command(name, data_dir))
  return f'{name} is ready: {made}'


def make(
    name: str, data_dir: str | None = None, cache_dir: str | None = None
) -> pathlib.Path:
  """Makes a data set of `MANUAL` from the files placed by hand.

  Returns:
    Its folder, in the cache where the data folder cannot be written.

  Raises:
    UserError: a file is missing, or is not as it should be.
  """
  from nsl_jax.data import aflw, tiny_imagenet, usps  # These import TFDS.

  own = {
      'aflw': aflw.prepare, 'tiny_imagenet': tiny_imagenet.prepare,
      'usps': usps.prepare,
  }
  return own[name](directory(data_dir), cache.directory(cache_dir))
