"""Seconds from the command to the first step, in a new process."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping

from nsl_jax import errors

_LOOK_S = 0.02  # polling interval of the file of the first step


def first_step(config: str, cache: str) -> float:
  """Starts training, waits for the metrics of the first step, and stops it.

  Args:
    config: the argument of `--config=`.
    cache: folder of compiled programs and decoded data.

  Raises:
    errors.UserError: if the run ends early; has its last line.
  """
  environment = {**os.environ, 'NSL_JAX_CACHE': cache}
  environment.pop('JAX_COMPILATION_CACHE_DIR', None)  # it is used instead
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder) / 'output'
    begun = time.perf_counter()
    with (
      output.open('wb') as stream,
      subprocess.Popen(
        [
          sys.executable,
          '-m',
          'nsl_jax.main',
          f'--config={config}',
          f'--workdir={folder}/run',
          '--config.log_every=1',
        ],
        stdout=stream,
        stderr=subprocess.STDOUT,
        env=environment,
      ) as process,
    ):
      while not any(
        path.stat().st_size
        for path in pathlib.Path(folder).glob('run/seed_*/metrics.jsonl')
      ):
        if process.poll() is not None:
          *_, last = output.read_text().strip().splitlines() or ['no output']
          raise errors.UserError(f'{config}: {last.removeprefix("error: ")}')
        time.sleep(_LOOK_S)
      seconds = time.perf_counter() - begun
      process.kill()
  return seconds


def measure(configs: Iterable[str]) -> dict[str, dict[str, float]]:
  """By config: `cold_s` with an empty cache, `warm_s` with a filled one."""
  measured = {}
  for config in configs:
    with tempfile.TemporaryDirectory() as cache:
      measured[config] = {
        name: first_step(config, cache) for name in ('cold_s', 'warm_s')
      }
  return measured


def table(measured: Mapping[str, Mapping[str, float]]) -> str:
  """A Markdown table, one row per config."""
  lines = ['| config | cold s | warm s |', '| --- | --- | --- |']
  for name, seconds in measured.items():
    lines.append(
      f'| {name} | {seconds["cold_s"]:.1f} | {seconds["warm_s"]:.1f} |'
    )
  return '\n'.join(lines)
