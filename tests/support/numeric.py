"""Derivatives by differences, for the tests of gradients."""

import numpy as np


def slope(function, at, step=1e-5):
  """Central differences of a scalar function of a float64 array."""
  found = np.zeros_like(at)
  for index in np.ndindex(*at.shape):
    change = np.zeros_like(at)
    change[index] = step
    found[index] = function(at + change) - function(at - change)
  return found / (2 * step)
