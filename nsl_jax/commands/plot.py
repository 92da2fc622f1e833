"""Plots learning curves of runs: python -m nsl_jax plot runs/a runs/b

One panel for the training loss and one for each error; a line is the mean over
the seeds of a run, the band spans the lowest to the highest.
"""

import pathlib
from collections.abc import Sequence

from nsl_jax import errors, files
from nsl_jax.commands import cli
from nsl_jax.reports import plots


def main(argv: Sequence[str] | None = None) -> None:
  """Plots the runs."""
  parser = cli.Parser('plot', __doc__)
  parser.add_argument(
    'workdirs', nargs='+', type=cli.path_of('the run'), help='folders of runs'
  )
  parser.add_argument(
    '--out',
    type=cli.local_path,
    default=pathlib.Path('curves.png'),
    metavar='FILE.png',
    help='where to write the picture (default: curves.png)',
  )
  options = parser.parse_args(argv)
  if options.out.suffix.lower() != '.png':
    raise errors.UserError(f'--out={options.out}: must end in .png')
  files.make_folder(options.out.parent, '--out')
  files.write(options.out, plots.draw(options.workdirs))
  print(options.out)
