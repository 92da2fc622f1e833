"""ResNet26, the residual network of L2I's Tiny-ImageNet experiment (Li, Foo &
Bilen 2020, https://arxiv.org/abs/1912.10364).
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import errors
from nsl_jax.models import layers
from nsl_jax.types import Array, Outputs

_STEM = 32
_STAGES = (64, 128, 256)
_FAN_OUT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class ResNet26(nn.Module):
  """Post-activation residual network without parameters on its shortcuts.

  A stem of 32 filters with batch norm, three stages of basic blocks with 64,
  128 and 256 filters, each of which halves the map, then batch norm, ReLU and
  mean pool (Rebuffi et al. 2017). No convolution has a bias. L2I does not state
  the input size; with 64x64 images and 200 classes it has 5,866,088 parameters
  (F-L12).

  Attributes:
    num_classes: K.
    width: factor on the number of filters, 32 to 256.
    blocks: blocks per stage.
    dtype: dtype of the computation; parameters and outputs are float32.
  """

  num_classes: int
  width: float = 1.0
  blocks: int = 4
  dtype: Any = jnp.float32

  def _check(self, images: Array) -> None:
    """Raises UserError if a field or the image size is invalid."""
    if not self.width > 0:
      raise errors.UserError(
        f'resnet26: width must be positive, not {self.width!r}'
      )
    if self.blocks < 1:
      raise errors.UserError(
        f'resnet26: blocks must be at least 1, not {self.blocks!r}'
      )
    height, width = images.shape[1:3]
    if height % 8 or width % 8:
      raise errors.UserError(
        'resnet26 halves its map three times: give it images whose sides '
        f'are multiples of 8, not {height}x{width}'
      )

  def _filters(self, count: int) -> int:
    return max(1, round(self.width * count))

  def _conv(
    self, x: Array, filters: int, train: bool, *, stride: int = 1
  ) -> Array:
    """Convolution and batch norm, f[B, H, W, C] -> f[B, H/s, W/s, C']."""
    x = nn.Conv(
      filters,
      (3, 3),
      (stride, stride),
      use_bias=False,
      kernel_init=_FAN_OUT,
      dtype=self.dtype,
    )(x)
    return self._norm(x, train)

  def _norm(self, x: Array, train: bool) -> Array:
    return layers.batch_norm(x, train=train, momentum=0.9, epsilon=1e-5)

  def _block(
    self, x: Array, filters: int, train: bool, *, stride: int
  ) -> Array:
    """f[B, H, W, C] -> f[B, H / stride, W / stride, filters]."""
    h = nn.relu(self._conv(x, filters, train, stride=stride))
    h = self._conv(h, filters, train)
    if stride > 1:
      x = layers.mean_pool(x)
    missing = filters - x.shape[-1]
    return nn.relu(h + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing))))

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Outputs:
    """Maps images f32[B, H, W, C] to Outputs, D = 256 width.

    Raises:
      UserError: a field or the image size is invalid.
    """
    self._check(images)
    x = images.astype(self.dtype)
    x = self._conv(x, self._filters(_STEM), train)
    for count in _STAGES:
      for block in range(self.blocks):
        x = self._block(
          x, self._filters(count), train, stride=1 if block else 2
        )
    features = layers.global_mean(nn.relu(self._norm(x, train)))
    logits = nn.Dense(
      self.num_classes, kernel_init=nn.initializers.glorot_normal()
    )(features)
    return Outputs(logits, features, logits)
