"""The three-layer convolutional network of DNLL's domain adaptation (Xu et al.
2023, https://arxiv.org/abs/2301.03976).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import errors
from nsl_jax.models import layers
from nsl_jax.types import Array, Outputs

_FILTERS = (16, 32, 32)
_WINDOW = 6  # side of the only window of the mean pool


class CNN3(nn.Module):
  """Input noise, three convolutions, mean pool of a corner, two heads.

  The convolutions and the heads are weight-normalized and have a bias. The
  released code pools the last map by 6x6 windows of stride 2, which fit once on
  the 7x7 map of a 28x28 image: only its top-left 6x6 counts (F-D17).

  Attributes:
    num_classes: K.
    channels: input channels of the first convolution, 1 or 3; an image of one
      channel is repeated, with independent noise on each copy.
    noise: standard deviation of the input noise. It is applied in training
      with a key only; the released code also applies it in evaluation (F-D17).
    dropout: rate after the second max-pool.
    dtype: dtype of the computation; parameters and outputs are float32.
  """

  num_classes: int
  channels: int = 3
  noise: float = 0.15
  dropout: float = 0.5
  dtype: Any = jnp.float32

  def _check(self, images: Array) -> None:
    """Raises UserError if a field or the image shape is invalid."""
    if self.channels not in (1, 3):
      raise errors.UserError(
        f'cnn3: channels must be 1 or 3, not {self.channels!r}'
      )
    if not self.noise >= 0:
      raise errors.UserError(
        f'cnn3: noise must not be negative, it is {self.noise!r}'
      )
    if not 0 <= self.dropout < 1:
      raise errors.UserError(
        f'cnn3: dropout must be in [0, 1), not {self.dropout!r}'
      )
    height, width, channels = images.shape[1:]
    if channels not in (1, self.channels):
      raise errors.UserError(
        f'cnn3: the images have {channels} channels, not {self.channels}; '
        f'set channels={channels}'
      )
    if min(height, width) < 4 * _WINDOW:
      raise errors.UserError(
        f'cnn3 needs images of at least {4 * _WINDOW}x{4 * _WINDOW} pixels, '
        f'not {height}x{width}; use small_cnn'
      )

  def _input(self, images: Array, train: bool) -> Array:
    """Repeats the channel and adds noise, f32[B, H, W, channels]."""
    x = jnp.repeat(images, self.channels // images.shape[-1], axis=-1)
    if train and self.noise > 0 and self.has_rng('dropout'):
      key = self.make_rng('dropout')
      x = x + self.noise * jax.random.normal(key, x.shape, x.dtype)
    return x

  def _conv(self, x: Array, filters: int, train: bool) -> Array:
    """Convolution, norm and activation, f[B, H, W, C] -> f[B, H, W, C']."""
    x = layers.WeightNormConv(filters, (3, 3), dtype=self.dtype)(x)
    return layers.leaky_relu(
      layers.batch_norm(x, train=train, momentum=0.9, epsilon=1e-5)
    )

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Outputs:
    """Maps images f32[B, H, W, C] to Outputs, D = 32.

    Raises:
      UserError: a field or the image shape is invalid.
    """
    self._check(images)
    first, second, third = _FILTERS
    x = self._input(images, train).astype(self.dtype)
    x = layers.max_pool(self._conv(x, first, train))
    x = layers.max_pool(self._conv(x, second, train))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    x = self._conv(x, third, train)
    features = layers.global_mean(x[:, :_WINDOW, :_WINDOW])
    logits = layers.WeightNormDense(self.num_classes)(features)
    consistency = layers.WeightNormDense(self.num_classes)(features)
    return Outputs(logits, features, consistency)
