"""Trains what a config describes: python -m nsl_jax.main --config=FILE[:k=v,…]

Writes config.json, results.json and a folder per seed to the workdir. The
same command resumes a run that was stopped. Any field of the config can be
set from here: --config.optimizer.lr=1e-3. Each config file's first lines say
which arguments it takes after the colon; all take seeds=N, smoke=true and
reduced=STEPS (every horizon scaled).
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from nsl_jax import errors
from nsl_jax.commands import cli
from nsl_jax.training import experiment, sharding, summary

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'The config file, such as configs/digits_ns3l.py:seeds=5',
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where to write; runs/<config name>/ if not given.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator_address',
  None,
  'HOST:PORT of process 0, for several '
  'processes. TPU pods and Slurm jobs need none of these three.',
)
_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Number of processes.')
_PROCESS = flags.DEFINE_integer(
  'process_id', None, 'Number of this process, from 0.'
)


def default_workdir(config_file: str) -> pathlib.Path:
  """runs/<config name>/, with the config's arguments other than seeds."""
  path, _, arguments = config_file.partition(':')
  words = [w for w in arguments.split(',') if w and not w.startswith('seeds=')]
  return pathlib.Path('runs') / ','.join([pathlib.Path(path).stem, *words])


def main() -> None:
  """Joins the other processes if there are any, trains, prints the result."""
  if _CONFIG.value is None:
    raise errors.UserError(
      '--config is missing: try --config=configs/digits_ns3l.py'
    )
  name = config_flags.get_config_filename(flags.FLAGS['config'])
  workdir = pathlib.Path(_WORKDIR.value or default_workdir(name))
  errors.refuse_address(workdir, '--workdir')
  sharding.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  results = experiment.run(_CONFIG.value, workdir)
  if results:
    score = results['score']
    text = summary.plus_minus(score['mean'], score['std'])
    count = len(results['seeds'])
    print(
      f'{score["metric"]} {text} {score["unit"]} ({results["protocol"]}, '
      f'{count} seed{"s" * (count > 1)}, {results["steps"]} steps) -> '
      f'{workdir / "results.json"}'
    )


if __name__ == '__main__':
  cli.run_with_config(main)
