"""The least network with convolutions, batch normalization and a head in
float32, for tests of programs: `two_convolutions:network`."""

import jax.numpy as jnp
from flax import linen as nn

from nsl_jax.models import layers


class _Network(nn.Module):
  num_classes: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, *, train):
    for _ in range(2):
      x = nn.Conv(4, (3, 3), dtype=self.dtype)(x)
      x = layers.batch_norm(x, train=train, momentum=0.9, epsilon=1e-5)
      x = nn.relu(x)
    x = x.mean((1, 2)).astype(jnp.float32)
    return nn.Dense(self.num_classes)(x)


def network(*, num_classes, dtype=jnp.float32):
  return _Network(num_classes, dtype)
