"""Scores of predictions: by hand, at their limits, beside scikit-learn."""

import functools
import json
import math
import warnings

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from score_inputs import LABELS, PROBABILITIES
from sklearn import metrics

from nsl_jax import errors
from nsl_jax.compose import tasks
from nsl_jax.reports.evaluation import calibration, scores


def _wilson(correct, images):
  """The interval as Wilson (1927) writes it."""
  z, p = 1.959963984540054, correct / images
  middle = p + z * z / (2 * images)
  half = z * math.sqrt(p * (1 - p) / images + z * z / (4 * images**2))
  return [
    100 * (middle + sign * half) / (1 + z * z / images) for sign in (-1, 1)
  ]


def _random(images, classes, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, images)
  logits = rng.normal(size=(images, classes)) + 2.0 * np.eye(classes)[labels]
  odds = np.exp(logits)
  return labels, (odds / odds.sum(1, keepdims=True)).astype(np.float32)


class ByHandTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.found = scores.of(LABELS, PROBABILITIES, 'abc')

  @parameterized.parameters(
    ('images', 4),
    ('correct', 2),
    ('accuracy', 50.0),
    ('error', 50.0),
    ('accuracy_interval', [15.0039, 84.9961]),
    ('top5_accuracy', None),
    ('macro_f1', (1 / 2 + 2 / 3 + 0) / 3),
    ('macro_f1_classes', 3),
    ('confusion', [[1, 1, 0], [0, 1, 0], [1, 0, 0]]),
    ('without_images', []),
    ('never_predicted', ['c']),
    ('nll', -math.log(0.7 * 0.3 * 0.9 * 0.15) / 4),
    ('nll_floored', 0),
    ('brier', (0.14 + 0.86 + 0.015 + 1.185) / 4),
  )
  def test_value(self, name, expected):
    if isinstance(expected, float) or name == 'accuracy_interval':
      np.testing.assert_allclose(self.found[name], expected, rtol=1e-5)
    else:
      self.assertEqual(self.found[name], expected)

  def test_what_is_undefined_is_none(self):
    never = self.found['per_class'][2]
    self.assertEqual(
      never,
      {
        'class': 'c',
        'precision': None,
        'recall': 0.0,
        'f1': 0.0,
        'support': 1,
        'predicted': 0,
      },
    )
    found = scores.of(LABELS[:3], PROBABILITIES[:3], 'abc')
    self.assertEqual(found['without_images'], ['c'])
    absent = found['per_class'][2]
    for name in ('precision', 'recall', 'f1'):
      self.assertIsNone(absent[name], name)
    self.assertEqual(found['macro_f1_classes'], 2)
    self.assertAlmostEqual(found['macro_f1'], 2 / 3)

  def test_predicted_without_an_image(self):
    found = scores.of(np.array([0]), np.array([[0.2, 0.8]]), 'ab')
    self.assertIsNone(found['per_class'][1]['recall'])
    self.assertEqual(found['per_class'][1]['precision'], 0.0)
    self.assertEqual(found['per_class'][1]['f1'], 0.0)

  def test_calibration(self):
    # Confidences 0.7, 0.6, 0.9, 0.65; edges at 9/15, 10/15, 11/15, 13/15.
    # In (8/15, 9/15] the 0.6 (wrong); in (9/15, 10/15] 0.65 (wrong); 0.7
    # (right); 0.9 (right).
    found = calibration.of(
      np.array([0.7, 0.6, 0.9, 0.65]), np.array([True, False, True, False])
    )
    self.assertEqual(found['bins'], 15)
    self.assertAlmostEqual(found['ece'], (0.3 + 0.6 + 0.1 + 0.65) / 4)
    self.assertEqual(
      [(e['confidence'], e['accuracy']) for e in found['reliability']],
      [(0.6, 0.0), (0.65, 0.0), (0.7, 1.0), (0.9, 1.0)],
    )
    np.testing.assert_allclose(
      [e['high'] for e in found['reliability']],
      [9 / 15, 10 / 15, 11 / 15, 14 / 15],
    )

  def test_images_of_a_bin_cancel_out(self):
    # Mean confidence 0.75 in (11/15, 12/15], 3 of 4 right: no gap.
    found = calibration.of(
      np.array([0.74, 0.76, 0.745, 0.755]), np.array([True, True, False, True])
    )
    self.assertLen(found['reliability'], 1)
    self.assertEqual(found['reliability'][0]['count'], 4)
    self.assertAlmostEqual(found['ece'], 0.0)

  def test_json_holds_it(self):
    text = json.dumps(self.found, allow_nan=False)
    self.assertEqual(json.loads(text), self.found)


class IntervalTest(parameterized.TestCase):
  @parameterized.parameters((0, 10), (1, 10), (8, 10), (10, 10), (1, 1))
  def test_as_wilson_has_it(self, correct, images):
    low, high = scores.accuracy_interval(correct, images)
    np.testing.assert_allclose(
      [100 * low, 100 * high], _wilson(correct, images), atol=1e-9
    )
    self.assertBetween(low, 0.0, high)
    self.assertLessEqual(high, 1.0)

  def test_from_a_table(self):
    # 8 of 10: z^2 = 3.8415; (0.8 + 0.19207 +- 1.96 * 0.15955) / 1.38415.
    np.testing.assert_allclose(
      scores.accuracy_interval(8, 10), [0.4902, 0.9433], atol=1e-4
    )


class LimitsTest(parameterized.TestCase):
  def test_perfect(self):
    found = scores.of(np.arange(7), np.eye(7), 'abcdefg')
    for name in ('accuracy', 'top5_accuracy'):
      self.assertEqual(found[name], 100.0, name)
    for name in ('error', 'nll', 'brier'):
      self.assertEqual(found[name], 0.0, name)
      self.assertEqual(math.copysign(1.0, found[name]), 1.0, name)
    self.assertEqual(found['macro_f1'], 1.0)
    self.assertEqual(found['calibration']['ece'], 0.0)
    self.assertEqual(found['accuracy_interval'][1], 100.0)

  def test_all_wrong_and_sure(self):
    found = scores.of(np.arange(3), np.eye(3)[[1, 2, 0]], 'abc')
    self.assertEqual(found['accuracy'], 0.0)
    self.assertEqual(found['macro_f1'], 0.0)
    self.assertEqual(found['calibration']['ece'], 1.0)
    self.assertEqual(found['brier'], 2.0)
    self.assertEqual(found['nll_floored'], 3)
    self.assertAlmostEqual(found['nll'], 126 * math.log(2), places=5)
    self.assertEqual(found['accuracy_interval'][0], 0.0)

  def test_one_image_of_one_class(self):
    found = scores.of(np.array([0]), np.ones((1, 1)), ['only'])
    self.assertEqual((found['images'], found['accuracy']), (1, 100.0))
    self.assertEqual(found['confusion'], [[1]])

  def test_two_classes_equally_likely(self):
    found = scores.of(np.array([0, 1]), np.full((2, 2), 0.5), 'ab')
    self.assertEqual(found['confusion'], [[1, 0], [1, 0]])  # the first of both
    self.assertAlmostEqual(found['nll'], math.log(2))
    self.assertAlmostEqual(found['brier'], 0.5)

  def test_no_warning_of_what_is_undefined(self):
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      scores.of(LABELS[:1], PROBABILITIES[:1], 'abc')

  def test_rows_that_nearly_sum_to_one_are_divided(self):
    rough = PROBABILITIES * np.array([[1.0009], [0.9992], [1.0], [1.0]])
    exact = scores.of(LABELS, PROBABILITIES, 'abc')
    found = scores.of(LABELS, rough, 'abc')
    self.assertAlmostEqual(found['nll'], exact['nll'], places=6)
    self.assertAlmostEqual(found['brier'], exact['brier'], places=6)

  def test_inputs_are_left_as_they_are(self):
    labels, probabilities = LABELS.copy(), PROBABILITIES.copy()
    scores.of(labels, probabilities, 'abc')
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(probabilities, PROBABILITIES)


class ScikitLearnTest(parameterized.TestCase):
  @parameterized.parameters((300, 2), (500, 7), (60, 30))
  def test_agrees(self, images, classes):
    labels, probabilities = _random(images, classes)
    names = [str(n) for n in range(classes)]
    found = scores.of(labels, probabilities, names)
    predicted = probabilities.argmax(1)
    known = range(classes)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-9)
    near(found['accuracy'], 100 * metrics.accuracy_score(labels, predicted))
    near(
      found['macro_f1'], metrics.f1_score(labels, predicted, average='macro')
    )
    near(found['nll'], metrics.log_loss(labels, probabilities, labels=known))
    each = [
      metrics.brier_score_loss(labels == k, probabilities[:, k]) for k in known
    ]
    near(found['brier'], sum(each))
    np.testing.assert_array_equal(
      found['confusion'],
      metrics.confusion_matrix(labels, predicted, labels=known),
    )
    if classes > 5:
      near(
        found['top5_accuracy'],
        100
        * metrics.top_k_accuracy_score(
          labels, probabilities, k=5, labels=known
        ),
      )
    for name, score in (
      ('precision', metrics.precision_score),
      ('recall', metrics.recall_score),
      ('f1', metrics.f1_score),
    ):
      wanted = score(
        labels, predicted, average=None, labels=known, zero_division=np.nan
      )
      values = [e[name] for e in found['per_class']]
      near([np.nan if v is None else v for v in values], wanted)

  def test_ece_by_chance(self):
    """Of a coin's side it is 1/2; of many images it approaches 0."""
    of = lambda n: calibration.of(np.full(n, 0.5), np.ones(n, bool))
    self.assertEqual(of(1)['ece_by_chance'], 0.5)
    # The mean of |k - 2| / 4 for k of four heads: (2 * 2 + 8 * 1) / 64.
    self.assertAlmostEqual(of(4)['ece_by_chance'], 12 / 64, delta=0.04)
    self.assertLess(of(10_000)['ece_by_chance'], 0.01)

  def test_ece_of_a_loop(self):
    labels, probabilities = _random(400, 5, seed=1)
    confidences = probabilities.astype(float).max(1)
    right = probabilities.argmax(1) == labels
    total = 0.0
    for b in range(1, 16):
      inside = (confidences > (b - 1) / 15) & (confidences <= b / 15)
      if inside.any():
        gap = abs(right[inside].mean() - confidences[inside].mean())
        total += inside.mean() * gap
    found = scores.of(labels, probabilities, 'abcde')['calibration']
    self.assertAlmostEqual(found['ece'], total, places=6)
    self.assertEqual(sum(e['count'] for e in found['reliability']), 400)


class RefusedTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('no_images', [], np.zeros((0, 3)), 'there are no images'),
    ('nan', [0], [[np.nan, 0.5, 0.5]], 'of image 0 are not finite'),
    ('infinite', [0], [[np.inf, 0.5, 0.5]], 'of image 0 are not finite'),
    ('logits', [0, 1], [[1, 0, 0], [2, 1, 1]], 'row of image 1 has the sum 4'),
    ('nearly', [0], [[0.998, 0, 0]], 'the sum 0.998'),
    ('negative', [0], [[1.5, -0.5, 0]], 'the minimum -0.5'),
    ('too_large', [0, 3], np.eye(3)[:2], 'image 1 has the label 3; .* 0 to 2'),
    ('below_zero', [-1], np.eye(3)[:1], 'image 0 has the label -1'),
    ('fractions', [0.0], np.eye(3)[:1], r'labels are float64\[1\]'),
    ('one_hot', np.eye(3, dtype=int), np.eye(3), r'labels are int64\[3, 3\]'),
    ('columns', [0], [[1, 0]], r'shape \[1, 2\]; .* need \[1, 3\]'),
    ('rows', [0, 1], [[1, 0, 0]], r'shape \[1, 3\]; .* need \[2, 3\]'),
  )
  def test_in_one_line(self, labels, probabilities, message):
    with self.assertRaisesRegex(errors.UserError, message) as raised:
      scores.of(np.array(labels), np.array(probabilities, float), 'abc')
    self.assertNotIn('\n', str(raised.exception))


class PointsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # Eyes at distances of 10 and 20; three points.
    self.true = np.array([[0, 0, 10, 0, 5, 5], [0, 0, 0, 20, 8, 8]], np.float32)

  def test_by_hand(self):
    move = np.array([[3, 4, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0.6]], np.float32)
    found = scores.of_points(self.true, self.true + move)
    self.assertEqual((found['images'], found['points']), (2, 3))
    # 50, 0 and 10 % of the first distance; 0, 0 and 3 % of the second.
    np.testing.assert_allclose(found['per_point'], [25, 0, 6.5], rtol=1e-5)
    self.assertAlmostEqual(found['error'], (20 + 1) / 2, places=5)
    self.assertEqual(found['failure'], 50.0)
    shares = {e['threshold']: e['share'] for e in found['curve']}
    self.assertEqual(shares[0.5], 0.0)
    self.assertEqual(shares[1.5], 50.0)
    self.assertEqual(shares[25.0], 100.0)
    self.assertEqual(json.loads(json.dumps(found)), found)

  def test_as_training_evaluates(self):
    rng = np.random.default_rng(0)
    true = rng.normal(size=(50, 10)).astype(np.float32)
    near = true + 0.2 * rng.normal(size=true.shape).astype(np.float32)
    fitted = {'target_mean': jnp.zeros(10), 'target_std': jnp.ones(10)}
    wanted = tasks.REGRESSION.metrics(jnp.array(near), jnp.array(true), fitted)
    found = scores.of_points(true, near)
    self.assertAlmostEqual(
      found['error'], 100 * float(wanted['error'].mean()), places=2
    )
    self.assertAlmostEqual(
      found['failure'], 100 * float(wanted['failure'].mean()), places=4
    )
    shares = {e['threshold']: e['share'] for e in found['curve']}
    self.assertAlmostEqual(found['failure'], 100.0 - shares[scores.FAILED])

  def test_perfect(self):
    found = scores.of_points(self.true, self.true)
    self.assertEqual((found['error'], found['failure']), (0.0, 0.0))
    self.assertEqual({e['share'] for e in found['curve']}, {100.0})

  @parameterized.named_parameters(
    ('no_images', np.zeros((0, 4)), np.zeros((0, 4)), 'there are no images'),
    ('odd', np.ones((1, 5)), np.ones((1, 5)), r'the shape \[1, 5\]'),
    ('one_point', np.ones((1, 2)), np.ones((1, 2)), r'the shape \[1, 2\]'),
    ('other', np.eye(4), np.eye(4)[:2], r'\[2, 4\]; the true ones'),
    ('same_eyes', np.ones((1, 4)), np.ones((1, 4)), 'image 0 are the same'),
    ('nan', [[0, 0, 1, 1]], [[0, 0, 1, np.nan]], 'predicted points of image 0'),
  )
  def test_refused(self, true, predicted, message):
    with self.assertRaisesRegex(errors.UserError, message) as raised:
      scores.of_points(np.array(true), np.array(predicted))
    self.assertNotIn('\n', str(raised.exception))


if __name__ == '__main__':
  absltest.main()
