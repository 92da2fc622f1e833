"""Softmax regression of two heads, for the tests of pairs of networks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nsl_jax import methods
from nsl_jax.compose import two_networks
from nsl_jax.types import Batch, Components, Model, Outputs

SHAPE, K, RATE = (2, 2, 1), 4, 0.1
WEIGHT = dict(weight=2.0, ramp='none', ramp_steps=0)
RAMP = dict(ramp='none', ramp_steps=0)
DNLL = dict(
  selection='ep', count=K - 1, unsupervised='both', terms={}, **WEIGHT
)
STUDENT = dict(
  consistency=3.0, stabilization=5.0, tie=0.5, threshold=0.5, terms={}, **RAMP
)


class Toy:
  """Softmax regression of two heads that keeps what it is shown.

  Its statistics are the mean of the last batch in train mode.
  """

  def __init__(self):
    self.seen = []

  def init(self, key, image_shape):
    one, two = jax.random.split(key)
    shape = (math.prod(image_shape), K)
    params = {
      'w': 2.0 * jax.random.normal(one, shape),
      's': 2.0 * jax.random.normal(two, shape),
    }
    return params, {'mean': jnp.zeros(())}

  def apply(self, params, stats, images, *, train, key=None):
    self.seen.append(images.shape)
    flat = images.reshape(images.shape[0], -1)
    logits = flat @ params['w']
    moved = {'mean': images.mean()} if train else stats
    return Outputs(logits, flat, flat @ params['s']), moved


class Normed(Toy):
  """Logits of images less the mean of their batch, and statistics that go half
  of the way to it.
  """

  def apply(self, params, stats, images, *, train, key=None):
    center = images.mean() if train else stats['mean']
    outputs, _ = super().apply(params, stats, images - center, train=train)
    moved = {'mean': 0.5 * stats['mean'] + 0.5 * center}
    return outputs, moved if train else stats


def tools_of(network=None, augment=lambda images, key: images, strong=None):
  network = network or Toy()
  return Components(
    model=Model(network.init, network.apply),
    tx=optax.sgd(RATE),
    augment=augment,
    image_shape=SHAPE,
    strong=strong,
  )


def build(name, components, **fields):
  return methods.build({'name': name, **fields}, components)


def batch_of(labeled=6, unlabeled=8, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda count: jnp.asarray(
    rng.normal(size=(count, *SHAPE)).astype(np.float32)
  )
  return Batch(
    x=draw(labeled),
    y=jnp.asarray(rng.integers(0, K, labeled)),
    u=draw(unlabeled),
    u_index=jnp.arange(unlabeled),
    per_image_tables={},
  )


def softmax(z):
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def forward(params, images):
  flat = np.asarray(images, np.float64).reshape(len(images), -1)
  return (
    flat @ np.asarray(params['w'], np.float64),
    flat @ np.asarray(params['s'], np.float64),
  )


def cross_entropies(logits, labels):
  return -np.log(softmax(logits)[np.arange(len(labels)), labels])


def gradients(loss, state, batch):
  """Of the loss of a and of b, in the parameters of both."""
  of = lambda n: lambda p: loss(p, state, batch, jax.random.key(1))[0][n]
  return {n: jax.grad(of(n))(state.params) for n in two_networks.NAMES}
