"""Semi-supervised image classification by what an image is not, in JAX."""

__version__ = '0.1.0'
