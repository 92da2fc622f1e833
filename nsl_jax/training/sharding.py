"""Devices: the mesh, its shardings, and the setup of several processes."""

import glob
import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nsl_jax import errors

_AXIS = 'data'


def join(
  coordinator: str | None, processes: int | None, index: int | None
) -> None:
  """Calls `jax.distributed.initialize` for several processes.

  Uses the flags if given; without them it starts automatically on a TPU pod and
  in a Slurm job of several tasks. Must run before any use of a device.

  Raises:
    errors.UserError: if only some of the three are given.
  """
  given = [value is not None for value in (coordinator, processes, index)]
  if all(given):
    jax.distributed.initialize(coordinator, processes, index)
  elif any(given):
    raise errors.UserError(
      'give all of --coordinator_address, --num_processes and --process_id, '
      'or none of them'
    )
  elif _on_cluster():
    jax.distributed.initialize()


def _on_cluster() -> bool:
  tasks = os.environ.get('SLURM_NTASKS', '1')
  in_step = 'SLURM_STEP_NODELIST' in os.environ
  if in_step and tasks.isdigit() and int(tasks) > 1:
    return True
  # A Cloud TPU lists its hosts in a metadata server, not in the environment, so
  # every TPU host must ask.
  if importlib.util.find_spec('libtpu') is None:
    return False
  return bool(glob.glob('/dev/accel*') or glob.glob('/dev/vfio/[0-9]*'))


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
  found = jax.devices()
  if devices > len(found):
    raise errors.UserError(
      f'config.devices={devices}, but only {len(found)} are there'
    )
  found = found[: devices or None]
  return jax.make_mesh(
    (len(found),), (_AXIS,), axis_types=(AxisType.Auto,), devices=found
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


def sync_processes(where: str) -> None:
  """Waits for all processes."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(where)


def block_until_ready(result: Any) -> Any:
  """Waits for a result of several CPU devices; does nothing on other devices.

  CPU devices share the threads of one host: programs in flight may hold threads
  that the collective operations of another need, which is a deadlock.
  """
  shared = len(jax.tree.leaves(result)[0].sharding.device_set) > 1
  if shared and jax.default_backend() == 'cpu':
    jax.block_until_ready(result)
  return result
