"""Grid search by validation error: python -m nsl_jax search

python -m nsl_jax search --config=configs/ns3l_table1.py:method=vat_pl \\
    --grid optimizer.lr=3e-4,6e-4,3e-3 --seeds 3 --reduced 20000 --out lr.csv

trains every cell of the grid and ranks the cells by their mean validation
error. Test errors are in the folders of the cells only, and do not select.
--grid may be repeated; a field with one value is set in every cell. The same
command resumes a search; a larger grid keeps finished cells, and the table has
the cells of this grid. Values with commas are separated by semicolons:
--grid 'data.augment=flip,translate:2;noise:0.1'.
"""

import pathlib
from collections.abc import Sequence

from nsl_jax import errors, files
from nsl_jax.commands import cli
from nsl_jax.training import config as config_lib, search as grid


def default_workdir(argument: str, reduced: int | None) -> pathlib.Path:
  """runs/search/<config name> and the options that determine the runs."""
  words = [] if reduced is None else [f'reduced={reduced}']
  name = config_lib.name_of(argument, *words)
  return pathlib.Path('runs') / 'search' / name


def _steps(outcomes: Sequence[grid.Outcome]) -> str:
  """Of all cells, which may follow from their batches."""
  steps = [one.results['steps'] for one in outcomes if not one.failure]
  few, most = min(steps), max(steps)
  return f'{few}' if few == most else f'{few} to {most}, by the cell,'


def _parser() -> cli.Parser:
  parser = cli.Parser('search', __doc__)
  parser.add_argument(
    '--config', required=True, metavar='FILE[:k=v,…]', help='config file'
  )
  parser.add_argument(
    '--grid',
    required=True,
    action='append',
    metavar='FIELD=V,V,…',
    help='a field of the config and its values; may be repeated',
  )
  parser.add_argument('--seeds', type=int, help='number of seeds of each cell')
  parser.add_argument(
    '--reduced',
    type=int,
    metavar='STEPS',
    help='train so many steps, every horizon scaled, instead of all',
  )
  parser.add_argument(
    '--out',
    type=cli.path_of('--out'),
    metavar='FILE.csv',
    help='where to write the table (default: search.csv in the workdir)',
  )
  parser.add_argument(
    '--workdir',
    type=cli.path_of('--workdir'),
    help='folder of the runs (default: runs/search/<config name>)',
  )
  return parser


def main(argv: Sequence[str] | None = None) -> None:
  """Trains the grid, prints and writes the ranking."""
  options = _parser().parse_args(argv)
  if options.reduced is not None and options.reduced < 1:
    raise errors.UserError(f'--reduced={options.reduced}: must be at least 1')
  extra = {'seeds': options.seeds, 'reduced': options.reduced}
  config = config_lib.load(
    options.config, **{k: v for k, v in extra.items() if v is not None}
  )
  with config.unlocked():
    config.row = ''  # not a result of a paper
  cells = grid.cells_of(
    [grid.parse_axis(text, config) for text in options.grid]
  )
  workdir = options.workdir or default_workdir(options.config, options.reduced)
  out = options.out or workdir / 'search.csv'
  if out.is_dir():
    raise errors.UserError(f'--out={out} is a folder: name a file')
  grid.check(config, cells)
  files.make_folder(out.parent, '--out')

  def write(outcomes: Sequence[grid.Outcome]) -> None:
    files.write_csv(out, grid.lines_of(grid.ranked(outcomes), config))

  outcomes = grid.ranked(grid.train(config, cells, workdir, write))
  print(grid.table(outcomes))
  chosen = ' '.join(f'--config.{k}={v}' for k, v in outcomes[0].cell.items())
  print(
    f'{config.seeds} seeds, {_steps(outcomes)} steps -> {out}\nlowest: {chosen}'
  )
