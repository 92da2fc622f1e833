"""Tiny-ImageNet as a TFDS builder that reads its zip without TensorFlow."""

import contextlib
import io
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from nsl_jax import errors
from nsl_jax.data import manual, pictures, versions

_FOLDER = 'tiny-imagenet-200'
_SIDE = 64
_CLASSES = 200


class Files(NamedTuple):
  """The files of the data set, in a folder or an archive.

  Attributes:
    names: their paths below `tiny-imagenet-200/`.
    read: the bytes of a file, by that path.
  """

  names: frozenset[str]
  read: Callable[[str], bytes]

  def text(self, name: str) -> str:
    """The content of a text file."""
    return self.bytes(name).decode()

  def bytes(self, name: str) -> bytes:
    """The content of a file; ValueError if there is none of that name."""
    if name not in self.names:
      raise ValueError(f'{name} is missing')
    return self.read(name)


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
  """Tiny-ImageNet: 64x64 photos of 200 classes, 100,000 for training.

  Reads the folder `tiny-imagenet-200` of TFDS's manual folder, or
  `tiny-imagenet-200.zip` as it is distributed: `wnids.txt`,
  `train/<wnid>/images/*.JPEG` and, as the split `test`, the 10,000 of
  `val/images` with `val/val_annotations.txt`. Classes are numbered as in
  `wnids.txt`. Training images alternate between classes, so that any prefix
  covers all classes.
  """

  VERSION = tfds.core.Version(versions.MADE['tiny_imagenet'])
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'Put {_FOLDER}.zip into the manual folder.'

  def _info(self) -> tfds.core.DatasetInfo:
    """Image uint8[64, 64, 3], the original JPEG, and label in [0, 200)."""
    return tfds.core.DatasetInfo(
      builder=self,
      description='Small photos, 200 of the classes of ImageNet.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(_SIDE, _SIDE, 3)),
          'label': tfds.features.ClassLabel(num_classes=_CLASSES),
        }
      ),
      supervised_keys=('image', 'label'),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    """The generators of both splits."""
    path = _path(dl_manager.manual_dir)
    return {
      'train': self._generate_examples(path, _train),
      'test': self._generate_examples(path, _validation),
    }

  def _generate_examples(
    self,
    path: pathlib.Path,
    rows: Callable[[Files, list[str]], Iterator[tuple[str, int]]],
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row, example) with the bytes of a JPEG."""
    with _opened(path) as files:
      for row, (name, label) in enumerate(rows(files, _classes(files))):
        content = files.bytes(name)
        _check(name, content)
        yield row, {'image': io.BytesIO(content), 'label': label}


def prepare(data_dir: pathlib.Path, cache_dir: pathlib.Path) -> pathlib.Path:
  """Writes the data set in array_record form, see `manual.build`.

  Raises:
    UserError: a file is missing or damaged.
  """
  path = _path(manual.folder(data_dir))
  if not path.exists():
    raise errors.UserError(
      f'tiny_imagenet is not in {data_dir}; put {path.name}, or the folder '
      f'that it holds, into {path.parent}, then run: python -m nsl_jax data '
      f'--prepare tiny_imagenet --data_dir {data_dir}'
    )
  return manual.build(TinyImagenet, [path], data_dir, cache_dir)


def _path(manual_dir: Any) -> pathlib.Path:
  """The folder in the manual folder, or the archive if there is none."""
  path = pathlib.Path(manual_dir) / _FOLDER
  return path if path.is_dir() else path.with_suffix('.zip')


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Files]:
  """The files of the folder or archive, while it is open."""
  if path.is_dir():
    names = (file.relative_to(path).as_posix() for file in path.rglob('*'))
    yield Files(frozenset(names), lambda name: (path / name).read_bytes())
    return
  top = f'{_FOLDER}/'
  with zipfile.ZipFile(path) as archive:
    inside = (name for name in archive.namelist() if name.startswith(top))
    names = (name.removeprefix(top) for name in inside)
    yield Files(frozenset(names), lambda name: archive.read(top + name))


def _classes(files: Files) -> list[str]:
  """The names of the classes, in the order of their numbers."""
  wnids = list(dict.fromkeys(files.text('wnids.txt').split()))
  if len(wnids) != _CLASSES:
    raise ValueError(f'wnids.txt names {len(wnids)} classes, not {_CLASSES}')
  return wnids


def _train(files: Files, classes: list[str]) -> Iterator[tuple[str, int]]:
  """(file, class) of the training images, alternating between classes."""
  names_of: dict[str, list[str]] = {wnid: [] for wnid in classes}
  for name in sorted(files.names):
    match = re.fullmatch(r'train/(\w+)/images/[^/]+\.JPEG', name)
    if match and match[1] in names_of:
      names_of[match[1]].append(name)
  most = max(map(len, names_of.values()))
  for wnid, names in names_of.items():
    if len(names) < max(most, 1):
      raise ValueError(
        f'train/{wnid}/images has {len(names)} images, other classes have '
        f'{most}'
      )
  for turn in zip(*names_of.values()):
    for label, name in enumerate(turn):
      yield name, label


def _validation(files: Files, classes: list[str]) -> Iterator[tuple[str, int]]:
  """(file, class) of the validation images, in the order of the list."""
  source = 'val/val_annotations.txt'
  for number, line in enumerate(files.text(source).splitlines(), start=1):
    words = line.split()
    if len(words) < 2 or words[1] not in classes:
      raise ValueError(f'line {number} of {source} does not name a class')
    yield f'val/images/{words[0]}', classes.index(words[1])


def _check(name: str, content: bytes) -> None:
  """Raises ValueError unless the bytes are a complete image of this size."""
  try:
    height, width, _ = pictures.decode(content, 3).values.shape
  except ValueError as error:
    raise ValueError(f'{name} is not a complete image ({error})') from error
  if (width, height) != (_SIDE, _SIDE):
    raise ValueError(f'{name} has {width}x{height} pixels, not 64x64')
