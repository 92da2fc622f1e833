"""Which images a folder holds and with which labels; opens none of them.

    photos/labelled/<class>/...    photos/unlabelled/...
    photos/validation/<class>/...  photos/test/<class>/...

or `photos/labels.csv` with the columns path and label (and perhaps split) in
place of the folder of labeled images; an empty label, or -1, is none.
"""

import os
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from nsl_jax import errors
from nsl_jax.data import labels_csv

SUFFIXES = frozenset(
  '.jpg .jpeg .jpe .jfif .png .webp .bmp .dib .tif .tiff .gif .ppm .pgm'.split()
)
_NOT_READ = frozenset(
  '.heic .heif .avif .jp2 .jxl .tga .dng .cr2 .nef .arw .dcm .svg'.split()
)
# Also of archives made on macOS, and of the thumbnails of a Synology disk.
_HIDDEN_FOLDERS = ('.', '__MACOSX', '@eaDir')
_HIDDEN = 'labels of images that are to be unlabeled'
_HINT = (
  'expected are labelled/<class>/... (or train/<class>/...) and '
  'unlabelled/..., or labels.csv with the columns path,label beside the images'
)


class Listing(NamedTuple):
  """The images of a folder.

  Attributes:
    folder: that they are in.
    classes: names of the classes, sorted.
    paths: by part (a key of `labels_csv.FOLDERS`) the paths relative to the
      folder, sorted.
    labels: by part i32[n], -1 for an image without a label.
    skipped: what was skipped -> how many files.
  """

  folder: pathlib.Path
  classes: tuple[str, ...]
  paths: Mapping[str, tuple[str, ...]]
  labels: Mapping[str, np.ndarray]
  skipped: Mapping[str, int]


def skipped_lines(skipped: Mapping[str, int]) -> list[str]:
  """One line on what was skipped, or none."""
  parts = [f'{n:,} {reason}' for reason, n in skipped.items() if n]
  return ['skipped: ' + ', '.join(parts)] if parts else []


def files_below(
  folder: pathlib.Path,
  skipped: dict[str, int],
  omit: Collection[pathlib.Path] = (),
  listed: Collection[pathlib.Path] = (),
) -> Iterator[pathlib.Path]:
  """Image files in a folder and the folders in it, sorted, links followed.

  Hidden files and files that are not images, but for labels.csv, are counted in
  `skipped`; folders to `omit` are not entered, and files that are `listed` in
  labels.csv, as `labels_csv.real_path`, left out.

  Raises:
    errors.UserError: if a folder cannot be read.
  """
  real_of: dict[pathlib.Path, str] = {}

  def count(reason: str, number: int = 1) -> None:
    skipped[reason] = skipped.get(reason, 0) + number

  for at, inner, names in os.walk(folder, followlinks=True, onerror=_refuse):
    path = pathlib.Path(at)
    real = real_of[path] = os.path.realpath(at)
    if any(real_of.get(above) == real for above in path.parents):
      inner.clear()  # a link to a folder above it
      continue
    hidden = [name for name in inner if name.startswith(_HIDDEN_FOLDERS)]
    count('hidden folders', len(hidden))
    inner[:] = sorted(set(inner) - set(hidden))
    inner[:] = [name for name in inner if path / name not in omit]
    for name in sorted(names):
      if name == labels_csv.NAME and path == folder:
        continue
      if pathlib.Path(real, name) in listed:
        continue
      if name.startswith('.') or name in ('Thumbs.db', 'desktop.ini'):
        count('hidden files')
      elif (suffix := pathlib.PurePath(name).suffix.lower()) in _NOT_READ:
        count(f'{suffix} pictures, which must be converted to be read')
      elif suffix not in SUFFIXES:
        count('files that are not images')
      else:
        yield path / name


def _refuse(error: OSError) -> NoReturn:
  raise errors.UserError(
    f'{error.filename} cannot be read ({error.strerror}): make it readable, or '
    'move it away'
  ) from error


def _folders_in(folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    return [path for path in sorted(folder.iterdir()) if path.is_dir()]
  except OSError as error:
    _refuse(error)


def _inner_folders(folder: pathlib.Path) -> str:
  names = [f'{path.name}/' for path in _folders_in(folder)]
  return f'its folders: {errors.shown(names) or "none"}'


def scan(folder: str | os.PathLike) -> Listing:
  """Lists the images of a folder with their labels.

  Raises:
    errors.UserError: if the folder has neither layout, or its labels are
      contradictory or incomplete.
  """
  root = pathlib.Path(folder).expanduser()
  errors.refuse_address(folder, 'config.data.dir')
  if not root.is_dir():
    raise errors.UserError(
      f'{root} is not a folder: config.data.dir (dir= of configs/folder.py) '
      f'names the folder of images; {_HINT}'
    )
  skipped: dict[str, int] = {}
  folders = _part_folders(root)
  table = root / labels_csv.NAME
  pairs_of: dict[str, list[tuple[str, str]]] = {
    part: [] for part in labels_csv.FOLDERS
  }
  if table.is_file():
    listed = labels_csv.read(table, root)
    _check_parts(listed, folders, root)
    for part, path, label in listed:
      if part == 'unlabeled' and label not in labels_csv.UNKNOWN:
        skipped[_HIDDEN] = skipped.get(_HIDDEN, 0) + 1
        label = ''
      pairs_of[part].append((path, label))
    listed_paths = {path for _, path, _ in listed}
    _check_both(folders.pop('labeled', None), listed_paths, root)
  elif not folders:
    raise errors.UserError(
      f'{root} has no labels ({_inner_folders(root)}): {_HINT}'
    )
  else:
    listed_paths = set()
  known = {labels_csv.real_path(root / path) for path in listed_paths}
  outside = [
    file.relative_to(root).as_posix()
    for file in files_below(root, skipped, folders.values(), known)
  ]
  if outside:
    unused = 'images that labels.csv does not list'
    if not table.is_file():
      names = [f'{path.name}/' for path in folders.values()]
      unused = f'images in none of {errors.shown(names)}'
    skipped[f'{unused} (the first is {outside[0]})'] = len(outside)
  for part, inner in folders.items():
    for file in files_below(inner, skipped, listed=known):
      label = '' if part == 'unlabeled' else _class_of(file, inner, root)
      pairs_of[part].append((file.relative_to(root).as_posix(), label))
  _check_empty_classes(folders)
  return _listing(root, pairs_of, skipped, folders)


def scan_labeled(
  folder: pathlib.Path, classes: Sequence[str]
) -> tuple[tuple[str, ...], np.ndarray, dict[str, int]]:
  """Lists images to evaluate on: `<class>/...`, or `labels.csv`.

  Args:
    folder: that holds them. Where the column `split` of its table has test
      images, these alone count.
    classes: names of the classes of the network.

  Returns:
    The paths relative to the folder, sorted; their labels i32[N]; what was
    skipped.

  Raises:
    errors.UserError: if there are none, or they have other classes.
  """
  if not folder.is_dir():
    raise errors.UserError(f'--images={folder} is not a folder')
  skipped: dict[str, int] = {}
  if (folder / labels_csv.NAME).is_file():
    listed = labels_csv.read(folder / labels_csv.NAME, folder)
    test_only = any(part == 'test' for part, *_ in listed)
    test = _part_folders(folder).get('test')
    inside = {path for _, path, _ in listed}
    if test is not None and any(
      file.relative_to(folder).as_posix() not in inside
      for file in files_below(test, {})
    ):
      raise errors.UserError(
        f'{folder} has {test.name}/ with images that labels.csv does not list: '
        f'use --images={test}, or list them'
      )
    pairs = [
      (path, label)
      for part, path, label in listed
      if part == 'test' or not test_only
    ]
    skipped['images that are not for testing'] = len(listed) - len(pairs)
    known = {labels_csv.real_path(folder / path) for path in inside}
    others = files_below(folder, {}, listed=known)
    first = next(others, None)
    if first is not None:
      name = first.relative_to(folder).as_posix()
      reason = f'images that labels.csv does not list (the first is {name})'
      skipped[reason] = 1 + sum(1 for _ in others)
    unknown = [path for path, label in pairs if label in labels_csv.UNKNOWN]
    skipped['images without a label'] = len(unknown)
    pairs = [pair for pair in pairs if pair[1] not in labels_csv.UNKNOWN]
  else:
    pairs = [
      (file.relative_to(folder).as_posix(), _class_of(file, folder, folder))
      for file in files_below(folder, skipped)
    ]
  number = {labels_csv.class_name(name): k for k, name in enumerate(classes)}
  strange = sorted({label for _, label in pairs} - number.keys())
  if strange:
    parts = _part_folders(folder)
    if {*strange} & {path.name for path in parts.values()}:
      best = parts.get('test') or parts.get('validation') or folder / strange[0]
      raise errors.UserError(
        f'{folder} has the folders {errors.shown(strange)}: use one of them, '
        f'such as --images={best}'
      )
    raise errors.UserError(
      f'{folder} has the class {errors.shown(strange)}, which the network does '
      f'not know; it knows {errors.shown(classes, 20)}: rename or remove it'
    )
  if not pairs:
    raise errors.UserError(
      f'{folder} has no labeled image: expected are <class>/... or labels.csv'
    )
  pairs.sort()
  labels = np.array([number[label] for _, label in pairs], np.int32)
  return tuple(path for path, _ in pairs), labels, skipped


def _part_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Part -> its folder, of those that are there."""
  inner: dict[str, pathlib.Path] = {}
  known = {name for names in labels_csv.FOLDERS.values() for name in names}
  for path in _folders_in(root):
    other = inner.setdefault(path.name.lower(), path)
    if other != path and path.name.lower() in known:
      raise errors.UserError(
        f'{root} has {other.name}/ and {path.name}/, which mean the same: move '
        'all images into one'
      )
  folder_of = {}
  for part, names in labels_csv.FOLDERS.items():
    existing = [inner[name] for name in names if name in inner]
    if len(existing) > 1:
      alternatives = ' and '.join(f'{path.name}/' for path in existing)
      raise errors.UserError(
        f'{root} has {alternatives}, which mean the same: move all images into '
        'one'
      )
    if existing:
      folder_of[part] = existing[0]
  return folder_of


def _class_of(
  path: pathlib.Path, inner: pathlib.Path, root: pathlib.Path
) -> str:
  parts = path.relative_to(inner).parts
  if len(parts) == 1:
    place = inner.relative_to(root).as_posix()
    place = '' if place == '.' else f'{place}/'
    raise errors.UserError(
      f'{path} is in no folder of a class: move it to {place}<class>/, or '
      f'write its label into labels.csv'
    )
  if parts[0] in labels_csv.UNKNOWN:
    raise errors.UserError(
      f'{inner / parts[0]} is not a class, as {parts[0]} means unlabeled: '
      'rename it, such as to minus_1, or move its images to unlabelled/'
    )
  return labels_csv.class_name(parts[0])


def _check_parts(
  listed: Collection[tuple[str, str, str]],
  folders: Mapping[str, pathlib.Path],
  root: pathlib.Path,
) -> None:
  """Refuses images to evaluate on of which labels.csv makes training images."""
  for part in ('validation', 'test'):
    if part not in folders:
      continue
    name = folders[part].name
    wrong = [
      path
      for listed_part, path, _ in listed
      if listed_part in ('labeled', 'unlabeled') and _top(path) == name
    ]
    if wrong:
      raise errors.UserError(
        f'{root}/labels.csv makes training images of {len(wrong):,} in '
        f'{name}/, such as {wrong[0]}: write {part} into a column split, or '
        'remove these lines'
      )


def _top(path: str) -> str:
  """The first folder of a relative path; '' for none."""
  return path.rpartition('/')[0].partition('/')[0]


def _check_both(
  labeled: pathlib.Path | None, listed: Collection[str], root: pathlib.Path
) -> None:
  """Refuses a folder of labeled images beside labels.csv, unless that lists
  them all.
  """
  if labeled is None:
    return
  names = (
    file.relative_to(root).as_posix() for file in files_below(labeled, {})
  )
  others = [name for name in names if name not in listed]
  if others:
    raise errors.UserError(
      f'{root} has both labels.csv and {labeled.name}/ with {len(others):,} '
      f'images that are not in it, such as {others[0]}: add them, or move one '
      'of both away'
    )


def _check_empty_classes(folders: Mapping[str, pathlib.Path]) -> None:
  for part, inner in folders.items():
    if part != 'labeled':
      continue
    empty = [
      path.name
      for path in _folders_in(inner)
      if not path.name.startswith(_HIDDEN_FOLDERS)
      and not any(files_below(path, {}))
    ]
    if empty:
      raise errors.UserError(
        f'no image in the folder of class {errors.shown(empty)} in {inner}: '
        'add some, or remove the folder'
      )


def _listing(
  root: pathlib.Path,
  pairs_of: dict[str, list[tuple[str, str]]],
  skipped: dict[str, int],
  folders: Mapping[str, pathlib.Path],
) -> Listing:
  pairs_of['unlabeled'] += [
    p for p in pairs_of['labeled'] if p[1] in labels_csv.UNKNOWN
  ]
  pairs_of['labeled'] = [
    p for p in pairs_of['labeled'] if p[1] not in labels_csv.UNKNOWN
  ]
  classes = sorted({label for _, label in pairs_of['labeled']})
  if not any(pairs_of.values()):
    reasons = errors.shown(
      [f'{n:,} {reason}' for reason, n in skipped.items() if n]
    )
    raise errors.UserError(
      f'{root} has no image' + f' ({reasons})' * bool(reasons) + f': {_HINT}'
    )
  if not classes:
    raise errors.UserError(
      f'{root} has no labeled image ({_inner_folders(root)}): {_HINT}'
    )
  if len(classes) < 2:
    raise errors.UserError(
      f'{root} has labeled images of one class, {classes[0]!r}: at least two '
      'classes are needed'
    )
  number = {name: k for k, name in enumerate(classes)}
  for part in ('validation', 'test'):
    strange = sorted({label for _, label in pairs_of[part]} - set(classes))
    if strange:
      raise errors.UserError(
        f'the {part} images of {root} have classes without a labeled image: '
        f'{errors.shown(strange)}: label some images of them, or remove them'
      )
  paths, labels = {}, {}
  for part, pairs in pairs_of.items():
    pairs.sort()
    paths[part] = tuple(path for path, _ in pairs)
    labels[part] = np.array(
      [number.get(label, -1) for _, label in pairs], np.int32
    )
  for name in folders:
    if name in ('validation', 'test') and not paths[name]:
      raise errors.UserError(
        f'{folders[name]} has no image: add some, or remove the folder'
      )
  return Listing(root, tuple(classes), paths, labels, skipped)
