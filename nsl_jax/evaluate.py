"""Exact errors over a whole split: padded, masked, counted."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nsl_jax import losses, mesh as mesh_lib
from nsl_jax.train import Normalise
from nsl_jax.types import Array, Method, State


class Batches(NamedTuple):
  """A split on the device, cut into equal batches.

  Attributes:
    batches: `(images u8[B, H, W, C], labels i32[B])` each; label -1 is
      padding.
    size: number of real images.
  """

  batches: list[tuple[Array, Array]]
  size: int


def on_device(
    images: np.ndarray, labels: np.ndarray, batch: int, mesh: Mesh
) -> Batches:
  """Pads to whole batches, which are divided over the devices."""
  count = len(images)
  batch = min(batch, count)
  batch += -batch % mesh.size
  short = -count % batch
  images = np.concatenate([images, np.zeros_like(images[:1]).repeat(short, 0)])
  labels = np.concatenate([labels, np.full(short, -1, labels.dtype)])
  sharding = mesh_lib.split(mesh)
  cuts = [slice(at, at + batch) for at in range(0, len(images), batch)]
  pairs = [mesh_lib.put((images[c], labels[c]), sharding) for c in cuts]
  return Batches(pairs, count)


def make_evaluate(
    method: Method, normalise: Normalise
) -> Callable[[State, Array, Batches], dict[str, float]]:
  """A function `(state, fitted, split) -> {'error', 'cross_entropy'}`.

  The error is the percentage of images whose largest logit is not that of
  their class; the cross-entropy is in nats per image.
  """
  @jax.jit
  def count(state, fitted, images, labels):
    logits = method.predict(state, normalise(fitted, images))
    real = labels >= 0
    wrong = real & (jnp.argmax(logits, axis=-1) != labels)
    nats = losses.cross_entropy(logits, jnp.maximum(labels, 0))
    return wrong.sum(), jnp.where(real, nats, 0.0).sum()

  def evaluate(state: State, fitted, split: Batches) -> dict[str, float]:
    sums = [
        mesh_lib.settle(count(state, fitted, *batch))
        for batch in split.batches
    ]
    wrong, nats = np.asarray(jax.device_get(sums), np.float64).sum(axis=0)
    return {
        'error': 100.0 * float(wrong) / split.size,
        'cross_entropy': float(nats) / split.size,
    }

  return evaluate
