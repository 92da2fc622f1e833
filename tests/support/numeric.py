"""Float64 and derivatives by differences, for the tests of gradients."""

import jax
import numpy as np
from jax import experimental


def float64():
  """A context in which arrays are float64 by default."""
  if hasattr(jax, 'enable_x64'):  # since jax 0.8
    return jax.enable_x64(True)
  return experimental.enable_x64(True)


def slope(function, at, step=1e-5):
  """Central differences of a scalar function of a float64 array."""
  found = np.zeros_like(at)
  for index in np.ndindex(*at.shape):
    change = np.zeros_like(at)
    change[index] = step
    found[index] = function(at + change) - function(at - change)
  return found / (2 * step)
