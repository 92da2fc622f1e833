"""The lines of a run, sent to Weights & Biases and MLflow.

Each library works in a separate thread, for which training does not wait; one
that fails is warned of once and gets nothing more.
"""

import importlib.util
import json
import os
import queue
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
from absl import logging
from flax import traverse_util

from nsl_jax import errors, files

NAMES = ('wandb', 'mlflow')  # fields of `config.log`, and libraries
_FILE = 'trackers.json'  # by what a run that goes on is found again
_PATIENCE_S = 30.0  # how long the end of a run waits for what is being sent
_EXPERIMENT = 'nsl_jax'  # of MLflow

Values = Mapping[str, float]
# How a run ended, in the words of MLflow.
FINISHED, FAILED, KILLED = 'FINISHED', 'FAILED', 'KILLED'
Send = Callable[[int, Values | str], None]  # one of these at its end


def check(config: ml_collections.ConfigDict) -> None:
  """Checks that the libraries of a config are installed.

  Raises:
    errors.UserError: if one is not.
  """
  for name in NAMES:
    if config.log[name] and importlib.util.find_spec(name) is None:
      raise errors.UserError(
        f'config.log.{name}={config.log[name]}: {name} is not installed: '
        f'pip install "nsl_jax[{name}]", or leave it out'
      )


def _wandb(
  project: str, key: str, folder: str, title: str, config: dict[str, Any]
) -> tuple[str, Send]:
  import wandb

  key = key or uuid.uuid4().hex[:12]
  run = wandb.init(
    project=project,
    id=key,
    name=title,
    dir=folder,
    config=config,
    resume='allow',
    settings=wandb.Settings(silent=True, console='off'),
  )
  # Lines that a killed run wrote are written again: no order by calls.
  run.define_metric('*', step_metric='step')

  def send(step: int, values: Values | str) -> None:
    if isinstance(values, str):
      run.finish(exit_code=int(values != FINISHED))
    else:
      run.log({'step': step, **values})

  return key, send


def _mlflow(
  uri: str, key: str, folder: str, title: str, config: dict[str, Any]
) -> tuple[str, Send]:
  import time

  # Standard output is for the result.
  os.environ.setdefault('MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT', 'true')
  from mlflow import entities, tracking

  client = tracking.MlflowClient(tracking_uri=uri)
  if not key:
    existing = client.get_experiment_by_name(_EXPERIMENT)
    number = (
      existing.experiment_id
      if existing
      else client.create_experiment(_EXPERIMENT)
    )
    key = client.create_run(number, run_name=title).info.run_id
    flat = traverse_util.flatten_dict(config, sep='.')
    params = [
      entities.Param(name, str(value)[:500]) for name, value in flat.items()
    ]
    client.log_batch(key, params=params[:100])
    for start in range(100, len(params), 100):
      client.log_batch(key, params=params[start : start + 100])
  else:
    client.update_run(key, status='RUNNING')

  def send(step: int, values: Values | str) -> None:
    if isinstance(values, str):
      client.set_terminated(key, values)
      return
    now = int(time.time() * 1000)
    client.log_batch(
      key,
      metrics=[
        entities.Metric(name, value, now, step)
        for name, value in values.items()
      ],
    )

  return key, send


_OPEN = {'wandb': _wandb, 'mlflow': _mlflow}


class Trackers:
  """Sends the lines of one seed to those that its config names.

  Attributes:
    warnings: what failed, a line for each library.
  """

  def __init__(
    self, config: ml_collections.ConfigDict, folder: files.Path, title: str
  ):
    """`folder`: of the seed."""
    self.warnings: list[str] = []
    self._folder, self._title = folder, title
    self._config = config.to_dict()
    self._local = str(folder)
    if files.in_bucket(folder):
      self._temporary = tempfile.TemporaryDirectory(prefix='nsl_jax_')
      self._local = self._temporary.name
    self._keys = _read(folder / _FILE)
    self._lock = threading.Lock()
    self._queues: dict[str, queue.Queue[tuple[int, Values | str]]] = {}
    self._threads = []
    for name in NAMES:
      if config.log[name]:
        self._queues[name] = queue.Queue()
        thread = threading.Thread(
          target=self._run, args=(name, config.log[name]), daemon=True
        )
        thread.start()
        self._threads.append((name, thread))

  def _run(self, name: str, target: str) -> None:
    try:
      key, send = _OPEN[name](
        target, self._keys.get(name, ''), self._local, self._title, self._config
      )
      with self._lock:
        self._keys[name] = key
        files.write(
          self._folder / _FILE, json.dumps(self._keys).encode() + b'\n'
        )
      while True:
        step, values = self._queues[name].get()
        send(step, values)
        if isinstance(values, str):
          return
    except (Exception, SystemExit) as error:  # they may raise anything
      self._warn(name, files.reason_of(error))

  def _warn(self, name: str, reason: str) -> None:
    with self._lock:
      if any(line.startswith(f'{name} ') for line in self.warnings):
        return
      line = f'{name} gets no more metrics of {self._title}: {reason}'
      self.warnings.append(line)
    logging.warning('%s', line)

  def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
    """Sends the numbers of a line, under the names of TensorBoard."""
    numbers = {
      f'{kind}/{name}': value
      for name, value in values.items()
      if isinstance(value, float)
    }
    for waiting in self._queues.values():
      waiting.put((step, numbers))

  def close(self, status: str = FINISHED) -> None:
    """Waits for what is still to be sent, for half a minute at most.

    Args:
      status: how the run ended, as MLflow calls it.
    """
    for waiting in self._queues.values():
      waiting.put((0, status))
    for name, thread in self._threads:
      thread.join(_PATIENCE_S)
      if thread.is_alive():
        self._warn(name, f'it is not done after {_PATIENCE_S:.0f} s')


def _read(path: files.Path) -> dict[str, str]:
  try:
    content = json.loads(path.read_bytes())
  except (OSError, ValueError):
    return {}
  return content if isinstance(content, dict) else {}
