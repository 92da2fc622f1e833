"""Devices: the mesh, its shardings, and what processes tell one another."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nsl_jax import errors

_AXIS = 'data'
Result = TypeVar('Result')


def make(devices: int = 0) -> Mesh:
  """A mesh of one axis over the first `devices` devices, or all for 0.

  Raises:
    errors.UserError: if there are fewer, or several processes would not use all
      of them.
  """
  if devices and jax.process_count() > 1:
    raise errors.UserError(
      f'config.devices={devices}: several processes use all their devices; '
      'set it to 0'
    )
  available = jax.devices()
  if devices > len(available):
    raise errors.UserError(
      f'config.devices={devices}, but only {len(available)} are there'
    )
  available = available[: devices or None]
  return jax.make_mesh(
    (len(available),), (_AXIS,), axis_types=(AxisType.Auto,), devices=available
  )


def replicated_sharding(mesh: Mesh) -> NamedSharding:
  """Sharding of arrays replicated on every device: state and data set."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
  """Sharding of an array that is divided over the devices along `axis`."""
  return NamedSharding(mesh, PartitionSpec(*(None,) * axis, _AXIS))


def check_batch(mesh: Mesh, sizes: Mapping[str, int]) -> None:
  """Raises a `UserError` unless the devices divide every size."""
  for name, size in sizes.items():
    if size % mesh.size:
      raise errors.UserError(
        f'{name}={size} does not divide over {mesh.size} devices: change it '
        'or set --config.devices'
      )


def put(tree: Any, sharding: NamedSharding) -> Any:
  """Moves host arrays, equal in every process, to the devices."""
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)

  def spread(array: Any) -> jax.Array:
    array = np.asarray(array)
    return jax.make_array_from_callback(
      array.shape, sharding, lambda index: array[index]
    )

  return jax.tree.map(spread, tree)


def put_rows(
  images: Any, rows: np.ndarray, sharding: NamedSharding
) -> jax.Array:
  """Moves images at those rows to the devices; each process reads its own.

  Args:
    images: [N, H, W, C] on the host.
    rows: i32[B] or i32[S, B], equal in every process; -1 is an image of zeros.
    sharding: of the result, [B, H, W, C] or [S, B, H, W, C].
  """

  def part(index: Any) -> Any:
    wanted = rows[index[: rows.ndim]]
    found = images[wanted]
    if (wanted < 0).any():
      found[wanted < 0] = 0
    return found

  if jax.process_count() == 1:
    return jax.device_put(part(()), sharding)
  shape = (*rows.shape, *images.shape[1:])
  return jax.make_array_from_callback(shape, sharding, part)


def broadcast_from_first_process(tree: Any) -> Any:
  """The host arrays of process 0, in every process.

  Values that each process computes may differ in the last bit between types of
  processors.
  """
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(tree)


def process_max(number: int) -> int:
  """The maximum over processes; all of them must call this."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.process_allgather(np.int32(number)).max())


def check_same(content: Callable[[], bytes], what: str) -> None:
  """Makes sure that all processes have the same; all must call this.

  `multihost_utils.assert_equal` raises only in processes that differ, so that
  the others would wait for them.

  Args:
    content: returns what must be the same; not called in a single process.
    what: its name in the message.

  Raises:
    errors.UserError: in every process, if one has another.
  """
  if jax.process_count() == 1:
    return
  digest = hashlib.sha256(content()).digest()
  of_all = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
  others = np.flatnonzero((of_all != of_all[0]).any(1))
  if len(others):
    raise errors.UserError(
      f'process {others[0]} has {what} than process 0: give all processes the '
      'same command and the same data'
    )


def in_first_process(body: Callable[[], Result], what: str) -> Result | None:
  """Calls `body` in process 0 alone; all processes must call this.

  What only process 0 can see, such as a file that it cannot write, ends all
  processes in the same way: one that ended alone would look like a lost one,
  which a scheduler restarts.

  Args:
    body: what to do.
    what: a text for the message of the others, 'process 0 cannot ...'.

  Returns:
    The result of `body`, in process 0.

  Raises:
    errors.UserError, errors.WriteError: if `body` does; in every process.
  """
  if not jax.distributed.is_initialized():
    return body()
  kinds = (errors.UserError, errors.WriteError)
  result, failed = None, None
  if jax.process_index() == 0:
    try:
      result = body()
    except kinds as error:
      failed = error
  number = [isinstance(failed, kind) for kind in kinds]
  kind = process_max(1 + number.index(True) if failed else 0)
  if failed:
    raise failed
  if kind:
    raise kinds[kind - 1](f'process 0 cannot {what}: see what it says')
  return result


def sync_processes(name: str) -> None:
  """Waits for all processes."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def block_until_ready(result: Any) -> Any:
  """Waits for a result of several CPU devices; does nothing on other devices.

  CPU devices share the threads of one host: programs in flight may hold threads
  that the collective operations of another need, which is a deadlock.
  """
  shared = len(jax.tree.leaves(result)[0].sharding.device_set) > 1
  if shared and jax.default_backend() == 'cpu':
    jax.block_until_ready(result)
  return result
