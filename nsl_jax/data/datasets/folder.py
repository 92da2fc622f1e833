"""A user's own images: a folder of them, some with labels."""

import collections
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, cast

import jax
import numpy as np

from nsl_jax import errors, options
from nsl_jax.data import (
  decoded,
  duplicates,
  listing,
  on_demand,
  pictures,
  resize,
)
from nsl_jax.data.examples import Arrays, Files, Source, counts_text, take

_SAMPLE = 1000  # files whose sizes decide the size of the images
_SIZES = (32, 64, 96, 128, 160, 192, 224)  # that are chosen among
_KEPT = 224  # pixels; images that all have the same smaller size keep it
_PARTS = ('labeled', 'validation', 'unlabeled', 'test')  # in their order


@options.declare(size='>= 0', fit=resize.FITS, channels=(0, 1, 3))
def load(
  folder: str,
  cache_dir: str | None = None,
  *,
  size: int = 0,
  fit: str = 'crop',
  channels: int = 0,
  skip_damaged: bool = False,
) -> Source:
  """Reads a folder of images, see `listing` for its layout.

  Args:
    folder: the folder.
    cache_dir: folder of decoded images; None for the default of `cache`.
    size: height and width of the images in pixels; 0 chooses it by the sizes of
      the pictures.
    fit: how pictures of another shape become square: crop cuts the longer side,
      pad adds gray borders.
    channels: 1 for gray, 3 for color; 0 is gray if all pictures are.
    skip_damaged: whether to go on without files that cannot be read.

  Raises:
    errors.UserError: if the folder has another layout, a file is damaged, or an
      image to evaluate on is also an image to train on.
  """
  content = listing.scan(folder)
  paths = [path for part in _PARTS for path in content.paths[part]]
  form = choose_form(content.folder, paths, size, fit, channels)
  sizes = [len(content.paths[part]) for part in _PARTS]
  part_of = np.repeat(np.arange(4), sizes)
  decoded_images = _decode(content.folder, paths, form, cache_dir, part_of)
  if decoded_images.damaged and not skip_damaged:
    raise errors.UserError(
      f'{len(decoded_images.damaged):,} of {len(paths):,} files in '
      f'{content.folder} cannot be read: '
      + ', '.join(
        f'{paths[row]} ({reason})'
        for row, reason in decoded_images.damaged.items()
      )
      + '; replace or remove them, or go on without them with '
      '--config.data.skip_damaged=true'
    )
  readable = [
    row for row in range(len(paths)) if row not in decoded_images.damaged
  ]
  part_of = part_of[readable]
  labels = np.concatenate([content.labels[p] for p in _PARTS])[readable]
  paths = [paths[row] for row in readable]
  _check_left(content, labels, part_of)
  copies = _copies(content, decoded_images.images, paths, labels, part_of)
  drop = copies[part_of[copies] == 0]
  num_train = int((part_of < 3).sum())
  report = _report(content, decoded_images, form, copies, labels, part_of)
  # Copies of labeled images stay as unlabeled ones, since leaving them out
  # would copy all others to memory.
  labels[drop] = -1
  fixed = np.flatnonzero(part_of[:num_train] == 1)
  source = Source(
    name='folder',
    num_classes=len(content.classes),
    train=Arrays(decoded_images.images[:num_train], labels[:num_train]),
    test=Arrays(decoded_images.images[num_train:], labels[num_train:]),
    note='; '.join(pictures.counted(decoded_images.facts)),
    classes=content.classes,
    validation=fixed.astype(np.int32) if len(fixed) else None,
    files=Files(tuple(paths[:num_train]), tuple(paths[num_train:])),
    form=form,
    report=report,
  )
  if len(drop) and not (part_of == 2).any():  # nothing else is unlabeled
    kept = np.setdiff1d(np.arange(num_train), drop)
    return take(source, kept, np.arange(len(source.test.labels)))
  return source


def _decode(
  folder: pathlib.Path,
  paths: Sequence[str],
  form: resize.Form,
  cache_dir: str | None,
  part_of: np.ndarray,
) -> decoded.Decoded:
  """All images; of several processes each decodes those that it reads."""
  if not jax.distributed.is_initialized() or jax.process_count() == 1:
    return decoded.read(folder, paths, form, cache_dir)
  few = duplicates.are_few((len(paths), *form.shape))
  facts = on_demand.inspect(
    folder, paths, form, hashed=(part_of != 2) | few, counted=part_of < 3
  )
  good = [row for row in range(len(paths)) if row not in facts.damaged]
  images_on_demand = on_demand.Images(
    folder,
    [paths[row] for row in good],
    form,
    {at: facts.codes[row] for at, row in enumerate(good) if row in facts.codes},
    facts.histogram,
    np.flatnonzero(part_of[good] < 3),
  )
  # It has what of an array is used.
  return decoded.Decoded(
    cast(Any, images_on_demand), facts.damaged, facts.facts
  )


def choose_form(
  folder: pathlib.Path, paths: Sequence[str], size: int, fit: str, channels: int
) -> resize.Form:
  """The form of the images of a folder.

  A size of 0 is the pictures' own where all of a sample are squares of one size
  of at most 224 pixels, else the largest of 32, 64, 96, ... 224 that is not
  above the median of their shorter sides. Channels of 0 are 1 where all of the
  sample are gray.
  """
  if size and channels:
    return resize.Form(size, size, channels, fit)
  step = max(1, -(-len(paths) // _SAMPLE))
  sides, gray = [], True
  for path in paths[::step]:
    facts = _facts(folder / path)
    if facts:
      sides.append(facts[0])
      gray &= facts[1]
  if not sides:
    raise errors.UserError(
      f'none of the {len(paths):,} files of {folder} can be read as an image: '
      'replace them by JPEG, PNG, WebP, BMP, TIFF or GIF files'
    )
  if not channels:
    channels = 1 if gray else 3
  if not size:
    first = sides[0]
    if len(set(sides)) == 1 and first[0] == first[1] <= _KEPT:
      size = first[0]
    else:
      middle = statistics.median(min(side) for side in sides)
      size = max([s for s in _SIZES if s <= middle], default=_SIZES[0])
  return resize.Form(size, size, channels, fit)


def _facts(path: pathlib.Path) -> tuple[tuple[int, int], bool] | None:
  """Upright size of a picture and whether it is gray, None if it cannot be
  opened.
  """
  import PIL.Image

  try:
    with PIL.Image.open(path) as picture:
      return resize.upright_size(picture), resize.is_gray(picture)
  except Exception:  # it is reported once its pixels are read
    return None


def _check_left(
  content: listing.Listing, labels: np.ndarray, part_of: np.ndarray
) -> None:
  counts = np.bincount(labels[part_of == 0], minlength=len(content.classes))
  gone = [content.classes[k] for k in np.flatnonzero(counts == 0)]
  if gone:
    raise errors.UserError(
      f'every labeled image of class {errors.shown(gone)} in {content.folder} '
      'is damaged: replace one, or remove the class'
    )
  for at, part in enumerate(_PARTS):
    if content.paths[part] and not (part_of == at).any():
      raise errors.UserError(
        f'every {part} image of {content.folder} is damaged: replace one, or '
        'remove them'
      )


def _copies(
  content: listing.Listing,
  images: np.ndarray,
  paths: Sequence[str],
  labels: np.ndarray,
  part_of: np.ndarray,
) -> np.ndarray:
  """Rows of labeled, validation and test images that are copies of another of
  the same class in the same part.

  Raises:
    errors.UserError: naming the pairs, if an image is there with two labels, or
      in two of the labeled, validation and test images.
  """
  rows = np.flatnonzero(part_of != 2)
  hashes = duplicates.hashes(images, rows)
  first: dict[bytes, int] = {}
  copies, wrong = [], []
  for row in rows.tolist():
    before = first.setdefault(hashes[row], row)
    if before == row:
      continue
    if part_of[row] == part_of[before] and labels[row] == labels[before]:
      copies.append(row)
    else:
      wrong.append(f'{paths[before]} = {paths[row]}')
  if wrong:
    pairs = f'{len(wrong):,} pair' + 's' * (len(wrong) > 1)
    raise errors.UserError(
      f'{pairs} of the labeled, validation and test images of '
      f'{content.folder} show the same pixels, in two of these parts or with '
      f'two labels: {errors.shown(wrong, 10)}: remove one of each pair'
    )
  return np.array(copies, int)


def _report(
  content: listing.Listing,
  decoded_images: decoded.Decoded,
  form: resize.Form,
  copies: np.ndarray,
  labels: np.ndarray,
  part_of: np.ndarray,
) -> tuple[str, ...]:
  """What was found of readable images, and what was skipped."""
  labeled = labels[part_of == 0]
  number_of = dict(zip(_PARTS, np.bincount(part_of, minlength=4)))
  lines = [
    f'{content.folder}: {len(content.classes)} classes with labeled images '
    f'({counts_text(content.classes, labeled)}), '
    f'{number_of["unlabeled"]:,} unlabeled images'
  ]
  for part, without in (
    ('validation', 'no validation images are given'),
    ('test', 'no test images: no test error is measured'),
  ):
    number = number_of[part]
    lines.append(f'{number:,} {part} images' if number else without)
  kind = 'gray' if form.channels == 1 else 'color'
  how = 'center crop' if form.fit == 'crop' else 'gray borders'
  lines.append(
    f'pictures become {form.height}x{form.width} {kind} images ({how})'
  )
  lines += listing.skipped_lines(
    {**content.skipped, 'damaged files': len(decoded_images.damaged)}
  )
  lines += pictures.counted(decoded_images.facts)
  copied = dict(zip(_PARTS, np.bincount(part_of[copies], minlength=4)))
  if copied['labeled']:
    lines.append(
      f'{copied["labeled"]:,} labeled images are copies of others of the same '
      'class: they are '
      + ('used without their label' if number_of['unlabeled'] else 'left out')
    )
  for part in ('validation', 'test'):
    if copied[part]:
      lines.append(
        f'{copied[part]:,} {part} images are copies of others of the same '
        'class, and each counts: the error is less certain than their number '
        'says'
      )
  counts = np.bincount(labeled, minlength=len(content.classes))
  alike = collections.defaultdict(list)
  for name in content.classes:
    alike[name.casefold()].append(name)
  lines += [
    f'{" and ".join(names)} are {len(names)} classes, whose names differ in '
    'case only'
    for names in alike.values()
    if len(names) > 1
  ]
  single = [content.classes[k] for k in np.flatnonzero(counts == 1)]
  if single:
    lines.append(
      f'a single labeled image of class {errors.shown(single)}: it is trained '
      'on, and the class is not validated'
    )
  return tuple(lines)
