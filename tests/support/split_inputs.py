"""Labels, and splits of them."""

import numpy as np

from nsl_jax.data import splits


def labels_of(*counts, seed=1):
  """Shuffled labels, counts[k] of class k."""
  labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
  return np.random.default_rng(seed).permutation(labels)


def make(labels, num_classes=10, **changed):
  options = dict(
    labeled=20,
    validation=10,
    rule='balanced',
    validation_rule='balanced',
    seed=0,
  )
  return splits.make(labels, num_classes, **(options | changed))
