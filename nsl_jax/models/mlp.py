"""A multilayer perceptron for vectors of features."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import options
from nsl_jax.types import Array, Outputs

_OPTIONS = ('hidden', 'layers', 'dropout')


@options.declare(hidden='>= 1', layers='>= 1', dropout='[0, 1)')
class MLP(nn.Module):
  """Dense layers with ReLU and dropout, for features held as 1x1 images.

  An image of any size is taken as the vector of all its pixels. Kernels before
  a ReLU start He-normal, the last one Glorot-normal.

  Attributes:
    num_classes: K.
    hidden: units of every hidden layer.
    layers: number of hidden layers.
    dropout: rate after each of them.
    dtype: of the computation; parameters and outputs are float32.
  """

  num_classes: int
  hidden: int = 256
  layers: int = 2
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Outputs:
    """Maps images f32[B, H, W, C], features of which are f32[B, 1, 1, C], to
    Outputs, D = hidden.

    Raises:
      UserError: a field has no meaning.
    """
    values = {name: getattr(self, name) for name in _OPTIONS}
    options.check(MLP, values, 'mlp: ')
    x = images.reshape(images.shape[0], -1).astype(self.dtype)
    he_normal = nn.initializers.he_normal()
    for _ in range(self.layers):
      x = nn.Dense(self.hidden, kernel_init=he_normal, dtype=self.dtype)(x)
      x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
    features = x.astype(jnp.float32)
    glorot_normal = nn.initializers.glorot_normal()
    logits = nn.Dense(self.num_classes, kernel_init=glorot_normal)(features)
    return Outputs(logits, features, logits)
