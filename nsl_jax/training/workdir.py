"""The folder of a run: its config, results and provenance."""

import functools
import importlib.metadata
import json
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util

from nsl_jax import errors, files
from nsl_jax.training import kernels

_PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'chex',
  'orbax-checkpoint',
  'tensorflow-datasets',
  'numpy',
  'ml-collections',
)
# Fields that a resumed run may change: the location of the data, the number of
# seeds, and options of speed, which affect rounding only. The row follows from
# all other fields.
FREE = (
  'seeds',
  'data.dir',
  'data.on_device_mb',
  'steps_per_call',
  'devices',
  'checkpoint.keep',
  'row',
  'kernels',
  'log.wandb',
  'log.mlflow',
)
# Fields that a folder begun before there were any lacks, and their values.
_ADDED = {
  'model.init_from': '',
  'log.wandb': '',
  'log.mlflow': '',
  'data.imbalance': 1.0,
  'data.imbalance_unlabeled': 1.0,
  'data.unknown_classes': [],
  'data.unlabeled_classes': [],
  'optimizer.cosine': 'half',
  'optimizer.weight_decay_on': 'all',
  'method.positives': None,
  'method.where': 'all',
  'method.terms.ns3l.where': 'all',
  'method.host.terms.ns3l.where': 'all',
}


def write_json(path: files.Path, content: Mapping[str, Any]) -> None:
  """Writes a JSON file atomically; only process 0 writes."""
  if jax.process_index():
    return
  text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
  # Names of files that are not UTF-8 become escapes of JSON.
  files.write(path, text.encode(errors='backslashreplace'))


def read_json(path: files.Path) -> dict[str, Any]:
  """Reads a JSON file.

  Raises:
    errors.UserError: if it is damaged.
  """
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(content, dict):
      raise ValueError(f'holds a {type(content).__name__}')
    return content
  except (OSError, ValueError) as error:
    raise errors.UserError(
      f'{path} cannot be read ({error}): restore it or use a new --workdir'
    ) from error


def _why_not_longer(
  before: Mapping[str, Any], now: Mapping[str, Any]
) -> str | None:
  """Why a run cannot be extended; None if it can.

  Its files must equal those that a run of the new length has at this step.
  """
  if now['steps'] < before['steps']:
    return 'a run can be made longer, but not shorter'
  if now.get('optimizer.cosine_steps'):
    return (
      'optimizer.cosine_steps scheduled the learning rate for the old length'
    )
  for name in ('eval.every_steps', 'log_every'):
    interval = now.get(name, 1)
    if before['steps'] % interval:
      return (
        f'{before["steps"]} is not a multiple of {name}={interval}, so a '
        'longer run would not write there'
      )
  return None


def text_of(config: Mapping[str, Any]) -> str:
  """The fields that a resumed run may not change, as text."""
  flat = traverse_util.flatten_dict(json.loads(json.dumps(config)), sep='.')
  return json.dumps({k: v for k, v in flat.items() if k not in FREE})


def lock_workdir_to_config(
  workdir: files.Path, config: Mapping[str, Any]
) -> None:
  """Writes the config to the folder, or checks that the folder has it.

  A config that differs only in more `steps` extends the run, if a run of that
  length would have been the same so far.

  Raises:
    errors.UserError: if the folder belongs to another config, naming the first
      field that differs, or cannot be written.
  """
  path = workdir / 'config.json'
  config = json.loads(json.dumps(config))
  flat = functools.partial(traverse_util.flatten_dict, sep='.')
  stored = read_json(path) if path.exists() else config
  before, now = ({**_ADDED, **flat(fields)} for fields in (stored, config))
  changed = [
    name
    for name in sorted(before.keys() | now.keys())
    if name not in FREE
    and before.get(name) != now.get(name)
    # Of a folder of an older version these are not known.
    and (name in before or not name.startswith(('objects.', 'init_from_')))
  ]
  if 'steps' in changed:  # these follow from it
    changed = [n for n in changed if n != 'full_steps']
  changed.sort(key=lambda name: name != 'steps')  # others may follow from it
  for name in changed:
    if name == 'init_from_sha256':
      raise errors.UserError(
        f'{workdir} was begun from other weights than '
        f'{now.get("model.init_from")} has now: restore them or use another '
        '--workdir'
      )
    if name.startswith('objects.'):
      raise errors.UserError(
        f'{workdir} was begun with another definition of '
        f'{name.removeprefix("objects.").replace("/", ".")}: restore it (its '
        'source is in '
        f'{path}, under objects) or use another --workdir'
      )
    reason = _why_not_longer(before, now) if changed == ['steps'] else ''
    if name == 'steps' and changed[1:]:
      other = changed[1]
      reason = f'{other} was {before.get(other)!r} and is {now.get(other)!r}'
    if reason is not None:
      raise errors.UserError(
        f'{workdir} belongs to another config: {name} was '
        f'{before.get(name)!r} there and is {now.get(name)!r} here'
        + (f' ({reason})' if reason else '')
        + '; use another --workdir'
      )
  write_json(path, config)


def _commit() -> str | None:
  """That of the package, with '+changes' where any of its files differs."""
  folder = pathlib.Path(__file__).resolve().parents[1]
  git = lambda *words: subprocess.run(
    ['git', '-C', str(folder), *words], capture_output=True, text=True
  )
  try:
    if git('ls-files', '--error-unmatch', __file__).returncode:
      return None  # installed inside another repository
    commit = git('rev-parse', 'HEAD').stdout.strip()
    changed = git('status', '--porcelain', '--', str(folder)).stdout.strip()
  except OSError:
    return None
  return commit + ('+changes' if changed else '')


def versions() -> dict[str, str | None]:
  """Versions of Python, of this package and of those that it is made with."""
  version_of: dict[str, str | None] = {'python': platform.python_version()}
  for package in ('nsl-jax', *_PACKAGES):
    try:
      version_of[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      version_of[package] = None
  return version_of


PROVENANCE = ('device', 'commit', 'versions')


def provenance(devices: int) -> dict[str, Any]:
  """Versions, commit and devices, for results files."""
  first = jax.devices()[0]
  return {
    'device': f'{devices} x {first.device_kind} '
    f'({first.platform}; host: {kernels.cores()} cores)',
    'commit': _commit(),
    'versions': versions(),
  }
