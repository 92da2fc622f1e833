"""TCDCN, the landmark network of L2I (Li, Foo & Bilen 2020,
https://arxiv.org/abs/1912.10364).
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import errors
from nsl_jax.models import layers
from nsl_jax.types import Array, Outputs

_BLOCKS = ((20, 5), (48, 5), (64, 3), (80, 3))  # filters, kernel size
_LEAST = 44  # image side that leaves a map of 1x1


class TCDCN(nn.Module):
  """Four unpadded convolutions and two dense layers.

  Every convolution is clipped to [-1, 1]; all but the last are max-pooled. As
  in the released code, the first dense layer has no activation and dropout is
  not used. With images of 60x60x1 and ten outputs the network has 285,586
  parameters.

  Attributes:
    num_classes: number of outputs.
    dtype: dtype of the computation; parameters and outputs are float32.
  """

  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Outputs:
    """Maps images f32[B, H, W, C] to Outputs, D = 256.

    Raises:
      UserError: a side is shorter than 44.
    """
    if min(images.shape[1:3]) < _LEAST:
      raise errors.UserError(
        f'tcdcn needs images of at least {_LEAST}x{_LEAST} pixels, not '
        f'{images.shape[1]}x{images.shape[2]}; use small_cnn'
      )
    x = images.astype(self.dtype)
    for block, (filters, side) in enumerate(_BLOCKS):
      fan_in = side * side * x.shape[-1]
      x = nn.Conv(
        filters,
        (side, side),
        padding='VALID',
        dtype=self.dtype,
        kernel_init=layers.uniform_fan_in,
        bias_init=layers.uniform_bias(fan_in),
      )(x)
      if block < len(_BLOCKS) - 1:
        x = layers.max_pool(x)  # commutes with clipping; cheaper in this order
      x = nn.hard_tanh(x)
    x = x.reshape(x.shape[0], -1)
    features = self._dense(x, 256, self.dtype).astype(jnp.float32)
    outputs = self._dense(features, self.num_classes, jnp.float32)
    return Outputs(outputs, features, outputs)

  def _dense(self, x: Array, size: int, dtype: Any) -> Array:
    return nn.Dense(
      size,
      dtype=dtype,
      kernel_init=layers.uniform_fan_in,
      bias_init=layers.uniform_bias(x.shape[-1]),
    )(x)
