"""The layers that more than one network is made of."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nsl_jax.types import Array, Key

leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.1)

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)): the variance of U(-a, a) is a^2 / 3.
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def uniform_bias(fan_in: int) -> nn.initializers.Initializer:
  """Initializer U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for a bias."""

  def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def max_pool(x: Array) -> Array:
  """2x2 max-pooling with stride 2, without padding.

  Written as the maximum of four strided slices: on CPU its gradient is about
  ten times faster than that of a reshape and max, and more than that of a
  windowed reduction. Tied maxima share the gradient.

  Args:
    x: f[B, H, W, C].

  Returns:
    f[B, H // 2, W // 2, C]; an odd last row or column is dropped.
  """
  height, width = x.shape[1] // 2, x.shape[2] // 2
  x = x[:, : 2 * height, : 2 * width]
  rows = jnp.maximum(x[:, ::2], x[:, 1::2])
  return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def max_pool_3x3(x: Array) -> Array:
  """3x3 max-pooling with stride 2, padded by one on every side.

  Of slices for the reason of `max_pool`, over the rows and then the columns.

  Args:
    x: f[B, H, W, C].

  Returns:
    f[B, ceil(H / 2), ceil(W / 2), C].
  """
  for axis in (1, 2):
    size = x.shape[axis]
    padding = [(0, 0)] * 4
    padding[axis] = (1, 1)
    padded = jnp.pad(x, padding, constant_values=-jnp.inf)
    first, second, third = (
      jax.lax.slice_in_dim(padded, start, start + size, 2, axis)
      for start in range(3)
    )
    x = jnp.maximum(jnp.maximum(first, second), third)
  return x


def mean_pool(x: Array) -> Array:
  """2x2 mean-pooling: f[B, 2 H, 2 W, C] -> f[B, H, W, C]."""
  batch, height, width, channels = x.shape
  return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def global_mean(x: Array) -> Array:
  """Mean over the map, in float32: f[B, H, W, C] -> f32[B, C]."""
  return x.astype(jnp.float32).mean((1, 2))


class BatchNorm(nn.Module):
  """Batch normalization in float32; the result has the dtype of the input.

  The n-th batch (from 0) enters the running statistics with momentum
  min(momentum, n / (n + 9)), the warm-up that TensorFlow gives its moving
  averages: the first batch replaces the initial 0 and 1, and until batch
  9 momentum / (1 - momentum) the average covers about the last tenth of the
  run, whatever its length. With a constant 0.999 a run of 1,000 steps is
  evaluated with statistics that are a third initial values and otherwise those
  of a network long gone; from step 8,991 on the two are the same rule.

  Attributes:
    momentum: decay of the running statistics once the warm-up is over.
    epsilon: added to the variance.
    scale_init: of the scale.
  """

  momentum: float
  epsilon: float
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """f[B, ..., C] -> f[B, ..., C]; `train` normalizes with the batch."""
    count = self.variable(
      'batch_stats', 'count', lambda: jnp.zeros((), jnp.float32)
    )
    momentum: Any = jnp.minimum(  # nn.BatchNorm's annotation asks for a float
      self.momentum, count.value / (count.value + 9.0)
    )
    norm = nn.BatchNorm(
      use_running_average=not train,
      momentum=momentum,
      epsilon=self.epsilon,
      scale_init=self.scale_init,
      dtype=x.dtype,
    )
    nn.share_scope(self, norm)
    y = norm(x)
    if train and not self.is_initializing():
      count.value = count.value + 1.0
    return y


def batch_norm(
  x: Array,
  *,
  train: bool,
  momentum: float,
  epsilon: float,
  scale_init: nn.initializers.Initializer = nn.initializers.ones,
) -> Array:
  """`BatchNorm` as a function, to be called inside a compact module."""
  return BatchNorm(momentum, epsilon, scale_init)(x, train=train)


def _norm(v: Array) -> Array:
  """Euclidean norm per output channel: f32[..., O] -> f32[O]."""
  return jnp.sqrt(jnp.sum(v * v, axis=range(v.ndim - 1)))


def _weight(module: nn.Module, shape: tuple[int, ...]) -> Array:
  """Kernel g v / |v| of a module, f32[shape]; g starts as |v|."""
  v = module.param('v', uniform_fan_in, shape)
  g = module.param('g', lambda _: _norm(v))
  return v * jnp.broadcast_to(g / _norm(v), shape)


def _bias(module: nn.Module, shape: tuple[int, ...]) -> Array:
  """Bias of a module whose kernel has `shape`, f32[shape[-1]]."""
  fan_in = 1
  for size in shape[:-1]:
    fan_in *= size
  return module.param('bias', uniform_bias(fan_in), shape[-1:])


class WeightNormConv(nn.Module):
  """Weight-normalized convolution with bias, stride 1 (Salimans & Kingma 2016).

  f[B, H, W, I] -> f[B, H', W', features] in `dtype`; parameters v, g, bias.
  """

  features: int
  kernel_size: tuple[int, int]
  padding: str = 'SAME'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (*self.kernel_size, x.shape[-1], self.features)
    y = jax.lax.conv_general_dilated(
      x.astype(self.dtype),
      _weight(self, shape).astype(self.dtype),
      window_strides=(1, 1),
      padding=self.padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    bias = _bias(self, shape).astype(self.dtype)
    return y + jnp.broadcast_to(bias, y.shape)


class WeightNormDense(nn.Module):
  """Weight-normalized dense layer with bias, f32[B, I] -> f32[B, features]."""

  features: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1], self.features)
    y = x @ _weight(self, shape)
    return y + jnp.broadcast_to(_bias(self, shape), y.shape)
