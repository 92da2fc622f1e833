"""The rows of every call of the compiled steps, and the images at them where
those are not on the device.
"""

import collections
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent import futures
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from nsl_jax.data import sampler
from nsl_jax.training import sharding as mesh_lib
from nsl_jax.training.train_step import IMAGES

_AHEAD = 2  # calls whose images are read while another one is computed

Item = TypeVar('Item')
Loaded = TypeVar('Loaded')


def rows_at(
  streams: Mapping[str, sampler.Stream],
  steps: range,
  mesh: Mesh,
  images: np.ndarray | None = None,
) -> dict[str, jax.Array]:
  """Rows of those steps on the devices, i32[number of steps, B] each.

  Args:
    streams: by name.
    steps: the steps.
    mesh: the devices.
    images: u8[N, H, W, C] on the host, whose images at the rows are added as
      u8[number of steps, B, H, W, C]; None where the devices have them.
  """
  stacked = {
    name: np.stack([stream(s) for s in steps])
    for name, stream in streams.items()
  }
  sharding = mesh_lib.batch_sharding(mesh, axis=1)
  indices = mesh_lib.put(stacked, sharding)
  if images is not None:
    indices |= {
      name + IMAGES: mesh_lib.put_rows(images, rows, sharding)
      for name, rows in stacked.items()
    }
  return indices


def calls(
  ranges: Iterable[range],
  streams: Mapping[str, sampler.Stream],
  mesh: Mesh,
  images: np.ndarray | None = None,
) -> Generator[tuple[range, dict[str, jax.Array]], None, None]:
  """The steps of every call with their rows; images are read ahead of time.

  Args:
    ranges: the steps of each call.
    streams: see `rows_at`.
    mesh: see `rows_at`.
    images: see `rows_at`.
  """

  def load(steps: range) -> dict[str, jax.Array]:
    return rows_at(streams, steps, mesh, images)

  if images is not None:
    yield from _read_ahead(ranges, load)
    return
  for steps in ranges:
    yield steps, load(steps)


def _read_ahead(
  items: Iterable[Item], load: Callable[[Item], Loaded]
) -> Generator[tuple[Item, Loaded], None, None]:
  """Each item and what is loaded for it, by a thread that is a few ahead."""
  waiting: collections.deque[tuple[Item, futures.Future[Loaded]]]
  waiting = collections.deque()
  with futures.ThreadPoolExecutor(1) as pool:
    for item in items:
      waiting.append((item, pool.submit(load, item)))
      if len(waiting) > _AHEAD:
        item, future = waiting.popleft()
        yield item, future.result()
    while waiting:
      item, future = waiting.popleft()
      yield item, future.result()
