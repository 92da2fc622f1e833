"""A small classifier and data that it separates."""

import numpy as np

from nsl_jax import SemiSupervisedClassifier

TINY = dict(network='mlp', batch_size=8, overrides={'model.hidden': 16})


def tiny(method='supervised', **values):
  return SemiSupervisedClassifier(method, **{'steps': 4, **TINY, **values})


def blobs(count=60, classes=3, seed=0):
  """Well separated features f32[N, 4] and their classes."""
  rng = np.random.default_rng(seed)
  y = np.arange(count) % classes
  centers = 4.0 * np.eye(classes, 4)
  return (centers[y] + 0.3 * rng.normal(size=(count, 4))).astype(np.float32), y


def hide_labels(y, each=4):
  """Labels of which `each` of every class are left."""
  rank = np.array([np.sum(y[:row] == y[row]) for row in range(len(y))])
  return np.where(rank < each, y, -1)
