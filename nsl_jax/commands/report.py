"""Compares reported results with ours: python -m nsl_jax report

`report runs/*` tabulates the results of work folders instead. All numbers come
from the JSON files in --results. Differences are from the supervised row of the
same table, data, labels and budget, or from that of the host if a table has no
supervised row; those of the paper are from the paper's row. Errors in %;
accuracies are converted to errors. A result marked † is outdated for the reason
below the table. --match FM-SSL --with NS3L prints what NS3L adds to each host,
by seeds. --match DN-T7 prints the times of its rows. --bench NAME prints
the step times in bench/NAME.json, with ratios to the first. --figure FILE.png
draws reported against measured differences, and writes their numbers to
FILE.csv; with --match FM-OPEN --by mismatch the scores of those rows against
that argument of their configs.
"""

import pathlib
from collections.abc import Sequence

from nsl_jax import errors, files
from nsl_jax.commands import cli
from nsl_jax.reports import against, differences, hosts, ledger, marked, tables

# By what selects a mode: what else acts in it. All others print a table.
_ACTS_IN = {
  'fill': ['results'],
  'figure': ['match', 'by', 'results'],
  'workdirs': ['out'],
  'bench': ['out', 'results'],
}


def _draw(
  path: pathlib.Path, folder: pathlib.Path, match: str, by: str
) -> None:
  """Writes a figure and its numbers."""
  if path.suffix != '.png':
    raise errors.UserError(f'--figure {path}: name a .png file')
  results = ledger.read(folder)
  if by:
    points = against.of_results(results, match, by)
    picture, lines = against.picture(points, by), against.lines(points)
  else:
    drawn = differences.of_results(results, match)
    picture, lines = differences.picture(drawn), differences.lines(drawn)
  files.write(path, picture)
  files.write_csv(path.with_suffix('.csv'), lines)


def main(argv: Sequence[str] | None = None) -> None:
  """Prints or writes a table."""
  parser = cli.Parser('report', __doc__)
  parser.add_argument(
    'workdirs', nargs='*', type=cli.path_of('the run'), help='folders of runs'
  )
  parser.add_argument(
    '--match',
    default='',
    help='only rows whose id starts with this, such as NS-T6',
  )
  parser.add_argument(
    '--with',
    dest='added',
    default='',
    metavar='NAME',
    help='only pairs of a row without and with this term or method, such as '
    'NS3L, with their differences by seed',
  )
  parser.add_argument(
    '--bench', metavar='NAME', help='step times instead of results'
  )
  parser.add_argument(
    '--out',
    type=cli.local_path,
    metavar='FILE.md',
    help='write the table to this file instead of printing it',
  )
  parser.add_argument(
    '--fill',
    type=cli.local_path,
    nargs='+',
    metavar='FILE.md',
    help='update the marked tables of files, such as README.md',
  )
  parser.add_argument(
    '--figure',
    type=cli.local_path,
    metavar='FILE.png',
    help='draw reported against measured differences',
  )
  parser.add_argument(
    '--by',
    default='',
    metavar='ARGUMENT',
    help='with --figure: draw scores against this argument of the configs',
  )
  parser.add_argument(
    '--results',
    default=pathlib.Path('results'),
    type=cli.local_path,
    help='folder of the ledger (default: results)',
  )
  options = parser.parse_args(argv)
  parser.refuse_ignored(options, _ACTS_IN)
  folder = options.results
  for path in options.fill or ():
    try:
      text = path.read_text('utf-8')
    except (OSError, UnicodeDecodeError) as error:
      raise errors.UserError(f'--fill {path}: {error}') from error
    files.write(path, marked.fill(text, folder).encode())
  if options.fill:
    return
  if options.figure is not None:
    _draw(options.figure, folder, options.match, options.by)
    return
  if options.by:
    raise errors.UserError('--by needs --figure FILE.png')
  if options.workdirs:
    text = tables.of_runs(options.workdirs)
  elif options.added:
    text = hosts.table(ledger.read(folder), options.match, options.added)
  elif options.bench is None:
    text = tables.table(ledger.read(folder), options.match)
  else:
    text = tables.times(folder, options.bench)
  if options.out is None:
    print(text)
  else:
    files.write(options.out, (text + '\n').encode())
