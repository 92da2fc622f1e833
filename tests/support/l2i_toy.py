"""Softmax regression and its derivatives, for Learning to Impute's tests."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nsl_jax.types import Batch, Components, Model, Outputs

SHAPE, K, LR = (2, 2, 1), 4, 0.05
RAMP = dict(ramp='none', ramp_steps=0)
STUDENT = dict(
  name='pseudo_label_l2i', weight=2.0, teacher=False, terms={}, **RAMP
)
TEACHER = dict(STUDENT, teacher=True, decay=0.9)


class Toy:
  """Softmax regression; its statistics count the passes that moved them, and
  are the mean of the last one."""

  def __init__(self):
    self.seen = []

  def init(self, key, image_shape):
    w = jax.random.normal(key, (math.prod(image_shape), K))
    return {'w': w}, {'passes': jnp.zeros(()), 'mean': jnp.zeros(())}

  def apply(self, params, stats, images, *, train, key=None):
    self.seen.append((images.shape[0], key is not None))
    flat = images.reshape(images.shape[0], -1)
    logits = flat @ params['w']
    moved = {'passes': stats['passes'] + train, 'mean': images.mean()}
    return Outputs(logits, flat, logits), moved if train else stats


def brighter(images, key):
  return images + jax.random.uniform(key)


class Brighter:
  """An augmentation that keeps the views it makes, in order."""

  def __init__(self):
    self.views = []

  def __call__(self, images, key):
    self.views.append(brighter(images, key))
    return self.views[-1]


def tools_of(network=None, augment=lambda images, key: images, **fields):
  network = network or Toy()
  return Components(
    model=Model(network.init, network.apply),
    tx=optax.sgd(LR),
    augment=augment,
    image_shape=SHAPE,
    **fields,
  )


def batch_of(size=6, held=5):
  rng = np.random.default_rng(0)
  draw = lambda count: jnp.asarray(
    rng.normal(size=(count, *SHAPE)).astype(np.float32)
  )
  label = lambda count: jnp.asarray(rng.integers(0, K, count))
  return Batch(
    x=draw(size),
    y=label(size),
    u=draw(size),
    u_index=jnp.arange(size),
    per_image_tables={},
    meta_x=draw(held),
    meta_y=label(held),
  )


def flat(images):
  return np.asarray(images, np.float64).reshape(len(images), -1)


def softmax(z):
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def slope_of_squares(w, rows, z, scale):
  """d/dw of scale * sum((softmax(rows w) - z)^2)."""
  p = softmax(rows @ w)
  gap = 2 * scale * (p - z)
  return rows.T @ (p * (gap - (gap * p).sum(-1, keepdims=True)))


def slope_of_classes(w, rows, labels):
  """d/dw of the mean cross-entropy."""
  return rows.T @ (softmax(rows @ w) - np.eye(K)[labels]) / len(rows)
