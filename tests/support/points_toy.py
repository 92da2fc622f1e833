"""Linear regression of points, for the tests of Learning to Impute."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nsl_jax.compose import tasks
from nsl_jax.types import Batch, Components, Model, Outputs

SHAPE, P, LR, WEIGHT = (3, 3, 1), 4, 0.05, 2.0
SCALE = np.array([1.0, 2.0, 4.0, 8.0])


class Moving:
  """A view that only says that it moved, and makes images brighter; keeps what
  it showed and printed."""

  def __init__(self):
    self.shown = []

  def __call__(self, images, key):
    light, way = jax.random.split(key)
    view = images + jax.random.uniform(light)
    move = jax.random.randint(way, (len(images), 2), -4, 5).astype(jnp.float32)
    self.shown.append((view, move))
    return view, move


def init(key, image_shape):
  return {'w': jax.random.normal(key, (math.prod(image_shape), P))}, {}


def linear(params, stats, images, *, train, key=None):
  flat = images.reshape(images.shape[0], -1)
  outputs = flat @ params['w']
  return Outputs(outputs, flat, outputs), stats


def tools_of(moving, **fields):
  return Components(
    model=Model(init, linear),
    tx=optax.sgd(LR),
    image_shape=SHAPE,
    augment=lambda images, key: moving(images, key)[0],
    task=tasks.REGRESSION,
    moving=moving,
    **fields,
  )


def batch_of(size=6, held=5):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return Batch(
    x=draw(size, *SHAPE),
    y=draw(size, P),
    u=draw(size, *SHAPE),
    u_index=jnp.arange(size),
    per_image_tables={},
    meta_x=draw(held, *SHAPE),
    meta_y=draw(held, P),
    scale=jnp.asarray(SCALE, jnp.float32),
  )
