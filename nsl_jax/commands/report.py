"""Reported against ours, from the ledger: python -m nsl_jax report

`report runs/*` tabulates the results of work folders instead. Of the ledger:
Every number comes from a JSON file in --results. A difference is taken from
the supervised row of the same table, data, labels and budget, where a table
has none from that of the host, and the paper's from the paper's. Errors in %;
accuracies that a paper reports are turned into errors. A result marked † is not
what its command gives by now; the reason stands below the table. --match DN-T7
prints the times of its rows. --bench NAME prints the step times in
bench/NAME.json there, with ratios to the first.
"""

import pathlib
from collections.abc import Sequence

from nsl_jax import errors, files
from nsl_jax.commands import cli
from nsl_jax.reports import tables


def main(argv: Sequence[str] | None = None) -> None:
  """Prints or writes a table."""
  parser = cli.Parser('report', __doc__)
  parser.add_argument(
    'workdirs', nargs='*', type=pathlib.Path, help='folders of runs'
  )
  parser.add_argument(
    '--match', default='', help='only rows whose id starts so, as NS-T6'
  )
  parser.add_argument(
    '--bench', metavar='NAME', help='step times instead of results'
  )
  parser.add_argument(
    '--out',
    type=pathlib.Path,
    metavar='FILE.md',
    help='write the table there instead of printing it',
  )
  parser.add_argument(
    '--fill',
    type=pathlib.Path,
    metavar='FILE.md',
    help='make the marked tables of a file anew, as of README.md',
  )
  parser.add_argument(
    '--results',
    default='results',
    type=pathlib.Path,
    help='folder of the ledger (default: results)',
  )
  options = parser.parse_args(argv)
  folder = options.results
  if options.fill is not None:
    try:
      text = options.fill.read_text('utf-8')
    except (OSError, UnicodeDecodeError) as error:
      raise errors.UserError(f'--fill {options.fill}: {error}') from error
    files.write(options.fill, tables.fill(text, folder).encode())
    return
  if options.workdirs:
    text = tables.of_runs(options.workdirs)
  elif options.bench is None:
    text = tables.table(tables.read(folder), options.match)
  else:
    text = tables.times(folder, options.bench)
  if options.out is None:
    print(text)
  else:
    files.write(options.out, (text + '\n').encode())
