"""Devices: the mesh, its shardings, and joining several processes."""

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
  """Calls `jax.distributed.initialize` where there are several processes.

  With flags it uses them; without, it starts by itself on a TPU pod and in a
  Slurm job of several tasks. Must run before anything touches a device.

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
  # A Cloud TPU tells its neighbors through a metadata server, not through the
  # environment, so every TPU host asks; a lone one finds itself alone.
  if importlib.util.find_spec('libtpu') is None:
    return False
  return bool(glob.glob('/dev/accel*') or glob.glob('/dev/vfio/[0-9]*'))


def make(devices: int = 0) -> Mesh:
  """A mesh of one axis over the first `devices` devices, or all for 0.

  Raises:
    errors.UserError: if there are fewer, or several processes would share
      out less than all.
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
  """Sharding of what every device holds whole: state and data set."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
  """Sharding of an array whose `axis` is divided over the devices."""
  return NamedSharding(mesh, PartitionSpec(*(None,) * axis, _AXIS))


def check_batch(mesh: Mesh, sizes: Mapping[str, int]) -> None:
  """Raises a `UserError` unless every size divides over the devices."""
  for name, size in sizes.items():
    if size % mesh.size:
      raise errors.UserError(
        f'{name}={size} does not divide over {mesh.size} devices: change it '
        'or set --config.devices'
      )


def put(tree: Any, sharding: NamedSharding) -> Any:
  """Moves host arrays to the devices; every process holds the same ones."""
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)

  def spread(array: Any) -> jax.Array:
    array = np.asarray(array)
    return jax.make_array_from_callback(
      array.shape, sharding, lambda index: array[index]
    )

  return jax.tree.map(spread, tree)


def broadcast_from_first_process(tree: Any) -> Any:
  """Process 0's host arrays, in every process.

  What each computes by itself may differ in the last bit from one kind of
  processor to the next.
  """
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(tree)


def process_max(number: int) -> int:
  """The largest of the numbers that the processes give; all must call."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.process_allgather(np.int32(number)).max())


def sync_processes(where: str) -> None:
  """Waits until every process is here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(where)


def block_until_ready(result: Any) -> Any:
  """Waits for a result that several CPU devices compute together.

  They share the threads of one host: with many programs under way each may
  hold threads that another needs for all its devices to meet, for ever.
  Elsewhere nothing is waited for.
  """
  shared = len(jax.tree.leaves(result)[0].sharding.device_set) > 1
  if shared and jax.default_backend() == 'cpu':
    jax.block_until_ready(result)
  return result
