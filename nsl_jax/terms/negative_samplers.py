"""Samplers of negative labels: NS3L's threshold and the alternatives of Table 6
(Chen, Shah & Kyrillidis 2020, https://arxiv.org/abs/1911.05166).

A sampler maps (probabilities, per-image tables, key) to a mask bool[N, K]. It
redraws at every step, without replacement; the paper states neither (F-N17).
"""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from nsl_jax import errors, losses, options
from nsl_jax.types import Array, Key

Sampler = Callable[[Array, Mapping[str, Array], Key], Array]

# Per-image tables (see types.Data) that a sampler may read.
DISTANCE = 'class_distance'  # f32[N, K], see class_distances
TRUE_CLASS = 'true_class'  # i32[N], read by the oracle only


def _smallest(values: Array, count: int) -> Array:
  """Mask of the `count` smallest values of each row, bool[N, K]."""
  return jnp.argsort(jnp.argsort(values, axis=-1), axis=-1) < count


def random_subset(key: Key, allowed: Array, size: int) -> Array:
  """`size` classes per row, uniform over the allowed ones.

  Args:
    key: typed key.
    allowed: bool[N, K]; every row allows at least `size` classes.
    size: number of classes to draw, without replacement.

  Returns:
    bool[N, K] with `size` true values per row.
  """
  chex.assert_rank(allowed, 2)
  noise = jax.random.uniform(key, allowed.shape)
  return _smallest(jnp.where(allowed, noise, 2.0), size)


def weighted_subset(key: Key, negative_logits: Array, size: int) -> Array:
  """`size` classes per row, drawn in proportion to weights without replacement
  (Gumbel top-m). DNLL's released code draws with replacement, which may give
  fewer than m distinct labels (F-D8).

  Args:
    key: typed key.
    negative_logits: f32[N, K], unnormalized log weights; -inf excludes a class.
      Every row has at least `size` finite ones.
    size: number of draws, m.

  Returns:
    bool[N, K].
  """
  chex.assert_rank(negative_logits, 2)
  noise = jax.random.gumbel(key, negative_logits.shape, negative_logits.dtype)
  return _smallest(-(negative_logits + noise), size)


def _check_count(count: int, room: int) -> None:
  """Raises UserError unless every row has enough classes to draw from."""
  if not 1 <= count <= room:
    raise errors.UserError(
      f'count={count} negatives cannot be drawn: set 1 to {room}'
    )


def nearest_classes(distance: Array, count: int) -> Array:
  """The `count` classes with the nearest labeled images, bool[N, K]."""
  return _smallest(distance, count)


@options.declare(threshold='(0, 1]')
def threshold_sampler(*, threshold: float | None = None) -> Sampler:
  """NS3L's rule: every class less probable than `threshold`.

  Args:
    threshold: T; None for 0.4 / K, which is the paper's 0.04 of ten classes and
      0.004 of a hundred. Above 1 / K all classes but the most probable one may
      be negative labels.

  >>> sample = threshold_sampler(threshold=0.15)
  >>> sample(jnp.array([[0.7, 0.2, 0.1]]), {}, jax.random.key(0))
  Array([[False, False,  True]], dtype=bool)
  """

  def sample(probs: Array, tables: Mapping[str, Array], key: Key) -> Array:
    limit = 0.4 / probs.shape[-1] if threshold is None else threshold
    return losses.below_threshold(probs, limit)

  return sample


@options.declare(count='>= 1')
def uniform_sampler(*, count: int = 1) -> Sampler:
  """`count` classes uniform over all K, the true one included.

  >>> sample = uniform_sampler(count=2)
  >>> int(sample(jnp.full((1, 5), 0.2), {}, jax.random.key(0)).sum())
  2
  """

  def sample(probs: Array, tables: Mapping[str, Array], key: Key) -> Array:
    _check_count(count, probs.shape[-1] - 1)
    return random_subset(key, jnp.ones(probs.shape, bool), count)

  return sample


@options.declare(exclude='>= 0', count='>= 1')
def exclude_nearest_sampler(*, exclude: int = 4, count: int = 1) -> Sampler:
  """`count` classes uniform over all but the `exclude` nearest ones.

  >>> sample = exclude_nearest_sampler(exclude=2, count=1)
  >>> distance = {DISTANCE: jnp.array([[0.1, 0.2, 0.9]])}
  >>> sample(jnp.full((1, 3), 0.3), distance, jax.random.key(0))
  Array([[False, False,  True]], dtype=bool)
  """

  def sample(probs: Array, tables: Mapping[str, Array], key: Key) -> Array:
    classes = probs.shape[-1]
    if exclude >= classes:
      raise errors.UserError(
        f'exclude={exclude} leaves none of {classes} classes: set exclude to '
        f'at most {classes - 1}'
      )
    _check_count(count, classes - max(exclude, 1))
    near = nearest_classes(tables[DISTANCE], exclude)
    return random_subset(key, ~near, count)

  return sample


def furthest_sampler() -> Sampler:
  """The class whose nearest labeled image is furthest away.

  >>> distance = {DISTANCE: jnp.array([[0.1, 0.9, 0.2]])}
  >>> furthest_sampler()(jnp.full((1, 3), 0.3), distance, jax.random.key(0))
  Array([[False,  True, False]], dtype=bool)
  """

  def sample(probs: Array, tables: Mapping[str, Array], key: Key) -> Array:
    furthest = jnp.argmax(tables[DISTANCE], axis=-1)
    return jax.nn.one_hot(furthest, probs.shape[-1], dtype=bool)

  return sample


@options.declare(count='>= 1')
def oracle_sampler(*, count: int = 1) -> Sampler:
  """`count` classes uniform over the K - 1 wrong ones.

  >>> true = {TRUE_CLASS: jnp.array([0])}
  >>> oracle_sampler(count=2)(jnp.ones((1, 3)), true, jax.random.key(0))
  Array([[False,  True,  True]], dtype=bool)
  """

  def sample(probs: Array, tables: Mapping[str, Array], key: Key) -> Array:
    _check_count(count, probs.shape[-1] - 1)
    true = jax.nn.one_hot(tables[TRUE_CLASS], probs.shape[-1], dtype=bool)
    return random_subset(key, ~true, count)

  return sample


_SAMPLERS: dict[str, tuple[Callable[..., Sampler], tuple[str, ...]]] = {
  'threshold': (threshold_sampler, ()),
  'uniform': (uniform_sampler, ()),
  'exclude_nearest': (exclude_nearest_sampler, (DISTANCE,)),
  'furthest': (furthest_sampler, (DISTANCE,)),
  'oracle': (oracle_sampler, (TRUE_CLASS,)),
}


NAMES = tuple(_SAMPLERS)


def find(name: str) -> Callable[..., Sampler]:
  """The function that builds the sampler of this name."""
  return _entry(name)[0]


def _entry(name: str) -> tuple[Callable[..., Sampler], tuple[str, ...]]:
  if name not in _SAMPLERS:
    raise errors.UserError(
      f'unknown sampler {name!r}: {errors.did_you_mean(name, _SAMPLERS)}'
    )
  return _SAMPLERS[name]


def build(name: str, **fields: Any) -> Sampler:
  """The sampler of this name with the options `fields`."""
  sampler: Sampler = options.call(find(name), f'sampler {name!r}', **fields)
  return sampler


def per_image_tables(name: str) -> tuple[str, ...]:
  """Names of the per-image tables that a sampler reads."""
  return _entry(name)[1]


def class_distances(
  images: np.ndarray,
  reference: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  *,
  rows: int = 4096,
) -> np.ndarray:
  """Distance from every image to the nearest labeled image of every class.

  Args:
    images: u8[N, H, W, C], or features f32[N, 1, 1, F].
    reference: u8[M, H, W, C] or f32[M, 1, 1, F], labeled images.
    labels: i32[M], classes of `reference`.
    num_classes: K.
    rows: images per block; bounds the memory.

  Returns:
    f32[N, K], smallest squared L2 distance of raw pixels scaled to [0, 1];
    infinite for a class without a labeled image.
  """
  order = np.argsort(labels, kind='stable')
  cuts = np.searchsorted(labels[order], np.arange(1, num_classes))
  of_pixels = reference.dtype == np.uint8
  # Features may lie far from 0, where the products below would cancel.
  offset = 0.0 if of_pixels else reference.mean(0, dtype=np.float64)

  def near_zero(rows: np.ndarray) -> np.ndarray:
    return rows if of_pixels else (rows - offset).astype(np.float32)

  flat = near_zero(reference[order]).reshape(len(reference), -1) / 255.0
  center = jnp.asarray(flat).astype(jnp.float32)

  @jax.jit
  def squared(block: Array) -> Array:
    flat = block.reshape(block.shape[0], -1).astype(jnp.float32) / 255.0
    cross = jnp.matmul(flat, center.T, precision='highest')
    norms = (flat**2).sum(-1)[:, None] + (center**2).sum(-1)[None]
    return jnp.maximum(norms - 2.0 * cross, 0.0)

  blocks = []
  for start in range(0, len(images), rows):
    distance = np.asarray(squared(near_zero(images[start : start + rows])))
    per_class = np.split(distance, cuts, axis=1)
    nearest = [d.min(axis=1, initial=np.inf) for d in per_class]
    blocks.append(np.stack(nearest, axis=1))
  return np.concatenate(blocks).astype(np.float32)
