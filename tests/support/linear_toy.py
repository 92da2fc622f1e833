"""Softmax regression that counts its passes, and a batch for it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nsl_jax.compose import combinators
from nsl_jax.types import Batch, Components, Model, Outputs

SHAPE = (2, 2, 1)


def linear_network(num_classes=3):
  """Softmax regression whose statistics count its passes in train mode."""

  def init(key, image_shape):
    size = math.prod(image_shape)
    weights = 0.1 * jax.random.normal(key, (size, num_classes))
    return {'w': weights}, {'passes': jnp.zeros(())}

  def apply(params, stats, images, *, train, key=None):
    flat = images.reshape(images.shape[0], -1)
    logits = flat @ params['w']
    if not train:
      return Outputs(logits, flat, logits), stats
    return Outputs(logits, flat, logits), {'passes': stats['passes'] + 1}

  return Model(init, apply)


def make_tools(tx=None, **options):
  return Components(
    model=linear_network(),
    tx=tx or optax.sgd(0.1),
    augment=lambda images, key: images,
    image_shape=SHAPE,
    **options,
  )


def make_batch(labeled=4, unlabeled=3, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda n: jnp.asarray(rng.normal(size=(n, *SHAPE)), jnp.float32)
  return Batch(
    x=draw(labeled),
    y=jnp.arange(labeled) % 3,
    u=draw(unlabeled),
    u_index=jnp.arange(unlabeled),
    per_image_tables={},
  )


def make_state(components=None, seed=0):
  return combinators.single_network(components or make_tools())(
    jax.random.key(seed)
  )
