"""Four predictions of three classes, for the tests of scores."""

import numpy as np

# Three classes; 'c' is never predicted.
LABELS = np.array([0, 0, 1, 2], np.int32)
PROBABILITIES = np.array(
  [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.05, 0.9, 0.05], [0.65, 0.2, 0.15]],
  np.float32,
)
