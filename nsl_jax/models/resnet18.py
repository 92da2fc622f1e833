"""The standard residual network of eighteen layers, for larger images."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import errors, options
from nsl_jax.models import layers
from nsl_jax.types import Array, Outputs

_STAGES = (64, 128, 256, 512)
_BLOCKS = 2  # of every stage
_GROUPS = 32
_EPSILON = 1e-5
_LEAST = {'imagenet': 32, 'small': 8}  # side that leaves a map of 1x1
_FAN_OUT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
_OPTIONS = ('width', 'norm', 'stem')


def groups_of(filters: int) -> int:
  """Number of groups of a norm: 32, or as many of two filters or more as there
  are.

  >>> groups_of(512), groups_of(64), groups_of(24), groups_of(1)
  (32, 32, 12, 1)
  """
  most = max(1, min(_GROUPS, filters // 2))
  return next(n for n in range(most, 0, -1) if filters % n == 0)


@options.declare(width='> 0', norm=('group', 'batch'), stem=tuple(_LEAST))
class ResNet18(nn.Module):
  """Post-activation residual network for images of 64 to 224 pixels.

  A 7x7 convolution and a 3x3 max-pool, each of stride 2, four stages of two
  basic blocks, and mean pool (He et al. 2016, table 1). A block that changes
  the shape has a 1x1 convolution on its shortcut. No convolution has a bias;
  they start He-normal by fan-out, and the last scale of every block at zero
  (Goyal et al. 2017, section 5.1). With batch normalization 224x224 images of
  1,000 classes make 11,689,512 parameters.

  Attributes:
    num_classes: K.
    width: factor on the number of filters, 64 to 512.
    norm: group (32 groups, fewer where there are less than 64 filters) or
      batch. The first is the same for labeled and unlabeled images, teachers
      and evaluation, and not noisy in the small batches that large images
      leave room for (Wu & He 2018).
    stem: imagenet, or small for images of up to 64 pixels, a 3x3 convolution
      of stride 1 without a pool.
    dtype: of the computation; parameters and outputs are float32.
  """

  num_classes: int
  width: float = 1.0
  norm: str = 'group'
  stem: str = 'imagenet'
  dtype: Any = jnp.float32

  def _check(self, images: Array) -> None:
    """Raises UserError where a field or the image size has no meaning."""
    values = {name: getattr(self, name) for name in _OPTIONS}
    options.check(ResNet18, values, 'resnet18: ')
    min_size = _LEAST[self.stem]
    height, width = images.shape[1:3]
    if min(height, width) < min_size:
      alternative = 'stem=small' if self.stem == 'imagenet' else 'small_cnn'
      raise errors.UserError(
        f'resnet18 with stem={self.stem} needs images of at least '
        f'{min_size}x{min_size} pixels, not {height}x{width}; use {alternative}'
      )

  def _norm(self, x: Array, train: bool, *, last: bool = False) -> Array:
    """Normalization, f[B, H, W, C] -> f[B, H, W, C].

    Args:
      x: the map.
      train: whether batch normalization uses the batch.
      last: of its block, whose scale starts at zero.
    """
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    scale_init = zeros if last else ones
    if self.norm == 'batch':
      return layers.batch_norm(
        x, train=train, momentum=0.9, epsilon=_EPSILON, scale_init=scale_init
      )
    y: Array = nn.GroupNorm(
      groups_of(x.shape[-1]),
      epsilon=_EPSILON,
      scale_init=scale_init,
      dtype=self.dtype,
    )(x)
    return y

  def _conv(self, x: Array, filters: int, size: int, *, stride: int) -> Array:
    """Convolution padded by size // 2, f[B, H, W, C] -> f[B, H', W', filters].

    H' = ceil(H / stride). The padding is the same on both sides, as SAME is
    not where the stride is 2.
    """
    return nn.Conv(
      filters,
      (size, size),
      (stride, stride),
      padding=size // 2,
      use_bias=False,
      kernel_init=_FAN_OUT,
      dtype=self.dtype,
    )(x)

  def _block(
    self, x: Array, filters: int, train: bool, *, stride: int
  ) -> Array:
    """f[B, H, W, C] -> f[B, ceil(H / stride), ceil(W / stride), filters]."""
    h = self._conv(x, filters, 3, stride=stride)
    h = nn.relu(self._norm(h, train))
    h = self._norm(self._conv(h, filters, 3, stride=1), train, last=True)
    if stride > 1 or x.shape[-1] != filters:
      x = self._norm(self._conv(x, filters, 1, stride=stride), train)
    return nn.relu(x + h)

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Outputs:
    """Maps images f32[B, H, W, C] to Outputs, D = 512 width.

    Raises:
      UserError: a field or the image size has no meaning.
    """
    self._check(images)
    counts = [max(1, round(self.width * count)) for count in _STAGES]
    size, stride = (7, 2) if self.stem == 'imagenet' else (3, 1)
    x = self._conv(images.astype(self.dtype), counts[0], size, stride=stride)
    x = nn.relu(self._norm(x, train))
    if self.stem == 'imagenet':
      x = layers.max_pool_3x3(x)
    for stage, filters in enumerate(counts):
      for block in range(_BLOCKS):
        x = self._block(
          x, filters, train, stride=2 if stage and not block else 1
        )
    features = layers.global_mean(x)
    logits = nn.Dense(
      self.num_classes, kernel_init=nn.initializers.glorot_normal()
    )(features)
    return Outputs(logits, features, logits)
