"""A small convolutional network for small gray images, ours: NS3L does not name
the network of its Table 6 (F-N13).
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import errors
from nsl_jax.models import layers
from nsl_jax.types import Array, Outputs


class SmallCNN(nn.Module):
  """Two 3x3 convolutions with max-pooling, and a hidden dense layer.

  The size of the dense layer depends on the images: with 28x28x1 images and ten
  classes the network has 421,642 parameters. Kernels before a ReLU are
  initialized He-normal, the last one Glorot-normal.

  Attributes:
    num_classes: K.
    batch_norm: batch normalization after each convolution, before its ReLU.
    dtype: dtype of the computation; parameters and outputs are float32.
  """

  num_classes: int
  batch_norm: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Outputs:
    """Maps images f32[B, H, W, C] to Outputs, D = 128.

    Raises:
      UserError: a side is shorter than 4.
    """
    if min(images.shape[1:3]) < 4:
      raise errors.UserError(
        'small_cnn pools twice: give it images of at least 4x4 pixels, '
        f'not {images.shape[1]}x{images.shape[2]}'
      )
    he_normal = nn.initializers.he_normal()
    x = images.astype(self.dtype)
    for filters in (32, 64):
      x = nn.Conv(filters, (3, 3), kernel_init=he_normal, dtype=self.dtype)(x)
      if self.batch_norm:
        x = layers.batch_norm(x, train=train, momentum=0.999, epsilon=1e-3)
      x = nn.relu(layers.max_pool(x))  # commute; this order costs less
    x = x.reshape(x.shape[0], -1)
    x = nn.Dense(128, kernel_init=he_normal, dtype=self.dtype)(x)
    features = nn.relu(x).astype(jnp.float32)
    glorot_normal = nn.initializers.glorot_normal()
    logits = nn.Dense(self.num_classes, kernel_init=glorot_normal)(features)
    return Outputs(logits, features, logits)
