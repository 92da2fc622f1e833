"""Classes that only unlabeled images have (Oliver et al., "Realistic Evaluation
of Deep Semi-Supervised Learning Algorithms", 2018, section 4.4).
"""

from collections.abc import Sequence

import numpy as np

from nsl_jax import errors
from nsl_jax.data import examples

_FIELD = 'config.data.'


def without_classes(
  source: examples.Source, unknown: Sequence[int], unlabeled: Sequence[int] = ()
) -> examples.Source:
  """The data with fewer classes, and images of the others without a label.

  Args:
    source: data with classes.
    unknown: classes of which no label is known: their training images can only
      be unlabeled, their validation and test images are left out. The others
      are numbered anew, in their order.
    unlabeled: classes that the unlabeled images may have; () for all. Training
      images of unknown classes that are not among them are left out.

  Raises:
    errors.UserError: if a class does not exist, or fewer than two are known.
  """
  if not unknown and not unlabeled:
    return source
  for name, classes in (('unknown', unknown), ('unlabeled', unlabeled)):
    _check(f'{_FIELD}{name}_classes={tuple(classes)}', classes, source)
  known_classes = [k for k in range(source.num_classes) if k not in unknown]
  if len(known_classes) < 2:
    raise errors.UserError(
      f'{_FIELD}unknown_classes={tuple(unknown)}: leaves {len(known_classes)} '
      f'of {source.num_classes} classes, and at least two are needed: name '
      'fewer'
    )
  number = np.full(source.num_classes + 1, -1, np.int32)  # that of -1 is last
  number[known_classes] = np.arange(len(known_classes))
  labels = source.train.labels
  left_out = np.isin(labels, np.setdiff1d(unknown, unlabeled or unknown))
  if source.validation is not None:  # which needs labels
    rows = source.validation
    left_out[rows] |= np.isin(labels[rows], unknown)
  train_rows = np.flatnonzero(~left_out)
  source = examples.take(
    source, train_rows, np.flatnonzero(number[source.test.labels] >= 0)
  )
  names = (
    tuple(source.classes[k] for k in known_classes) if source.classes else ()
  )
  text = ', '.join(source.class_names[k] for k in unknown)
  note = f'no label of class {text}' if unknown else ''
  return source._replace(
    num_classes=len(known_classes),
    classes=names or tuple(map(str, known_classes)),
    train=source.train._replace(labels=number[source.train.labels]),
    test=source.test._replace(labels=number[source.test.labels]),
    note='; '.join(filter(None, (source.note, note))),
  )


def renumbered(classes: Sequence[int], unknown: Sequence[int]) -> list[int]:
  """The known ones among some classes, by their new numbers.

  >>> renumbered((0, 3, 5), unknown=(1, 3))
  [0, 3]
  """
  return [
    k - sum(other < k for other in unknown) for k in classes if k not in unknown
  ]


def _check(field: str, classes: Sequence[int], source: examples.Source) -> None:
  if not source.num_classes:
    raise errors.UserError(f'{field}: {source.name} has points and no classes')
  wrong = [
    k for k in classes if type(k) is not int or not 0 <= k < source.num_classes
  ]
  if wrong:
    raise errors.UserError(
      f'{field}: {wrong[0]!r} is not a class of {source.name}: name numbers '
      f'from 0 to {source.num_classes - 1}'
    )
  if len({*classes}) < len(classes):
    raise errors.UserError(f'{field}: names a class twice: name it once')
