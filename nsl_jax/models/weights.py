"""Weights that a network starts from, read and written by name.

A `.safetensors` file has the parameters as `params/Dense_0/kernel` and the
batch-normalization statistics as `batch_stats/BatchNorm_0/mean`, joined by
slashes or dots; names without these two beginnings are parameters alone. The
`count` of a norm is the number of batches behind its statistics: with a small
one the first batches of a run replace them, with 10,000 they move slowly.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from nsl_jax import errors, files
from nsl_jax.types import Array, Key, Model, Params, Stats

OPTION = 'config.model.init_from'
_PARTS = ('params', 'batch_stats')
_DTYPES: Mapping[str, Any] = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': jnp.bfloat16,
}
_SHOWN = 4  # names of a message
_LENGTH = 8  # bytes of the length of a file's header
_LONGEST = 100_000_000  # bytes of a header that safetensors accepts
_STEP = 'such as seed_0/best/1200'  # the folder of a checkpoint
_PAIR = {'a', 'b'}  # what a method of two networks calls them
_AVERAGE = 'ema'  # slot of the averaged weights

ImageShape = tuple[int, int, int]
Shape = tuple[int, ...]
Flat = dict[str, np.ndarray]


def read(path: str | files.Path) -> tuple[Params, Stats]:
  """Reads the weights of a network.

  Args:
    path: of a `.safetensors` file, or the folder of a checkpoint of a run, such
      as `seed_0/best/1200`. The weights are the trained ones (of Mean Teacher
      the student's), or their average where `config.ema_decay` kept one.

  Returns:
    The parameters and the batch-normalization statistics, nested by name, of
    arrays on the host; the latter {} where there are none.

  Raises:
    errors.UserError: if nothing is there, it cannot be read, has values that
      are not floating-point numbers, or is of a method of two networks.
  """
  place = files.path_of(path, 'the weights')
  try:
    if place.is_dir():
      return _read_checkpoint(str(path), place)
    content = place.read_bytes()
  except FileNotFoundError:
    raise errors.UserError(
      f'{path}: does not exist; name a file written by '
      f'nsl_jax.models.weights.write, or the folder of a checkpoint {_STEP}'
    ) from None
  except OSError as error:
    raise errors.UserError(
      f'{path}: cannot be read ({error.strerror or error})'
    ) from error
  return _read_file(str(path), content)


def sha256(path: str | files.Path) -> str:
  """Hash of names, shapes and values of the weights that `read` reads."""
  digest = hashlib.sha256()
  for leaf, value in jax.tree_util.tree_leaves_with_path(read(path)):
    digest.update(f'{_name(leaf)} {value.dtype} {value.shape} '.encode())
    digest.update(np.ascontiguousarray(value).tobytes())
  return digest.hexdigest()


def _read_file(path: str, content: bytes) -> tuple[Params, Stats]:
  try:
    entries = dict(safetensors.deserialize(content))
  except safetensors.SafetensorError as error:
    raise errors.UserError(
      f'{path}: is not a safetensors file ({error})'
    ) from error
  for name in sorted(entries):
    dtype = entries[name]['dtype']
    if dtype not in _DTYPES:
      raise errors.UserError(
        f'{path}: {name} is of type {dtype}; the known ones are '
        + ', '.join(_DTYPES)
      )
  arrays = {
    name: np.frombuffer(entry['data'], _DTYPES[entry['dtype']]).reshape(
      entry['shape']
    )
    for name, entry in entries.items()
  }
  separator = '/' if any('/' in name for name in arrays) else '.'
  heads = {name.partition(separator)[0] for name in arrays}
  if not heads & set(_PARTS):
    return _nested(path, arrays, separator), {}
  strange = sorted(heads - set(_PARTS))
  if strange:
    raise errors.UserError(
      f'{path}: {strange[0]} is neither one of the params nor of the '
      'batch_stats that are there'
    )
  tree = _nested(path, arrays, separator)
  return tree.get('params', {}), tree.get('batch_stats', {})


def read_metadata(path: str | files.Path) -> dict[str, str]:
  """The words kept with the weights of a `.safetensors` file, see `write`; {}
  where the file cannot be read, of which `read` gives the reason.
  """
  try:
    with files.path_of(path, 'the weights').open('rb') as file:
      length = int.from_bytes(file.read(_LENGTH), 'little')
      header = json.loads(file.read(min(length, _LONGEST)))
    return dict(header.get('__metadata__', {}))
  except (OSError, ValueError, AttributeError):
    return {}


def _nested(path: str, arrays: Flat, separator: str) -> dict[str, Any]:
  for name in arrays:
    folder = name.rpartition(separator)[0]
    while folder:
      if folder in arrays:
        raise errors.UserError(f'{path}: {folder} is beside {name}')
      folder = folder.rpartition(separator)[0]
  nested: dict[str, Any] = traverse_util.unflatten_dict(arrays, sep=separator)
  return nested


def _read_checkpoint(path: str, folder: files.Path) -> tuple[Params, Stats]:
  """Reads the trained or averaged parameters of a saved `State`."""
  import orbax.checkpoint as ocp  # takes a second

  state = folder / 'state'
  if not state.is_dir():
    steps = [
      *folder.glob('[0-9]*/state'),
      *folder.glob('best/[0-9]*/state'),
      *folder.glob('seed_*/best/[0-9]*/state'),
    ]
    hint = f'did you mean {steps[0].parent}?' if steps else f'name one {_STEP}'
    raise errors.UserError(f'{path}: is not the folder of a checkpoint; {hint}')
  try:
    saved = ocp.PyTreeCheckpointHandler().metadata(files.absolute(state)).tree
    target = {'params': saved['params'], 'stats': saved['stats']}
    if _AVERAGE in saved['slots']:
      slots = {_AVERAGE: saved['slots'][_AVERAGE]}
      target = {'slots': slots, 'stats': saved['stats']}
    restored = ocp.PyTreeCheckpointer().restore(
      files.absolute(state),
      ocp.args.PyTreeRestore(
        item=target,
        restore_args=jax.tree.map(
          lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target
        ),
        partial_restore=True,
      ),
    )
  except Exception as error:  # orbax raises whatever its layers raise
    reason = (str(error).strip().splitlines() or [repr(error)])[0][:160]
    raise errors.UserError(f'{path}: cannot be read ({reason})') from error
  params = (
    restored['params'] if 'params' in restored else restored['slots'][_AVERAGE]
  )
  if set(params) == _PAIR:
    raise errors.UserError(
      f'{path}: holds two networks, a and b; write one of them to a file by '
      'nsl_jax.models.weights.write'
    )
  return params, restored['stats']


def write(
  path: str | files.Path,
  params: Params,
  stats: Stats,
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Writes the weights of a network to a `.safetensors` file.

  Args:
    path: of the file, which is written whole or not at all.
    params: nested dictionaries of arrays, as `Model.init` gives them.
    stats: the same of the batch-normalization statistics; {} for none.
    metadata: words to keep with them.

  Raises:
    errors.UserError: if the file cannot be written.
  """
  tree = dict(zip(_PARTS, (params, stats), strict=True))
  arrays = {
    # Of one block of memory, which is what safetensors reads.
    name: np.array(jax.device_get(value), order='C')
    for name, value in traverse_util.flatten_dict(tree, sep='/').items()
  }
  content = safetensors.numpy.save(arrays, metadata=dict(metadata or {}))
  files.write(files.path_of(path, 'the file'), content)


class _Fit(NamedTuple):
  """What of some weights a network takes.

  Attributes:
    values: by name.
    notes: warnings about the others.
  """

  values: Flat
  notes: list[str]


def start_from(
  model: Model,
  path: str,
  *,
  other_classes: Model | None = None,
  new_head: bool = False,
) -> Model:
  """The same network, whose initial weights are those of a file.

  Args:
    model: the network.
    path: see `read`. It is read at the first `init` or `notes`, not here.
    other_classes: the same network for another number of classes. The
      parameters whose shape differs between the two are its head: where the
      file has one of another number of classes, the head starts anew.
    new_head: whether it does so with the same number as well, since these are
      other classes.

  Returns:
    The network. Its `init` draws nothing at random but what starts anew, may be
    compiled, and returns new arrays at every call. `notes` says which
    parameters start anew, and whether the file lacks statistics.

  Raises:
    errors.UserError: by `init` and `notes`, in one line, if the file cannot be
      read, lacks a parameter, has one of another shape, or one that the network
      does not have.
  """

  @functools.cache
  def fit_of(image_shape: ImageShape) -> _Fit:
    try:
      values = _by_name(read(path))
    except errors.UserError as error:
      raise errors.UserError(f'{OPTION}={error}') from error
    shapes = _shapes(model, image_shape)
    heads = {}
    if other_classes is not None:
      heads = _head(shapes, _shapes(other_classes, image_shape))
    return _fit(f'{OPTION}={path}', values, shapes, heads, new_head)

  def init(key: Key, image_shape: ImageShape) -> tuple[Params, Stats]:
    values = fit_of(tuple(image_shape)).values
    like = _abstract(model, image_shape)
    if values.keys() != _by_name(like).keys():
      like = model.init(key, image_shape)

    def take(path: Any, leaf: Array) -> Array:
      name = _name(path)
      if name not in values:
        return leaf
      # A copy: the caller may donate it.
      return jnp.array(values[name], leaf.dtype, copy=True)

    trees = dict(zip(_PARTS, like, strict=True))
    trees = jax.tree_util.tree_map_with_path(take, trees)
    return trees['params'], trees['batch_stats']

  return model._replace(
    init=init, notes=lambda image_shape: fit_of(tuple(image_shape)).notes
  )


def _by_name(trees: tuple[Params, Stats]) -> dict[str, Any]:
  """Leaves of parameters and statistics by names such as `params/v`."""
  leaves = jax.tree_util.tree_leaves_with_path(
    dict(zip(_PARTS, trees, strict=True))
  )
  return {_name(path): leaf for path, leaf in leaves}


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _abstract(model: Model, image_shape: ImageShape) -> tuple[Params, Stats]:
  """Shapes and dtypes of the variables."""
  variables: tuple[Params, Stats] = jax.eval_shape(
    lambda key: model.init(key, image_shape), jax.eval_shape(jax.random.key, 0)
  )
  return variables


def _shapes(model: Model, image_shape: ImageShape) -> dict[str, Shape]:
  trees = _abstract(model, image_shape)
  return {name: leaf.shape for name, leaf in _by_name(trees).items()}


def _head(
  shapes: Mapping[str, Shape], other_shapes: Mapping[str, Shape]
) -> dict[str, tuple[int, ...]]:
  """Of what depends on the number of classes, the axes that do.

  The number of batches behind a statistic of the head is of the head too.
  """
  axes = {
    name: tuple(
      axis
      for axis, sizes in enumerate(zip(shape, other_shapes.get(name, shape)))
      if len(set(sizes)) > 1
    )
    for name, shape in shapes.items()
  }
  heads = {name: found for name, found in axes.items() if found}
  norms = {n.rpartition('/')[0] for n in heads if n.startswith('batch_stats/')}
  beside = {n: () for n in shapes if n.rpartition('/')[0] in norms}
  return beside | heads


def _text(shape: Shape) -> str:
  return 'x'.join(map(str, shape)) or 'a number'


def _fit(
  source: str,
  values: Flat,
  shapes: Mapping[str, Shape],
  heads: Mapping[str, tuple[int, ...]],
  new_head: bool,
) -> _Fit:
  """Which values a network takes.

  Raises:
    errors.UserError: naming what does not fit.
  """
  notes = []
  anew = [n for n in heads if _has_other_classes(values, shapes, heads, n)]
  without = not any(name.startswith('batch_stats/') for name in values)
  if without and any(name.startswith('batch_stats/') for name in shapes):
    notes.append(
      f'{source} has no batch_stats: those of the network start anew'
    )
    shapes = {n: s for n, s in shapes.items() if n.startswith('params/')}
  wrong = [*_misfits(values, shapes, anew)]
  if wrong:
    omitted = f' and {len(wrong) - _SHOWN} more' * (len(wrong) > _SHOWN)
    raise errors.UserError(f'{source}: {", ".join(wrong[:_SHOWN])}{omitted}')
  if anew:
    first = max(anew, key=lambda name: values[name].ndim)
    names = sorted(name for name in heads if name in shapes)
    notes.append(
      f'{source} has another number of classes ({first} is '
      f'{_text(values[first].shape)} there and {_text(shapes[first])} in the '
      f'network): {", ".join(names)} start anew'
    )
  reused = shapes.keys() - (heads.keys() if anew or new_head else set())
  return _Fit({name: values[name] for name in reused}, notes)


def _has_other_classes(
  values: Flat,
  shapes: Mapping[str, Shape],
  heads: Mapping[str, tuple[int, ...]],
  name: str,
) -> bool:
  """Whether the shapes differ in the number of classes and in nothing else."""
  if name not in values or values[name].ndim != len(shapes[name]):
    return False
  differ = {
    axis
    for axis, size in enumerate(shapes[name])
    if values[name].shape[axis] != size
  }
  return bool(differ) and differ <= set(heads[name])


def _misfits(
  values: Flat, shapes: Mapping[str, Shape], anew: list[str]
) -> Iterator[str]:
  for name, shape in shapes.items():
    if name not in values:
      yield f'{name} is not there'
    elif values[name].shape != shape and name not in anew:
      yield (
        f'{name} is {_text(values[name].shape)} there and {_text(shape)} in '
        'the network'
      )
  for name in sorted(values.keys() - shapes.keys()):
    yield f'{name} is not in the network'
