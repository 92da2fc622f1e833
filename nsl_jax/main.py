"""Trains what a config describes: python -m nsl_jax train --config=FILE[:k=v,…]

Writes config.json, results.json and a folder per seed to the workdir. The same
command resumes a run that was stopped. Any field of the config, and any option
of a method, term, network or optimizer, can be set from here:

  --config.optimizer.lr=1e-3        --config.method.name=vat
  --config.model.width=4            --config.method.terms.ns3l.weight=0.3

`python -m nsl_jax options vat` lists the options of a part. Each config file's
first lines say which arguments it takes after the colon; all take seeds=N and
smoke=true, and all but folder.py reduced=STEPS (every horizon scaled).
"""

import json
import pathlib
import sys
import time
from collections.abc import Sequence

from nsl_jax import errors
from nsl_jax.commands import cli
from nsl_jax.training import (
  config as config_lib,
  experiment,
  processes,
  summary,
)

_STARTED = time.monotonic()
Overrides = list[tuple[str, str]]


def default_workdir(
  argument: str, overrides: Sequence[tuple[str, str]] = ()
) -> pathlib.Path:
  """runs/<config name>/, with what else decides the run but its seeds."""
  words = [f'{field}={text}' for field, text in overrides]
  return pathlib.Path('runs') / config_lib.name_of(argument, *words)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], Overrides]:
  """The other words, and the pairs of `--config.FIELD=VALUE`."""
  remaining, overrides = [], []
  words = iter(argv)
  for word in words:
    if word.startswith('--config.'):
      field, equals, text = word.removeprefix('--config.').partition('=')
      if not equals:
        text = next(words, '')
      overrides.append((field, text))
    else:
      remaining.append(word)
  return remaining, overrides


def _parser() -> cli.Parser:
  parser = cli.Parser('train', __doc__)
  add = parser.add_argument
  add(
    '--config',
    metavar='FILE[:k=v,…]',
    help='the config file, such as configs/digits_ns3l.py:seeds=5',
  )
  add(
    '--workdir',
    type=cli.path_of('--workdir'),
    help='where to write, also gs://… (default: runs/<config name>)',
  )
  add(
    '--print_config',
    action='store_true',
    help='print the complete config as JSON, and train nothing',
  )
  add(
    '--max_hours',
    type=float,
    metavar='H',
    help='save and stop (status 75) 5 minutes before H hours are over, or '
    'after 90 %% of them if that is later; the same command resumes',
  )
  add(
    '--coordinator_address',
    metavar='HOST:PORT',
    help='of process 0, for several processes; TPU pods and Slurm jobs need '
    'none of these three',
  )
  add('--num_processes', type=int, help='number of processes')
  add('--process_id', type=int, help='number of this process, from 0')
  add(
    '--join_s',
    type=int,
    default=processes.JOIN_S,
    metavar='SECONDS',
    help='how long the processes wait for one another at the start',
  )
  return parser


def _deadline(hours: float | None) -> float | None:
  """When to stop, which leaves time to write a checkpoint.

  Raises:
    errors.UserError: if it is not positive.
  """
  if hours is None:
    return None
  if not hours > 0:
    raise errors.UserError(f'--max_hours={hours}: must be above 0')
  seconds = 3600.0 * hours
  return _STARTED + max(seconds - 300.0, 0.9 * seconds)


def main(argv: Sequence[str] | None = None) -> None:
  """Joins the other processes if there are any, trains, prints the result."""
  words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
  options = _parser().parse_args(words)
  if options.config is None:
    raise errors.UserError(
      '--config is missing: try --config=configs/digits_ns3l.py'
    )
  config = config_lib.load(options.config, overrides)
  deadline = _deadline(options.max_hours)
  if options.print_config:
    print(json.dumps(config.to_dict(), indent=2))
    return
  workdir = options.workdir or default_workdir(options.config, overrides)
  processes.join(
    options.coordinator_address,
    options.num_processes,
    options.process_id,
    within_s=options.join_s,
  )
  results = experiment.run(config, workdir, deadline=deadline)
  if results:
    count = len(results['seeds'])
    print(
      f'{summary.text_of(results["score"])} ({results["protocol"]}, '
      f'{count} seed{"s" * (count > 1)}, {results["steps"]} steps) -> '
      f'{workdir / "results.json"}'
    )


if __name__ == '__main__':
  cli.run_command(main)
