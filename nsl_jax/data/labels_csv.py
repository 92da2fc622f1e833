"""The table of labels beside a user's images, `labels.csv`.

It has the columns path and label, and perhaps split.
"""

import csv
import os
import pathlib
import unicodedata
from collections.abc import Mapping

from nsl_jax import errors

NAME = 'labels.csv'
UNKNOWN = ('', '-1')  # labels of images without one
# What pandas writes for one, in small letters, and no class is likely to be.
_MEANT_AS_UNKNOWN = ('-1.0', 'nan', '<na>')
# Names of each part in small letters: of its folder, and in the column split.
FOLDERS: Mapping[str, tuple[str, ...]] = {
  'labeled': ('labelled', 'labeled', 'train', 'training'),
  'unlabeled': ('unlabelled', 'unlabeled'),
  'validation': ('validation', 'val', 'valid'),
  'test': ('test',),
}


def read(table: pathlib.Path, root: pathlib.Path) -> list[tuple[str, str, str]]:
  """Reads the part, the path relative to the folder and the label of each line.

  Args:
    table: the file.
    root: the folder.

  Raises:
    errors.UserError: naming the wrong column or line, or files that do not
      exist.
  """
  try:
    with table.open(encoding='utf-8-sig', newline='') as file:
      reader = csv.DictReader(file, skipinitialspace=True, strict=True)
      columns = reader.fieldnames or []
      lines = [(reader.line_num, line) for line in reader]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise errors.UserError(
      f'{table} cannot be read ({error}): save it as UTF-8 text, its columns '
      'separated by commas'
    ) from error
  for name in ('path', 'label'):
    if name not in columns:
      has = ', '.join(map(str, columns)) or 'none'
      remedy = 'name its columns path,label'
      if any(mark in ''.join(columns) for mark in ';\t='):
        remedy = 'its first line must be path,label, with commas'
      raise errors.UserError(
        f'{table} has no column {name!r} (its columns: {has}): {remedy}'
      )
  repeated = [name for name in columns if columns.count(name) > 1]
  if repeated:
    raise errors.UserError(
      f'{table} has two columns {repeated[0]!r}: remove one'
    )
  unknown = sorted(set(columns) - {'path', 'label', 'split'})
  if unknown:
    raise errors.UserError(
      f'{table} has a column {unknown[0]!r}: remove it; known are path, label '
      'and split'
    )
  entries: list[tuple[str, str, str]] = []
  first: dict[str, int] = {}
  missing: list[str] = []
  for number, line in lines:
    if None in line:
      raise errors.UserError(
        f'{table}, line {number}: more cells than the {len(columns)} columns '
        'of its header: name the column, or put a word with a comma into quotes'
      )
    if line['label'] is None:
      raise errors.UserError(
        f'{table}, line {number}: has no cell for the label: write one, or an '
        'empty one after a comma'
      )
    path = (line['path'] or '').strip()
    label = class_name((line['label'] or '').strip())
    if label.lower() in _MEANT_AS_UNKNOWN:
      raise errors.UserError(
        f'{table}, line {number}: the label {label} is not a class: write an '
        'empty one, or -1, for an image without a label'
      )
    if not path:
      raise errors.UserError(f'{table}, line {number}: the path is empty')
    path = _inside(path, root)
    if path in first:
      raise errors.UserError(
        f'{table}: {path} is in line {first[path]} and in line {number}: '
        'remove one'
      )
    first[path] = number
    if not (root / path).is_file():
      missing.append(f'{path} (line {number})')
      continue
    entries.append((_part_of(line, label, table, number), path, label))
  if missing:
    between = ', with / between folders' * ('\\' in ''.join(missing))
    raise errors.UserError(
      f'{table} names {len(missing):,} file(s) that do not exist in {root}: '
      f'{errors.shown(missing)}: correct the paths, which are relative to that '
      f'folder{between}'
    )
  return entries


def class_name(text: str) -> str:
  """A name in Unicode's composed form (NFC): macOS separates an accent from its
  letter, and two names that look the same would be two classes.
  """
  return unicodedata.normalize('NFC', text)


def real_path(path: pathlib.Path) -> pathlib.Path:
  """The absolute path of a file without links to folders."""
  return pathlib.Path(os.path.realpath(path.parent), path.name)


def _inside(path: str, root: pathlib.Path) -> str:
  """A path of the table as `scan` finds it, if it is in the folder, perhaps by
  another name of that.
  """
  absolute = pathlib.Path(os.path.abspath(root / path))
  for file, folder in (
    (absolute, os.path.abspath(root)),
    (real_path(absolute), os.path.realpath(root)),
  ):
    if file.is_relative_to(folder):
      return file.relative_to(folder).as_posix()
  return path


def _part_of(
  line: Mapping[str, str | None], label: str, table: pathlib.Path, number: int
) -> str:
  split = (line.get('split') or '').strip().lower()
  if not split:
    return 'unlabeled' if label in UNKNOWN else 'labeled'
  for part, names in FOLDERS.items():
    if split in names:
      if part == 'labeled' and label in UNKNOWN:
        return 'unlabeled'
      if part in ('validation', 'test') and label in UNKNOWN:
        raise errors.UserError(
          f'{table}, line {number}: an image for {part} needs a label'
        )
      return part
  raise errors.UserError(
    f'{table}, line {number}: split={split!r} is none of train, unlabelled, '
    'validation, test'
  )
