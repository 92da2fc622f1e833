"""Softmax regression that keeps what it is shown, for the tests of methods."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from model_helpers import quick_jit
from scipy import special

from nsl_jax import methods
from nsl_jax.types import Batch, Components, Model, Outputs

SHAPE, K, B = (2, 2, 1), 4, 6
LABELS = np.arange(B) % K
ONCE = dict(weight=1.0, ramp='none', ramp_steps=0)
ICT = dict(alpha=0.75, decay=0.9, **ONCE)
MIX = dict(alpha=0.75, temperature=0.5, views=2, **ONCE)
NS3L = dict(sampler='threshold', threshold=0.2, passes=1, **ONCE)


class Toy:
  """Softmax regression that keeps what it is shown, in order.

  Its statistics are an average of the means that it saw in train mode, and
  their number.
  """

  def __init__(self, noise=0.0):
    self.noise, self.calls, self.seen, self.augmented = noise, 0, {}, []

  @property
  def views(self):
    """What each application was shown, in order."""
    jax.effects_barrier()
    return [self.seen[number] for number in range(self.calls)]

  def init(self, key, image_shape):
    weights = jax.random.normal(key, (math.prod(image_shape), K))
    return {'head': {'kernel': weights, 'bias': jnp.zeros(K)}}, {
      'mean': jnp.zeros(()),
      'passes': jnp.zeros(()),
    }

  def apply(self, params, stats, images, *, train, key=None):
    note = lambda number, images: self.seen.update(
      {int(number): np.asarray(images)}
    )
    jax.debug.callback(note, self.calls, images, ordered=True)
    self.calls += 1
    flat = images.reshape(images.shape[0], -1)
    logits = flat @ params['head']['kernel'] + params['head']['bias'][None]
    moved = {
      'mean': 0.9 * stats['mean'] + 0.1 * images.mean(),
      'passes': stats['passes'] + 1,
    }
    return Outputs(logits, flat, logits), moved if train else stats

  def augment(self, images, key):
    view = images + self.noise * jax.random.normal(key, images.shape)
    note = lambda *pair: self.augmented.append(tuple(map(np.asarray, pair)))
    jax.debug.callback(note, images, view, ordered=True)
    return view

  def components(self, **options):
    return Components(
      **{
        'model': Model(self.init, self.apply),
        'tx': optax.sgd(0.1),
        'augment': self.augment,
        'image_shape': SHAPE,
        'num_images': B,
        **options,
      }
    )


def make_batch(labeled=B, unlabeled=B, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda n: jnp.asarray(rng.normal(size=(n, *SHAPE)), jnp.float32)
  return Batch(
    x=draw(labeled),
    y=jnp.arange(labeled) % K,
    u=draw(unlabeled),
    u_index=jnp.arange(unlabeled),
    per_image_tables={},
    num_unlabeled=jnp.asarray(unlabeled),
  )


def build(name, toy=None, components=None, **fields):
  return methods.build(
    {'name': name, 'terms': {}, **fields},
    components or (toy or Toy()).components(),
  )


def run(
  name, toy=None, batch=None, state=None, key=1, components=None, **fields
):
  """One update: the state before, the state after, the metrics."""
  method = build(name, toy, components, **fields)
  state = state or quick_jit(method.init)(jax.random.key(0))
  after, metrics = quick_jit(method.update)(
    state, batch or make_batch(), jax.random.key(key)
  )
  return state, after, metrics


def probs_of(view, params):
  flat = np.asarray(view, np.float64).reshape(len(view), -1)
  head = {k: np.asarray(v, np.float64) for k, v in params['head'].items()}
  return special.softmax(flat @ head['kernel'] + head['bias'], axis=-1)


def negative_sampling_loss(target_probs, probs, threshold):
  """NS3L's loss of a row."""
  return -np.log(sum(p for q, p in zip(target_probs, probs) if q >= threshold))


def check_moved_once(after, view):
  """One pass in train mode moved the statistics, and it saw this view."""
  assert after.stats['passes'] == 1, after.stats
  np.testing.assert_allclose(after.stats['mean'], 0.1 * view.mean(), rtol=1e-5)


def share_of(mixed, first, second):
  """The s of mixed = s * first + (1 - s) * second that fits best, and by how
  much it misses.
  """
  mixed, gap = mixed - second, first - second
  share = np.sum(mixed * gap) / max(np.sum(gap**2), 1e-30)
  return share, np.abs(mixed - share * gap).max()


def mixed_labels(shown, rows, labels):
  """Labels of the images shown: mixtures of these rows with those reversed."""
  found = []
  for i, image in enumerate(np.asarray(shown, np.float64)):
    share, miss = share_of(image, rows[i], rows[B - 1 - i])
    assert miss < 1e-5, miss
    assert 0.5 - 1e-4 <= share <= 1.0 + 1e-4, share
    found.append(share * labels[i] + (1 - share) * labels[B - 1 - i])
  return found


def check_losses(metrics, expected):
  """Means over rows, and the loss, NS3L at weight 2."""
  for name, values in expected.items():
    np.testing.assert_allclose(
      metrics[name], np.mean(values), rtol=1e-3, err_msg=name
    )
  assert metrics['ns3l'] > 0.0
  np.testing.assert_allclose(
    metrics['loss'],
    sum(metrics[name] for name in expected) + metrics['ns3l'],
    rtol=1e-5,
  )
