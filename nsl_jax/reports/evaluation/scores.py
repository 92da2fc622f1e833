"""Scores of a network on labeled images, as numbers that JSON holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics

from nsl_jax import errors
from nsl_jax.reports.evaluation import calibration

CONFIDENCE = 0.95  # of the interval of the accuracy
FAILED = 10.0  # a mean error above this, in %, is a failure
# Where the cumulative error curve is read, in %.
THRESHOLDS = tuple(0.5 * step for step in range(51))
_SUM_TOLERANCE = 1e-3
_TOP = 5
_FLOOR = float(np.finfo(np.float32).tiny)  # the log of 0 is not a number


def _refuse(message: str) -> errors.UserError:
  return errors.UserError(f'cannot score the predictions: {message}')


def checked(
  labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Labels i64[N] and probabilities f64[N, K] whose rows sum to 1.

  Rows that sum to nearly 1, as those of float32 and bfloat16 do, are divided by
  their sums.

  Args:
    labels: i32[N], of N > 0 images, from 0 to K - 1.
    probabilities: f32[N, K].
    classes: K names.

  Raises:
    errors.UserError: for any other shape or type, no images, labels that are
      not of a class, probabilities that are not finite or are negative, or
      rows whose sum differs from 1 by more than 1e-3.
  """
  labels, probabilities = np.asarray(labels), np.asarray(probabilities)
  count = len(classes)
  if not labels.size:
    raise _refuse('there are no images; give at least one')
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    raise _refuse(
      f'labels are {labels.dtype}{list(labels.shape)}; give one integer an '
      'image'
    )
  if probabilities.shape != (len(labels), count):
    raise _refuse(
      f'probabilities have the shape {list(probabilities.shape)}; '
      f'{len(labels)} images and {count} classes need {[len(labels), count]}'
    )
  wrong = np.flatnonzero((labels < 0) | (labels >= count))
  if wrong.size:
    raise _refuse(
      f'image {wrong[0]} has the label {labels[wrong[0]]}; labels of {count} '
      f'classes go from 0 to {count - 1}'
    )
  probabilities = probabilities.astype(np.float64)
  wrong = np.flatnonzero(~np.isfinite(probabilities).all(1))
  if wrong.size:
    raise _refuse(
      f'the probabilities of image {wrong[0]} are not finite; look for a run '
      'that diverged'
    )
  sums = probabilities.sum(1)
  bad = (probabilities < 0.0).any(1) | (np.abs(sums - 1.0) > _SUM_TOLERANCE)
  wrong = np.flatnonzero(bad)
  if wrong.size:
    raise _refuse(
      f'the row of image {wrong[0]} has the sum {sums[wrong[0]]:.4g} and the '
      f'minimum {probabilities[wrong[0]].min():.4g}; give probabilities, such '
      'as the softmax of the logits'
    )
  return labels.astype(np.int64), probabilities / sums[:, None]


def accuracy_interval(correct: int, images: int) -> tuple[float, float]:
  """The 95 % Wilson score interval of an accuracy, as two fractions.

  >>> low, high = accuracy_interval(8, 10)
  >>> print(f'{low:.3f} {high:.3f}')
  0.490 0.943
  """
  interval = stats.binomtest(correct, images).proportion_ci(
    CONFIDENCE, method='wilson'
  )
  return float(interval.low), float(interval.high)


def _number(value: float) -> float | None:
  """None for what is not defined."""
  return None if np.isnan(value) else float(value)


def _per_class(
  labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]
) -> list[dict[str, Any]]:
  columns = metrics.precision_recall_fscore_support(
    labels, predicted, labels=range(len(classes)), zero_division=np.nan
  )
  counts = np.bincount(predicted, minlength=len(classes))
  return [
    {
      'class': name,
      'precision': _number(precision),
      'recall': _number(recall),
      'f1': _number(f1),
      'support': int(support),
      'predicted': int(count),
    }
    for name, precision, recall, f1, support, count in zip(
      classes, *columns, counts
    )
  ]


def of(
  labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
  """Scores the probabilities of classes.

  The predicted class is the one of the largest probability, the first of
  equal ones. `accuracy`, `accuracy_interval`, `error` and `top5_accuracy` are
  in %, all other rates are fractions. None stands for what is not defined,
  never a 0:

  * `precision` of a class that is never predicted;
  * `recall` of a class without an image;
  * `f1`, 2 TP / (2 TP + FP + FN), of a class that is both. It is 0 for a class
    that has images and is never predicted;
  * `top5_accuracy` of 5 classes or fewer.

  Args:
    labels: i32[N], from 0 to K - 1.
    probabilities: f32[N, K], rows that sum to 1 within 1e-3.
    classes: K names, which need not differ.

  Returns:
    A dict that JSON holds:

    * `images`, `correct`: counts; `classes`: the names;
    * `accuracy`, `accuracy_interval` (95 % Wilson), `error`, `top5_accuracy`;
    * `balanced_accuracy`: the mean recall of the classes that have images, in
      %;
    * `macro_f1`: the mean over the classes with an `f1`, `macro_f1_classes` of
      them;
    * `per_class`: by class `class`, `precision`, `recall`, `f1`, `support`
      (the number of its images) and `predicted` (of how many images it is
      predicted);
    * `without_images`, `never_predicted`: names of those classes;
    * `confusion`: counts, a row for each true class, a column for each
      predicted one;
    * `calibration`: as `calibration.of` returns it;
    * `nll`: mean negative log-likelihood of the true class in nats;
      `nll_floored`: number of images whose true class has a probability of
      less than 1.2e-38, the smallest normal number of float32, which counts as
      that;
    * `brier`: mean over images of the squared distance between probabilities
      and the one-hot label, from 0 to 2.

  Raises:
    errors.UserError: as `checked` does.

  >>> found = of(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), 'ab')
  >>> found['error'], found['per_class'][1]['precision']
  (50.0, None)
  """
  labels, probabilities = checked(labels, probabilities, classes)
  count, names = len(labels), list(classes)
  predicted = probabilities.argmax(1)
  right = predicted == labels
  per_class = _per_class(labels, predicted, names)
  recalls = [e['recall'] for e in per_class if e['recall'] is not None]
  defined = [e['f1'] for e in per_class if e['f1'] is not None]
  of_true = probabilities[np.arange(count), labels]
  top5 = None
  if len(names) > _TOP:
    top5 = 100.0 * metrics.top_k_accuracy_score(
      labels, probabilities, k=_TOP, labels=range(len(names))
    )
  low, high = accuracy_interval(int(right.sum()), count)
  one_hot = np.eye(len(names))[labels]
  return {
    'images': count,
    'classes': names,
    'correct': int(right.sum()),
    'accuracy': 100.0 * float(right.mean()),
    'accuracy_interval': [100.0 * low, 100.0 * high],
    'error': 100.0 * float((~right).mean()),
    'top5_accuracy': None if top5 is None else float(top5),
    'balanced_accuracy': 100.0 * float(np.mean(recalls)),
    'macro_f1': float(np.mean(defined)),
    'macro_f1_classes': len(defined),
    'per_class': per_class,
    'without_images': [e['class'] for e in per_class if not e['support']],
    'never_predicted': [e['class'] for e in per_class if not e['predicted']],
    'confusion': metrics.confusion_matrix(
      labels, predicted, labels=range(len(names))
    ).tolist(),
    'calibration': calibration.of(probabilities.max(1), right),
    'nll': 0.0 - float(np.log(np.maximum(of_true, _FLOOR)).mean()),
    'nll_floored': int((of_true < _FLOOR).sum()),
    'brier': float(((probabilities - one_hot) ** 2).sum(1).mean()),
  }


def _distances(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """f64[N, P / 2], in % of the distance of the first two true points.

  Raises:
    errors.UserError: as `of_points` does.
  """
  true, predicted = np.asarray(true), np.asarray(predicted)
  if not true.size:
    raise _refuse('there are no images; give at least one')
  if true.ndim != 2 or true.shape[1] % 2 or true.shape[1] < 4:
    raise _refuse(
      f'true points have the shape {list(true.shape)}; give a row x, y, x, y, '
      '... of at least two points for each image'
    )
  if predicted.shape != true.shape:
    raise _refuse(
      f'predicted points have the shape {list(predicted.shape)}; the true ones '
      f'have {list(true.shape)}'
    )
  for name, points in (('true', true), ('predicted', predicted)):
    wrong = np.flatnonzero(~np.isfinite(points).all(1))
    if wrong.size:
      raise _refuse(f'the {name} points of image {wrong[0]} are not finite')
  true, predicted = (
    points.astype(np.float64).reshape(len(points), -1, 2)
    for points in (true, predicted)
  )
  eyes = np.linalg.norm(true[:, 0] - true[:, 1], axis=-1)
  wrong = np.flatnonzero(eyes == 0.0)
  if wrong.size:
    raise _refuse(
      f'the first two true points of image {wrong[0]} are the same, and their '
      'distance is the unit of the error; leave that image out'
    )
  away = np.linalg.norm(predicted - true, axis=-1)
  return 100.0 * away / eyes[:, None]


def of_points(true: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
  """Scores points, in % of the distance of the first two true ones (L2I).

  The error of an image is the mean over its points, as
  `losses.interocular_error` has it.

  Args:
    true: f32[N, P], P / 2 >= 2 points x, y, x, y, ...; the first two are the
      eyes.
    predicted: f32[N, P], in the same unit.

  Returns:
    A dict that JSON holds: `images`, `points`; `error`, the mean over images;
    `failure`, the percentage of images with an error above 10; `per_point`, by
    point the mean over images; `curve`, the cumulative error: by `threshold`
    the `share` of images, in %, whose error is not above it.

  Raises:
    errors.UserError: for any other shape, no images, numbers that are not
      finite, or first two true points that are the same.

  >>> true = np.array([[0.0, 0.0, 2.0, 0.0]])  # eyes at a distance of 2
  >>> found = of_points(true, true + [0.0, 0.0, 0.0, 0.2])
  >>> round(found['error'], 6), [round(e, 6) for e in found['per_point']]
  (5.0, [0.0, 10.0])
  """
  distances = _distances(true, predicted)
  by_image = distances.mean(1)
  return {
    'images': len(by_image),
    'points': distances.shape[1],
    'error': float(by_image.mean()),
    'failure': 100.0 * float((by_image > FAILED).mean()),
    'per_point': distances.mean(0).tolist(),
    'curve': [
      {'threshold': at, 'share': 100.0 * float((by_image <= at).mean())}
      for at in THRESHOLDS
    ],
  }
