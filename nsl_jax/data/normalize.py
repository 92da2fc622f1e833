"""uint8 images, or float32 features -> float32 inputs; what is fitted is fitted
on training data.
"""

import math
import os
import sys
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from nsl_jax import errors
from nsl_jax.data import cache, on_demand
from nsl_jax.types import Array

KINDS = ('unit', 'signed', 'standard', 'gcn_zca')  # of images
OF_FEATURES = ('unit', 'standard', 'common')
_NORM = 55.0  # of every image after global contrast normalization
_REGULARISER = 0.1  # added to the diagonal of the covariance
_MATRICES = 7  # number of float64 matrices in memory during the fit
_ROWS = 5000  # images per block; bounds the memory
_VERSION = 1  # of the whitening; change it when cached ones become invalid


def contrast(images):
  """Global contrast normalization: mean 0 and L2 norm 55 per image.

  Args:
    images: [B, ...] of any dtype, numpy or jax.

  Returns:
    f32[B, D], numpy or jax like `images`; 0 for an image without contrast.
  """
  xp = np if isinstance(images, np.ndarray) else jnp
  width = math.prod(images.shape[1:])  # -1 fails without rows
  flat = images.reshape(images.shape[0], width).astype(xp.float32)
  flat = flat - flat.mean(axis=1, keepdims=True)
  norm = xp.sqrt((flat**2).sum(axis=1, keepdims=True))
  return flat * (_NORM / xp.where(norm < 1e-10, 1.0, norm))


def whitening(images: np.ndarray) -> dict[str, np.ndarray]:
  """ZCA whitening fitted on contrast-normalized images (family O).

  Args:
    images: u8[N, H, W, C], all training images, validation included.

  Returns:
    mean f32[D] and matrix f32[D, D], the symmetric inverse root of the
    covariance (N - 1) plus 0.1 on its diagonal.
  """
  import scipy.linalg  # takes a third of a second

  total = np.zeros(int(np.prod(images.shape[1:])))
  second = np.zeros((total.size, total.size))
  for start in range(0, len(images), _ROWS):
    flat = contrast(images[start : start + _ROWS]).astype(np.float64)
    total += flat.sum(0)
    second += flat.T @ flat
  mean = total / len(images)
  covariance = (second - len(images) * np.outer(mean, mean)) / (len(images) - 1)
  values, vectors = scipy.linalg.eigh(
    covariance + _REGULARISER * np.eye(total.size),
    driver='evd',
    overwrite_a=True,
  )
  matrix = (vectors / np.sqrt(values + 1e-10)) @ vectors.T
  return {'mean': mean.astype(np.float32), 'matrix': matrix.astype(np.float32)}


def _check_memory(image_shape: tuple[int, ...]) -> None:
  """Raises UserError if the matrices of `whitening` do not fit in memory."""
  size = math.prod(image_shape)
  needed = _MATRICES * 8 * size**2
  if not hasattr(os, 'sysconf'):
    return  # not available on Windows
  physical = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if needed > physical:
    sides = 'x'.join(map(str, image_shape))
    raise errors.UserError(
      f'config.data.normalize=gcn_zca of {sides} images fits a matrix of '
      f'{size:,} x {size:,}, which needs {needed / 2**30:,.0f} GiB of memory, '
      f'not {physical / 2**30:,.0f} GiB: use standard, or smaller images'
    )


def _cached_whitening(
  images: np.ndarray, cache_dir: str | None
) -> dict[str, np.ndarray]:
  """`whitening`, from the cache if these images were fitted before."""
  _check_memory(images.shape[1:])
  facts = repr((_VERSION, _NORM, _REGULARISER, images.shape))
  key = cache.digest(facts.encode(), [images])

  def make() -> cache.ArrayPair:
    description = f'the whitening matrix of {len(images):,} images'
    print(f'fitting {description}, once ...', file=sys.stderr, flush=True)
    fitted = whitening(images)
    return fitted['mean'], fitted['matrix']

  path = cache.directory(cache_dir) / f'whitening-{key[:12]}.arrays'
  mean, matrix = cache.fetch(path, key, make)
  return {'mean': mean, 'matrix': matrix}


def fit(
  kind: str, images: np.ndarray, *, cache_dir: str | None = None
) -> dict[str, np.ndarray]:
  """The arrays that `apply` needs for a kind of normalization.

  Args:
    kind: `unit` ([0, 1]), `signed` ([-1, 1]), `standard` (mean 0 and standard
      deviation 1 per channel; a constant channel becomes 0) or `gcn_zca`. Of
      features `common` has mean 0 each and one scale for all.
    images: u8[N, H, W, C], all training images, or f32[N, 1, 1, D] features,
      whose channels are the features.
    cache_dir: folder of fitted whitenings; None for the default of `cache`.

  Raises:
    errors.UserError: for another kind, or one that is not for features.
  """
  of_images = images.dtype == np.uint8
  kinds = KINDS if of_images else OF_FEATURES
  if kind not in kinds:
    hint = errors.did_you_mean(kind, kinds)
    kind_of_input = 'images' if of_images else 'features'
    raise errors.UserError(
      f'config.data.normalize={kind!r}: is not for {kind_of_input}; {hint}'
    )
  if not of_images:
    return _fit_features(kind, images)
  if kind == 'gcn_zca':
    if isinstance(images, on_demand.Images):
      raise errors.UserError(
        'config.data.normalize=gcn_zca reads all images in every process: use '
        'standard for a folder with several processes'
      )
    return _cached_whitening(images, cache_dir)
  if kind == 'standard':
    counts = _counts(images)
    levels = np.arange(256) / 255.0
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ levels
    variance = share @ levels**2 - mean**2
    std = np.sqrt(np.where(variance < 1e-14, 1.0, variance))
    return {'mean': mean.astype(np.float32), 'std': std.astype(np.float32)}
  return {}


def _counts(images: np.ndarray | on_demand.Images) -> np.ndarray:
  """Histogram of levels per channel of all images, i64[C, 256]."""
  if isinstance(images, on_demand.Images) and images.histogram is not None:
    return images.histogram
  counts = np.zeros((images.shape[-1], 256), np.int64)
  for start in range(0, len(images), _ROWS):
    counts += on_demand.levels(np.asarray(images[start : start + _ROWS]))
  return counts


def _fit_features(kind: str, features: np.ndarray) -> dict[str, np.ndarray]:
  if kind == 'unit':
    return {}
  mean = features.mean((0, 1, 2), dtype=np.float64)
  std = features.std((0, 1, 2), dtype=np.float64)
  if kind == 'common':
    std = np.full_like(std, np.sqrt(np.mean(std**2)))
  std = np.where(is_constant(features, std), 1.0, std)
  return {'mean': mean.astype(np.float32), 'std': std.astype(np.float32)}


def is_constant(features: np.ndarray, std: np.ndarray) -> np.ndarray:
  """bool[D]: whether a feature varies by no more than its rounding errors.

  Args:
    features: f32[N, 1, 1, D].
    std: f64[D], their standard deviations.
  """
  largest = np.maximum(features.max((0, 1, 2)), -features.min((0, 1, 2)))
  constant: np.ndarray = std <= 1e-7 * largest
  return constant


def from_unit(kind: str, fitted: Mapping[str, Array], unit: Array) -> Array:
  """f32[B, H, W, C] in [0, 1] -> normalized, with arrays of `fit`.

  Raises:
    errors.UserError: for `gcn_zca`, which removes the contrast.
  """
  _refuse_whitening(kind)
  if kind == 'signed':
    return unit * 2.0 - 1.0
  if kind in ('standard', 'common'):
    mean, std = _of_channels(fitted)
    return (unit - mean) / std
  return unit


def invert(kind: str, fitted: Mapping[str, Array], images: Array) -> Array:
  """The inverse of `from_unit`: images in [0, 1] from f32[B, H, W, C].

  Raises:
    errors.UserError: for `gcn_zca`, which removes the contrast.
  """
  _refuse_whitening(kind)
  if kind == 'signed':
    return (images + 1.0) / 2.0
  if kind in ('standard', 'common'):
    mean, std = _of_channels(fitted)
    return images * std + mean
  return images


def _refuse_whitening(kind: str) -> None:
  if kind == 'gcn_zca':
    raise errors.UserError(
      'config.data.normalize=gcn_zca cannot be undone, which jitter, '
      'randaugment and cutout require: use unit, signed or standard'
    )


def _of_channels(fitted: Mapping[str, Array]) -> tuple[Array, Array]:
  """Mean and standard deviation, f32[1, 1, 1, C]."""
  mean, std = (fitted[k].reshape((1, 1, 1, -1)) for k in ('mean', 'std'))
  return mean, std


def apply(kind: str, fitted: Mapping[str, Array], images: Array) -> Array:
  """u8[B, H, W, C] or f32[B, 1, 1, D] -> f32 of that shape, by arrays from
  `fit`.
  """
  if images.dtype != jnp.uint8:
    return from_unit(kind, fitted, images)
  if kind == 'gcn_zca':
    flat = contrast(images) - fitted['mean'][None]
    white = jnp.matmul(flat, fitted['matrix'], precision='highest')
    return white.reshape(images.shape)
  return from_unit(kind, fitted, images.astype(jnp.float32) / 255.0)
