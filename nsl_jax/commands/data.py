"""Lists data sets and prepares them: python -m nsl_jax data --check"""

from collections.abc import Sequence

from nsl_jax.commands import cli
from nsl_jax.data import prepare, sources

_DESCRIPTION = """\
Lists the data sets that can be loaded, or prepares one.

Without a network, put the archives that TFDS would download into
DIR/downloads/manual (or DIR/downloads/manual/TFDS_NAME) and use --prepare. In
the same folder, usps is made from usps.h5, aflw from the images and lists in
aflw, tiny_imagenet from tiny-imagenet-200.zip or its folder.
"""


def _status(name: str, data_dir: str | None) -> tuple[str, str]:
  """`prepare.status`; for an adaptation refers to the data sets it needs."""
  if name not in sources.DERIVED:
    return prepare.status(name, data_dir)
  parts = sources.DERIVED[name]
  states = {part: prepare.status(part, data_dir)[0] for part in parts}
  unready = [part for part in parts if states[part] != 'ready']
  which = ' and '.join(unready or parts)
  return states[unready[0]] if unready else 'ready', f'see {which}'


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command."""
  parser = cli.Parser('data', _DESCRIPTION)
  action = parser.add_mutually_exclusive_group(required=True)
  action.add_argument(
    '--check', action='store_true', help='list every data set and its folder'
  )
  action.add_argument(
    '--prepare',
    metavar='NAME',
    help='download and prepare one of: ' + ', '.join(sources.NAMES),
  )
  parser.add_argument(
    '--data_dir',
    metavar='DIR',
    help='folder of TFDS data sets (default: TFDS_DATA_DIR, else '
    '~/tensorflow_datasets)',
  )
  options = parser.parse_args(argv)
  if options.prepare:
    name = options.prepare
    for part in sources.DERIVED.get(name, (name,)):
      print(prepare.prepare(part, options.data_dir))
    return
  for name in sources.NAMES:
    state, location = _status(name, options.data_dir)
    print(f'{name:<14} {state:<14} {location}')
