"""Data: named sources, label splits, row sampling and augmentation.

`load` reads a data set by its name, `of_arrays` makes one of arrays in memory;
`nsl_jax.run` trains on either.
"""

from nsl_jax.data.datasets.npz import of_arrays
from nsl_jax.data.examples import Arrays, Source
from nsl_jax.data.sources import load

__all__ = ['Arrays', 'Source', 'load', 'of_arrays']
