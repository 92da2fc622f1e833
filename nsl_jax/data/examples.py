"""A data set in memory: images, labels, and what is known about them."""

from typing import NamedTuple

import numpy as np

from nsl_jax.data.resize import Form


class Arrays(NamedTuple):
  """Examples in memory.

  Attributes:
    images: uint8[N, H, W, C] with C 1 or 3, or features f32[N, 1, 1, D].
    labels: int32[N] classes, or f32[N, P] with x and y of each point in
      pixels. An image without a label has class -1, or NaN for all points.
  """

  images: np.ndarray
  labels: np.ndarray


class Files(NamedTuple):
  """Where the images of a folder come from, a path for each row.

  Attributes:
    train: of the training images, relative to the folder.
    test: of the test images.
  """

  train: tuple[str, ...] = ()
  test: tuple[str, ...] = ()


class Source(NamedTuple):
  """A data set.

  Attributes:
    name: as it was loaded.
    num_classes: K; labels lie in [0, K) or are -1. 0 where they are points.
    train: training examples; those without a label may be anywhere.
    test: test examples, all labeled; may be none in a user's own data.
    note: what a reader of results must know about this copy; '' if nothing.
    classes: names of the classes, in the order of their numbers; () if they
      have none.
    validation: i32[n], rows of `train` that are the validation images; None
      where a split draws them.
    files: paths of the images, of a folder.
    form: what pictures are made into, of a folder; None elsewhere.
    report: lines about what was read and what was skipped.
  """

  name: str
  num_classes: int
  train: Arrays
  test: Arrays
  note: str
  classes: tuple[str, ...] = ()
  validation: np.ndarray | None = None
  files: Files = Files()
  form: Form | None = None
  report: tuple[str, ...] = ()

  @property
  def outputs(self) -> int:
    """Size of the output of a network, K or P."""
    return self.num_classes or self.train.labels.shape[1]

  @property
  def class_names(self) -> tuple[str, ...]:
    """Names of the classes, their numbers where they have none."""
    return self.classes or tuple(map(str, range(self.num_classes)))


def take(source: Source, train: np.ndarray, test: np.ndarray) -> Source:
  """The data at these rows, in order; other validation images are left out.

  Args:
    source: the data.
    train: int[n], rows of the training examples.
    test: int[m], rows of the test examples.
  """
  validation = source.validation
  if validation is not None:
    validation = validation[np.isin(validation, train)]
    validation = np.searchsorted(train, validation).astype(np.int32)
  files = Files(
    *(
      tuple(paths[row] for row in rows) if paths else ()
      for paths, rows in zip(source.files, (train, test))
    )
  )

  def at(part: Arrays, rows: np.ndarray) -> Arrays:
    images = part.images
    if hasattr(images, 'part'):  # decoded as they are read
      return Arrays(images.part(rows), part.labels[rows])
    return Arrays(images[rows], part.labels[rows])

  return source._replace(
    train=at(source.train, train),
    test=at(source.test, test),
    validation=validation,
    files=files,
  )


def has_label(labels: np.ndarray) -> np.ndarray:
  """Which labels, int32[N] or f32[N, P], are known: bool[N]."""
  if labels.ndim > 1:
    return np.isfinite(labels).all(1)
  return labels >= 0


def counts_text(source_classes: tuple[str, ...], labels: np.ndarray) -> str:
  """Number of images of each class, such as `cat 10, dog 12`."""
  counts = np.bincount(labels[labels >= 0], minlength=len(source_classes))
  return ', '.join(f'{n} {c:,}' for n, c in zip(source_classes, counts))
