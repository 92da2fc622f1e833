"""The network of a finished run, from its work folder alone."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from nsl_jax import errors, files
from nsl_jax.inference import predictor
from nsl_jax.training import (
  checkpoint,
  metrics_log,
  network_file,
  workdir as workdir_lib,
)

WEIGHTS = ('best', 'last')
_FOLDERS = {'best': 'best', 'last': 'final'}


def load(
  workdir: str | os.PathLike, *, weights: str = '', seed: int | None = None
) -> predictor.Predictor:
  """Loads the network of a run.

  Args:
    workdir: of the run; its data are not needed.
    weights: `best` for those of the lowest validation error, `last` for those
      of the last step; '' for those that the run reports (its protocol).
    seed: which seed; None for the first.

  Returns:
    The network, whose numbers are those that the run was evaluated with.

  Raises:
    errors.UserError: if the folder is not that of a finished run.
  """
  folder = files.path_of(workdir, '--workdir')
  if weights and weights not in WEIGHTS:
    raise errors.UserError(
      f'weights={weights!r}: {errors.did_you_mean(weights, WEIGHTS)}'
    )
  seed_folder, seed = _seed_folder(folder, seed)
  facts = network_file.read(seed_folder)
  config = read_config(folder)
  if not weights:
    by_validation = config.protocol == 'best_validation'
    weights = 'best' if by_validation else 'last'
  step = _step_of(seed_folder, weights)
  components, like = predictor.components_and_shapes(config, facts)
  like = _on_one_device(like)
  state = checkpoint.read_state(seed_folder / _FOLDERS[weights], step, like)
  submodel = _submodel(seed_folder, step)
  return predictor.Predictor(
    facts,
    config,
    components,
    state,
    step=step,
    weights=weights,
    seed=seed,
    submodel=submodel,
  )


def _on_one_device(like: Any) -> Any:
  sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    like,
  )


def read_config(folder: files.Path) -> ml_collections.ConfigDict:
  """The config of a run; weights are its own, wherever it started from."""
  path = folder / 'config.json'
  if not path.exists():
    raise errors.UserError(
      f'{folder} is not the work folder of a run (it has no config.json): name '
      'one, such as runs/folder,dir=photos'
    )
  config = ml_collections.ConfigDict(_with_tuples(workdir_lib.read_json(path)))
  if 'init_from' in config.model:
    config.model.init_from = ''
  return config


def _with_tuples(value: Any) -> Any:
  """JSON's lists as the tuples that they were."""
  if isinstance(value, Mapping):
    return {k: _with_tuples(v) for k, v in value.items()}
  if isinstance(value, list):
    return tuple(_with_tuples(item) for item in value)
  return value


def _seed_folder(
  folder: files.Path, seed: int | None
) -> tuple[files.Path, int]:
  if not folder.is_dir():
    raise errors.UserError(
      f'{folder} is not a folder: name the --workdir of a run'
    )
  read_config(folder)
  folder_of_seed = {
    int(path.name.removeprefix('seed_')): path
    for path in folder.glob('seed_*')
    if path.name.removeprefix('seed_').isdigit()
  }
  if not folder_of_seed:
    raise errors.UserError(
      f'{folder} has no trained seed: let its run go on by the same command'
    )
  seed = min(folder_of_seed) if seed is None else seed
  if seed not in folder_of_seed:
    seeds_text = ', '.join(map(str, sorted(folder_of_seed)))
    raise errors.UserError(
      f'{folder} has no seed {seed!r}; it has {seeds_text}'
    )
  return folder_of_seed[seed], seed


def _step_of(folder: files.Path, weights: str) -> int:
  """The step that weights are of."""
  steps = {
    name: checkpoint.steps_in(folder / inner)
    for name, inner in _FOLDERS.items()
  }
  if not steps['last']:
    raise errors.UserError(
      f'the run in {folder.parent} has not ended: let it go on by the same '
      'command'
    )
  if not steps[weights]:
    raise errors.UserError(
      f'{folder} has no best weights, since no image was held out for '
      'validation: use --weights=last'
    )
  lines = metrics_log.read(folder / 'metrics.jsonl')
  held = {
    line['step']: line['validation_error']
    for line in lines
    if line['kind'] == 'eval' and line['step'] in steps[weights]
  }
  if weights == 'best':  # of a better one that was just being written
    if not held:
      raise errors.UserError(
        f'{folder / "metrics.jsonl"} has no evaluation of the best weights: '
        'restore it, or use --weights=last'
      )
    return min(held, key=lambda step: (held[step], step))
  return steps[weights][-1]


def _submodel(folder: files.Path, step: int) -> str | None:
  """The network that an evaluation chose, '' if there is one; None if no image
  was evaluated.
  """
  lines = metrics_log.read(folder / 'metrics.jsonl')
  for line in reversed(lines):
    if line['kind'] == 'eval' and line['step'] == step:
      names = ('validation_error', 'test_error')
      is_measured = any(line.get(name) is not None for name in names)
      return line.get('submodel', '' if is_measured else None)
  return None
