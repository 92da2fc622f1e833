"""Labels images by a trained network.

  python -m nsl_jax predict --workdir=runs/photos --images=new --out=new.csv

Needs the work folder of a run alone, not its data. The CSV file has a line for
each image: path, class, probability, the probability of each class, and why it
cannot be read, if it cannot; for a network that finds points their x and y in
pixels of the picture. The exit status is 0, or 64 + the number of files that
cannot be read (at most 127).
"""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence

from nsl_jax import errors, progress
from nsl_jax.commands import cli
from nsl_jax.data import listing
from nsl_jax.data.datasets import npz
from nsl_jax.inference import loading, predictor, tables


def add_network(parser: cli.Parser) -> None:
  """Adds the options that say which network to use."""
  parser.add_argument(
    '--workdir', type=cli.path_of('--workdir'), required=True, help='of the run'
  )
  parser.add_argument(
    '--weights',
    default='',
    metavar='best|last',
    help='of the lowest validation error, or of the last step (default: those '
    'that the run reports)',
  )
  parser.add_argument(
    '--seed', type=int, help='of the run (default: its first)'
  )


def find_images(
  roots: Sequence[pathlib.Path], skipped: dict[str, int]
) -> Iterator[str]:
  """Image files and those below folders.

  Raises:
    errors.UserError: if something does not exist.
  """
  for path in roots:
    if path.is_dir():
      yield from map(str, listing.files_below(path, skipped))
    elif path.exists():
      yield str(path)
    else:
      raise errors.UserError(f'--images={path} does not exist')


def _predict_arrays(args: argparse.Namespace) -> None:
  """Predicts the rows of `x` in an .npz file, which stand for paths."""
  path, *more_paths = args.images
  if more_paths:
    raise errors.UserError(
      f'--images={path} is a file of arrays: name it alone, not beside '
      f'{more_paths[0]}'
    )
  try:
    x = npz.read(path)['x']
  except (KeyError, *npz.UNREADABLE) as error:
    raise errors.UserError(
      f'--images={path} cannot be read ({error}): save it with '
      'numpy.savez(path, x=...)'
    ) from error
  tables.check_target(args.out, args.overwrite)
  network = loading.load(args.workdir, weights=args.weights, seed=args.seed)
  outputs = network.outputs(network.images_of(x))
  predictions = (
    predictor.Read(str(row), output) for row, output in enumerate(outputs)
  )
  tables.write(args.out, predictions, network.classes, network.facts.outputs)
  print(f'{len(outputs):,} rows -> {args.out}')


def main(argv: Sequence[str] | None = None) -> None:
  """Predicts, and says how many files could not be read."""
  parser = cli.Parser('predict', __doc__)
  add_network(parser)
  parser.add_argument(
    '--images',
    type=cli.local_path,
    nargs='+',
    required=True,
    help='folders (with all folders in them) or files; or an .npz file with x',
  )
  parser.add_argument(
    '--out',
    type=cli.path_of('--out'),
    default='predictions.csv',
    help='the CSV file',
  )
  parser.add_argument(
    '--overwrite', action='store_true', help='replace the CSV file'
  )
  args = parser.parse_args(argv)
  skipped: dict[str, int] = {}
  if args.images[0].suffix == '.npz':
    _predict_arrays(args)
    return
  found = list(find_images(args.images, skipped))
  path_of: dict[str, str] = {}  # a folder may be given beside one that holds it
  for path in found:
    path_of.setdefault(os.path.abspath(path), path)
  paths = list(path_of.values())
  if not paths:
    roots = ', '.join(map(str, args.images))
    raise errors.UserError(
      f'no image in {roots}: name a folder with JPEG, PNG, WebP, BMP, TIFF or '
      'GIF files'
    )
  tables.check_target(args.out, args.overwrite)
  network = loading.load(args.workdir, weights=args.weights, seed=args.seed)
  begun = time.perf_counter()
  predictions = progress.progress(
    network.read(paths), total=len(paths), unit='image', delay=2.0
  )
  total, damaged, notes = tables.write(
    args.out, predictions, network.classes, network.facts.outputs
  )
  if len(paths) < len(found):
    notes = [
      f'{len(found) - len(paths):,} images are named more than once by '
      '--images: each has one line',
      *notes,
    ]
  for line in [*notes, *listing.skipped_lines(skipped)]:
    print(line, file=sys.stderr)
  rate = total / (time.perf_counter() - begun)
  print(
    f'{total - damaged:,} images ({network.weights} weights, step '
    f'{network.step}, {rate:,.0f} images/s) -> {args.out}'
  )
  if damaged:
    raise errors.UnreadableFiles(
      f'{damaged:,} of {total:,} files could not be read: see the column error '
      f'of {args.out}',
      damaged,
    )
