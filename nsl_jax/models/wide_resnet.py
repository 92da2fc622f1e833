"""Wide residual networks (Zagoruyko & Komodakis 2016), WRN-28-2 by default."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import errors
from nsl_jax.models import layers
from nsl_jax.types import Array, Outputs

# Bias of the first convolution, bias of the others, epsilon of batch norm.
_VARIANTS = {
  'oliver': (False, False, 1e-3),
  'mixmatch': (True, True, 1e-3),
  'l2i': (False, True, 1e-5),
}
_FAN_OUT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class WideResNet(nn.Module):
  """Pre-activation wide residual network (families O, M, L).

  Attributes:
    num_classes: K.
    variant: 'oliver' (no convolution has a bias), 'mixmatch' (all have) or
      'l2i' (all but the first; batch-norm epsilon 1e-5).
    stages: 3, or 4 for larger images; each after the first halves the map.
    width: factor on the 16, 32, 64 (and 128) filters of the stages.
    depth: 6n + 4 for n units per stage.
    dtype: dtype of the computation; parameters and outputs are float32.
  """

  num_classes: int
  variant: str = 'oliver'
  stages: int = 3
  width: int = 2
  depth: int = 28
  dtype: Any = jnp.float32

  def _check(self) -> None:
    """Raises UserError if a field is invalid."""
    if self.variant not in _VARIANTS:
      raise errors.UserError(
        f'wide_resnet has no variant {self.variant!r}; '
        + errors.did_you_mean(str(self.variant), _VARIANTS)
      )
    if self.stages not in (3, 4):
      raise errors.UserError(
        f'wide_resnet: stages must be 3 or 4, not {self.stages!r}'
      )
    if self.width < 1:
      raise errors.UserError(
        f'wide_resnet: width must be at least 1, not {self.width!r}'
      )
    if self.depth < 10 or self.depth % 6 != 4:
      raise errors.UserError(
        f'wide_resnet: depth must be 10, 16, 22, 28, ..., not {self.depth!r}'
      )

  def _norm(self, x: Array, train: bool) -> Array:
    """Batch normalization and leaky ReLU, f[B, H, W, C] -> f[B, H, W, C]."""
    epsilon = _VARIANTS[self.variant][2]
    return layers.leaky_relu(
      layers.batch_norm(x, train=train, momentum=0.999, epsilon=epsilon)
    )

  def _conv(
    self,
    x: Array,
    filters: int,
    *,
    size: int = 3,
    stride: int = 1,
    first: bool = False,
  ) -> Array:
    """SAME convolution, f[B, H, W, C] -> f[B, H/stride, W/stride, filters]."""
    return nn.Conv(
      filters,
      (size, size),
      (stride, stride),
      use_bias=bool(_VARIANTS[self.variant][0 if first else 1]),
      kernel_init=_FAN_OUT,
      dtype=self.dtype,
    )(x)

  def _unit(
    self, x: Array, filters: int, *, stride: int, first: bool, train: bool
  ) -> Array:
    """One residual unit; only the first of the network activates its shortcut.

    Args:
      x: f[B, H, W, C].
      filters: channels of the result.
      stride: stride of the first convolution and of the shortcut.
      first: whether the shortcut takes the activated input.
      train: whether batch normalization uses the batch.

    Returns:
      f[B, H / stride, W / stride, filters].
    """
    h = self._norm(x, train)
    shortcut = h if first else x
    h = self._conv(h, filters, stride=stride)
    h = self._conv(self._norm(h, train), filters)
    if shortcut.shape[-1] != filters:
      shortcut = self._conv(shortcut, filters, size=1, stride=stride)
    return shortcut + h

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Outputs:
    """Maps images f32[B, H, W, C] to Outputs, D = channels of the last stage.

    Raises:
      UserError: a field of the module is invalid.
    """
    self._check()
    x = self._conv(images.astype(self.dtype), 16, first=True)
    for stage in range(self.stages):
      for unit in range((self.depth - 4) // 6):
        x = self._unit(
          x,
          16 * self.width * 2**stage,
          stride=2 if stage > 0 and unit == 0 else 1,
          first=stage == 0 and unit == 0,
          train=train,
        )
    features = layers.global_mean(self._norm(x, train))
    logits = nn.Dense(
      self.num_classes, kernel_init=nn.initializers.glorot_normal()
    )(features)
    return Outputs(logits, features, logits)
