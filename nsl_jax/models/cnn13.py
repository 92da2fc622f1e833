"""The 13-layer convolutional network of the consistency papers: VAT (Miyato et
al. 2018), Dual Student (Ke et al. 2019), DNLL (Xu et al. 2023,
https://arxiv.org/abs/2301.03976) and L2I (Li, Foo & Bilen 2020,
https://arxiv.org/abs/1912.10364).
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import errors
from nsl_jax.models import layers
from nsl_jax.types import Array, Outputs

# Momentum and epsilon of batch normalization, and whether the logits have it.
_VARIANTS = {
  'vat': (0.99, 1e-6, False),
  'l2i': (0.9, 1e-5, True),
  'dual_student': (0.9, 1e-5, False),
}
_FAN_OUT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
_XAVIER = nn.initializers.variance_scaling(1.0, 'fan_avg', 'normal')
# Filters, kernel size and padding of each convolution, in three blocks.
_BLOCKS = (
  ((128, 3, 'SAME'),) * 3,
  ((256, 3, 'SAME'),) * 3,
  ((512, 3, 'VALID'), (256, 1, 'SAME'), (128, 1, 'SAME')),
)


class CNN13(nn.Module):
  """Nine convolutions, two max-pools with dropout, mean pool.

  Attributes:
    num_classes: K.
    variant: 'vat' (no convolution bias, He-normal), 'l2i' (bias, batch norm of
      the logits; initialized as in the released code, convolutions from
      N(0, 2 / (k^2 C_out)) and the last layer Xavier-normal, F-L13) or
      'dual_student' (weight normalization, bias, two heads).
    width: factor on the number of filters, 128 to 512.
    dropout: rate after each max-pool.
    top_bn: batch normalization of the logits; None for the variant's default.
    dtype: dtype of the computation; parameters and outputs are float32.
  """

  num_classes: int
  variant: str = 'vat'
  width: float = 1.0
  dropout: float = 0.5
  top_bn: bool | None = None
  dtype: Any = jnp.float32

  def _check(self, images: Array) -> None:
    """Raises UserError if a field or the image size is invalid."""
    if self.variant not in _VARIANTS:
      raise errors.UserError(
        f'cnn13 has no variant {self.variant!r}; '
        + errors.did_you_mean(str(self.variant), _VARIANTS)
      )
    if not self.width > 0:
      raise errors.UserError(
        f'cnn13: width must be positive, not {self.width!r}'
      )
    if not 0 <= self.dropout < 1:
      raise errors.UserError(
        f'cnn13: dropout must be in [0, 1), not {self.dropout!r}'
      )
    if min(images.shape[1:3]) < 12:
      raise errors.UserError(
        'cnn13 needs images of at least 12x12 pixels, not '
        f'{images.shape[1]}x{images.shape[2]}; use small_cnn'
      )

  def _norm(self, x: Array, train: bool) -> Array:
    """The variant's batch normalization, f[B, ..., C] -> f[B, ..., C]."""
    momentum, epsilon, _ = _VARIANTS[self.variant]
    return layers.batch_norm(x, train=train, momentum=momentum, epsilon=epsilon)

  def _conv(self, x: Array, filters: int, size: int, padding: str) -> Array:
    """The variant's convolution, f[B, H, W, C] -> f[B, H', W', width C']."""
    filters = max(1, round(self.width * filters))
    shape = (size, size)
    if self.variant == 'dual_student':
      return layers.WeightNormConv(filters, shape, padding, self.dtype)(x)
    if self.variant == 'vat':
      kernel_init = nn.initializers.he_normal()
    else:
      kernel_init = _FAN_OUT
    return nn.Conv(
      filters,
      shape,
      padding=padding,
      use_bias=self.variant == 'l2i',
      kernel_init=kernel_init,
      bias_init=layers.uniform_bias(size * size * x.shape[-1]),
      dtype=self.dtype,
    )(x)

  def _head(self, features: Array, train: bool) -> Array:
    """Dense layer with optional batch norm, f32[B, D] -> f32[B, K]."""
    if self.variant == 'dual_student':
      logits = layers.WeightNormDense(self.num_classes)(features)
    elif self.variant == 'vat':
      he_normal = nn.initializers.he_normal()
      logits = nn.Dense(self.num_classes, kernel_init=he_normal)(features)
    else:
      logits = nn.Dense(self.num_classes, kernel_init=_XAVIER)(features)
    default = _VARIANTS[self.variant][2]
    top_bn = default if self.top_bn is None else self.top_bn
    return self._norm(logits, train) if top_bn else logits

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Outputs:
    """Maps images f32[B, H, W, C] to Outputs, D = 128 width.

    Raises:
      UserError: a field or the image size is invalid.
    """
    self._check(images)
    x = images.astype(self.dtype)
    for index, block in enumerate(_BLOCKS):
      if index > 0:
        x = nn.Dropout(self.dropout, deterministic=not train)(
          layers.max_pool(x)
        )
      for filters, size, padding in block:
        x = self._conv(x, filters, size, padding)
        x = layers.leaky_relu(self._norm(x, train))
    features = layers.global_mean(x)
    logits = self._head(features, train)
    two_heads = self.variant == 'dual_student'
    consistency = self._head(features, train) if two_heads else logits
    return Outputs(logits, features, consistency)
