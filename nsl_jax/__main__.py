"""Every command: python -m nsl_jax COMMAND, or nsl-jax COMMAND."""

import importlib
import sys

from nsl_jax import errors
from nsl_jax.commands import cli

COMMANDS = {
  'train': 'train what a config describes',
  'predict': 'label images by a trained network',
  'evaluate': 'measure a trained network on labeled images',
  'export': 'write a trained network as one program without this library',
  'reproduce': 'run a result of the papers by its id, or list them',
  'report': 'tables of results beside those of the papers',
  'plot': 'learning curves of runs as a picture',
  'search': 'train a grid of configs and rank them by validation error',
  'bench': 'step times of methods and configs',
  'data': 'list data sets, or make one ready to load',
  'options': 'the options of a method, term, network, sampler or optimizer',
}


def usage() -> str:
  """The list of commands."""
  lines = [f'  {name:<10} {summary}' for name, summary in COMMANDS.items()]
  return '\n'.join(
    [
      'usage: python -m nsl_jax COMMAND [OPTIONS]',
      '',
      *lines,
      '',
      'COMMAND --help describes one. First run:',
      '  python -m nsl_jax train --config=configs/digits_ns3l.py',
    ]
  )


def main() -> None:
  """Runs the command that the first word names."""
  reads_files = sys.argv[1:2] in (['predict'], ['evaluate'], ['export'])
  cli.run_command(_run, keep_memory=not reads_files)


def _run() -> None:
  name, arguments = (sys.argv[1:] or ['--help'])[0], sys.argv[2:]
  if name in ('-h', '--help', 'help'):
    print(usage())
    return
  if name not in COMMANDS:
    raise errors.UserError(
      f'no command {name!r}: {errors.did_you_mean(name, COMMANDS)}'
    )
  sys.argv = [f'python -m nsl_jax {name}', *arguments]
  module = 'main' if name == 'train' else f'commands.{name}'
  importlib.import_module(f'nsl_jax.{module}').main()


if __name__ == '__main__':
  main()
