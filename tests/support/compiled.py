"""Methods whose functions are compiled.

Called as they are they compile each of their operations alone, which takes
several times as long as one program of all.
"""

import functools

import jax

from nsl_jax import methods
from nsl_jax.types import Components, Method


@functools.wraps(methods.build)
def build(fields: dict, components: Components) -> Method:
  method = methods.build(fields, components)
  return method._replace(
    init=jax.jit(method.init), update=jax.jit(method.update)
  )
