"""Command line: which data sets are here, and making one ready."""

import argparse
from collections.abc import Sequence
import sys

from nsl_jax import errors
from nsl_jax.data import prepare

_DESCRIPTION = """\
Lists the data sets that can be loaded, or makes one ready to load.

Machines without a network: put the archives that TFDS would download, under
their own names, into DIR/downloads/manual (or DIR/downloads/manual/TFDS_NAME)
and use --prepare. usps is made from DIR/downloads/manual/usps.h5.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after one line on stderr."""
  parser = argparse.ArgumentParser(
      prog='python -m nsl_jax.data',
      description=_DESCRIPTION,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  action = parser.add_mutually_exclusive_group(required=True)
  action.add_argument(
      '--check', action='store_true', help='list every data set and its folder'
  )
  action.add_argument(
      '--prepare',
      metavar='NAME',
      help='download and prepare one of: ' + ', '.join(prepare.NAMES),
  )
  parser.add_argument(
      '--data_dir',
      metavar='DIR',
      help='folder of TFDS data sets (default: TFDS_DATA_DIR, else '
      '~/tensorflow_datasets)',
  )
  options = parser.parse_args(argv)
  try:
    if options.prepare:
      print(prepare.prepare(options.prepare, options.data_dir))
    else:
      for name in prepare.NAMES:
        state, where = prepare.status(name, options.data_dir)
        print(f'{name:<14} {state:<14} {where}')
  except errors.UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
