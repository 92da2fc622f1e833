"""Which parameters of a network are kernels, by their names."""

from typing import Any

import jax

from nsl_jax.types import Params

Path = tuple[Any, ...]


def is_named(path: Path, *names: str) -> bool:
  """Whether the last part of a path in a tree is one of these names."""
  return getattr(path[-1], 'key', None) in names


def is_kernel(path: Path) -> bool:
  """Whether a path is that of a kernel, or of its direction where weights are
  normalized, and not of a bias or of batch normalization.
  """
  return is_named(path, 'kernel', 'v')


def kernel_mask(params: Params) -> Params:
  """A tree of bool: whether a parameter is a kernel."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: is_kernel(path), params
  )
