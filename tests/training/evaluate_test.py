"""Evaluation is exact: padding does not count, nor do batches or devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax.compose import tasks
from nsl_jax.training import evaluate, sharding as mesh_lib
from nsl_jax.types import Method

CLASSES = 3


def linear():
  """A method that judges by `images @ state`, f32[H * W * C, K]."""
  predict = lambda state, x: x.reshape(x.shape[0], -1) @ state
  return Method(init=None, update=None, predict=predict)


def normalize(fitted, images):
  return images.astype(jnp.float32) / fitted['scale']


def problem(count, seed=0):
  """Images u8[count, 2, 3, 1], labels i32[count] and weights f32[6, K]."""
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (count, 2, 3, 1)).astype(np.uint8)
  labels = rng.integers(0, CLASSES, count).astype(np.int32)
  return images, labels, rng.normal(size=(6, CLASSES)).astype(np.float32)


def by_hand(images, labels, weights, scale):
  """Error in % and mean cross-entropy in nats, in float64."""
  logits = images.reshape(len(images), -1).astype(np.float64) / scale @ weights
  wrong = logits.argmax(1) != labels
  top = logits.max(1, keepdims=True)
  log_sum = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
  nats = log_sum - logits[np.arange(len(labels)), labels]
  return 100 * wrong.mean(), nats.mean()


def by_class(images, labels, weights):
  """Error in % (None without images) and number of predictions by class."""
  logits = images.reshape(len(images), -1).astype(np.float64) @ weights
  guess = logits.argmax(1)
  error = [
    100 * float((guess[labels == k] != k).mean()) if k in labels else None
    for k in range(CLASSES)
  ]
  return error, [int((guess == k).sum()) for k in range(CLASSES)]


def run(images, labels, weights, batch, devices, scale=32.0):
  mesh = mesh_lib.make(devices)
  whole = mesh_lib.replicated_sharding(mesh)
  measure = evaluate.make_evaluate(linear(), normalize)
  return measure(
    mesh_lib.put(weights, whole),
    mesh_lib.put({'scale': np.float32(scale)}, whole),
    evaluate.on_device(images, labels, batch, mesh),
  )


class EvaluateTest(parameterized.TestCase):
  @parameterized.product(
    # Whole batches; one short by one, by most; fewer images than devices;
    # fewer than a batch.
    sizes=((16, 8), (15, 8), (17, 8), (30, 7), (3, 2), (1, 8), (5, 1000)),
    devices=(1, 4),
  )
  def test_against_numpy(self, sizes, devices):
    count, batch = sizes
    images, labels, weights = problem(count)
    found = run(images, labels, weights, batch, devices)
    error, nats = by_hand(images, labels, weights, 32.0)
    self.assertEqual(set(found), {'error', 'cross_entropy', 'by_class'})
    self.assertAlmostEqual(found['error'], error, places=9)
    self.assertAlmostEqual(found['cross_entropy'] / nats, 1, delta=1e-5)
    for name in ('error', 'cross_entropy'):
      self.assertIsInstance(found[name], float)
    wrong, predicted = by_class(images, labels, weights)
    self.assertEqual(found['by_class']['predicted'], predicted)
    for one, other in zip(found['by_class']['error'], wrong, strict=True):
      if other is None:
        self.assertIsNone(one)
      else:
        self.assertAlmostEqual(one, other, places=9)
    json.dumps(found)  # plain numbers, for a file

  @parameterized.parameters(0, 1, 2)
  def test_padding_is_neither_right_nor_wrong(self, label):
    # Padding is black and would be counted as class 0.
    images = np.ones((5, 2, 3, 1), np.uint8)
    labels = np.full(5, label, np.int32)
    weights = np.eye(6, CLASSES, dtype=np.float32)
    weights[:] = weights[::-1]
    for devices in (1, 4):
      found = run(images, labels, weights, 4, devices)
      expected = by_hand(images, labels, weights, 32.0)[0]
      self.assertEqual(found['error'], expected)
      self.assertIn(expected, (0, 100))
      self.assertEqual(sum(found['by_class']['predicted']), 5)

  def test_many_batches(self):
    # A sum of shares would be off; counts are whole numbers.
    images, labels, weights = problem(4999)
    found = run(images, labels, weights, 64, 4)
    error, nats = by_hand(images, labels, weights, 32.0)
    self.assertEqual(round(found['error'] * 49.99, 6) % 1, 0)
    self.assertAlmostEqual(found['error'], error, places=9)
    self.assertAlmostEqual(found['cross_entropy'] / nats, 1, delta=1e-5)

  def test_compiles_once(self):
    traces = []

    def counted(fitted, images):
      traces.append(images.shape)
      return normalize(fitted, images)

    images, labels, weights = problem(30)
    mesh = mesh_lib.make(4)
    measure = evaluate.make_evaluate(linear(), counted)
    split = evaluate.on_device(images, labels, 8, mesh)
    for _ in range(2):
      measure(jnp.asarray(weights), {'scale': jnp.ones(())}, split)
    self.assertEqual(traces, [(8, 2, 3, 1)])

  def test_state_decides(self):
    images, labels, weights = problem(50)
    one = run(images, labels, weights, 16, 1)
    other = run(images, labels, -weights, 16, 1)
    self.assertNotEqual(one['error'], other['error'])


class OnDeviceTest(parameterized.TestCase):
  @parameterized.parameters(
    # count, batch, devices -> size and number of batches
    (16, 8, 1, 8, 2),
    (17, 8, 1, 8, 3),
    (5, 1000, 1, 5, 1),
    (5, 1000, 4, 8, 1),
    (16, 6, 4, 8, 2),
    (3, 1, 4, 4, 1),
  )
  def test_batches(self, count, batch, devices, size, number):
    images, labels, _ = problem(count)
    split = evaluate.on_device(images, labels, batch, mesh_lib.make(devices))
    self.assertEqual(split.size, count)
    self.assertLen(split.batches, number)
    for part, names, real in split.batches:
      self.assertEqual((real.shape, real.dtype), ((size,), bool))
      self.assertEqual(part.shape, (size, 2, 3, 1))
      self.assertEqual(part.dtype, jnp.uint8)
      self.assertEqual(names.dtype, jnp.int32)
      self.assertLen(part.sharding.device_set, devices)
      shards = {shard.data.shape[0] for shard in part.addressable_shards}
      self.assertEqual(shards, {size // devices})
    parts, names, real = (
      np.concatenate(jax.device_get(arrays)) for arrays in zip(*split.batches)
    )
    np.testing.assert_array_equal(real, np.arange(len(real)) < count)
    np.testing.assert_array_equal(parts[:count], images)
    np.testing.assert_array_equal(names[:count], labels)
    np.testing.assert_array_equal(names[count:], -1)


class NetworksTest(absltest.TestCase):
  """Methods of several networks."""

  def test_each_and_together(self):
    images, labels, one = problem(40)
    other = problem(40, seed=1)[2]
    predict = lambda state, x: {
      name: x.reshape(x.shape[0], -1) @ w for name, w in state.items()
    }
    method = Method(init=None, update=None, predict=predict)
    mesh = mesh_lib.make(1)
    found = evaluate.make_evaluate(method, normalize)(
      {'a': one, 'b': other},
      {'scale': np.float32(32.0)},
      evaluate.on_device(images, labels, 16, mesh),
    )
    for name, weights in (('a', one), ('b', other)):
      error, nats = by_hand(images, labels, weights, 32.0)
      self.assertAlmostEqual(found[f'error_{name}'], error, places=5)
      self.assertAlmostEqual(found[f'cross_entropy_{name}'], nats, delta=1e-4)
    flat = images.reshape(len(images), -1) / 32.0
    mean = np.mean(
      [
        np.exp(flat @ w) / np.exp(flat @ w).sum(1, keepdims=True)
        for w in (one, other)
      ],
      axis=0,
    )
    self.assertAlmostEqual(
      found['error_ensemble'], 100 * (mean.argmax(1) != labels).mean(), places=5
    )
    nats = -np.log(mean[np.arange(40), labels]).mean()
    self.assertAlmostEqual(found['cross_entropy_ensemble'], nats, delta=1e-4)

  def test_certain_networks_have_a_finite_ensemble(self):
    images = np.full((4, 2, 3, 1), 255, np.uint8)
    weights = np.zeros((6, CLASSES), np.float32)
    weights[:, 0] = 100.0
    predict = lambda state, x: dict.fromkeys(
      'ab', x.reshape(x.shape[0], -1) @ state
    )
    method = Method(init=None, update=None, predict=predict)
    found = evaluate.make_evaluate(method, normalize)(
      weights,
      {'scale': np.float32(255.0)},
      evaluate.on_device(images, np.full(4, 1, np.int32), 4, mesh_lib.make(1)),
    )
    self.assertAlmostEqual(found['cross_entropy_ensemble'], 600.0, delta=1e-2)


class ReportTest(absltest.TestCase):
  def test_one_network(self):
    tested = {'error': 3.0, 'cross_entropy': 0.1}
    self.assertEqual(
      evaluate.report(tested, None),
      {
        'test_error': 3.0,
        'test_cross_entropy': 0.1,
        'validation_error': None,
        'validation_cross_entropy': None,
      },
    )
    held_out = {'error': 4.0, 'cross_entropy': 0.2}
    self.assertEqual(evaluate.report(tested, held_out)['validation_error'], 4.0)

  def test_by_class_is_of_the_network_that_is_chosen(self):
    of = lambda n: {'error': [n, None], 'predicted': [int(n), 9]}
    numbers = lambda a, b: {
      'error_a': a,
      'cross_entropy_a': 1.0,
      'by_class_a': of(a),
      'error_b': b,
      'cross_entropy_b': 1.0,
      'by_class_b': of(b),
      'error_ensemble': 1.0,
      'cross_entropy_ensemble': 1.0,
      'by_class_ensemble': of(0.0),
    }
    line = evaluate.report(numbers(5.0, 7.0), numbers(9.0, 8.0))
    self.assertEqual(
      line['by_class'],
      {
        'validation_error': [8.0, None],
        'validation_predicted': [8, 9],
        'test_error': [7.0, None],
        'test_predicted': [7, 9],
      },
    )
    self.assertEmpty([k for k in line if '_by_class' in k])
    alone = evaluate.report(
      {'error': 5.0, 'cross_entropy': 1.0, 'by_class': of(5.0)}, None
    )
    self.assertEqual(
      alone['by_class'], {'test_error': [5.0, None], 'test_predicted': [5, 9]}
    )

  def test_validation_chooses_the_network(self):
    """F-D12: neither the test images nor the ensemble do."""
    numbers = lambda a, b, both: {
      'error_a': a,
      'cross_entropy_a': a / 10,
      'error_b': b,
      'cross_entropy_b': b / 10,
      'error_ensemble': both,
      'cross_entropy_ensemble': both / 10,
    }
    tested = numbers(5.0, 7.0, 1.0)
    line = evaluate.report(tested, numbers(9.0, 8.0, 0.5))
    self.assertEqual(line['submodel'], 'b')
    self.assertEqual((line['test_error'], line['validation_error']), (7.0, 8.0))
    self.assertEqual(line['test_cross_entropy'], 0.7)
    self.assertEqual(line['test_error_a'], 5.0)
    self.assertEqual(line['test_error_ensemble'], 1.0)
    alone = evaluate.report(numbers(7.0, 5.0, 1.0), None)
    self.assertEqual(
      (alone['submodel'], alone['test_error'], alone['validation_error']),
      ('a', 7.0, None),
    )


class CollapseTest(parameterized.TestCase):
  @parameterized.parameters(
    # Predictions of the 100 test images by class, labels of class 1.
    ([0, 100, 0], 10, 'class 1 is 100.0 % of the test predictions and 10.0'),
    ([4, 96, 0], 79, 'class 1 is 96.0 % of the test predictions and 79.0 %'),
    ([4, 96, 0], 80, None),  # it has that many
    ([5, 95, 0], 10, None),
    ([50, 50, 0], 10, None),
  )
  def test_one_class_for_everything(self, predicted, known, message):
    labels = {
      'test': np.array([1] * known + [2] * (100 - known)),
      'validation': np.arange(0),
    }
    line = {'by_class': {'test_predicted': predicted}}
    found = evaluate.collapse(line, labels)
    if message is None:
      self.assertIsNone(found)
    else:
      self.assertStartsWith(found, message)

  def test_of_validation_images(self):
    labels = {'test': np.arange(10), 'validation': np.arange(10)}
    line = {
      'by_class': {
        'test_predicted': [1] * 10,
        'validation_predicted': [0] * 9 + [10],
      }
    }
    self.assertIn(
      'class 9 is 100.0 % of the validation predictions',
      evaluate.collapse(line, labels),
    )

  def test_of_points(self):
    self.assertIsNone(evaluate.collapse({}, {'test': np.zeros((5, 10))}))


class PointsTest(parameterized.TestCase):
  @parameterized.product(batch=(4, 16), devices=(1, 4))
  def test_mean_landmarks_against_a_loop(self, batch, devices):
    """Who always says 0 says the mean of the labeled points."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (11, 2, 3, 1)).astype(np.uint8)
    points = rng.uniform(0, 60, (11, 10)).astype(np.float32)
    known = (points[:6] + rng.normal(size=(6, 10))).astype(np.float32)
    mean, errors = known.mean(0), []
    for one in points:
      eyes = np.hypot(one[0] - one[2], one[1] - one[3])
      away = [
        np.hypot(one[i] - mean[i], one[i + 1] - mean[i + 1])
        for i in range(0, 10, 2)
      ]
      errors.append(np.mean(away) / eyes)
    errors[0], points[0] = 0.0, mean  # one that is found
    mesh = mesh_lib.make(devices)
    whole = mesh_lib.replicated_sharding(mesh)
    measure = evaluate.make_evaluate(linear(), normalize, tasks.REGRESSION)
    found = measure(
      mesh_lib.put(np.zeros((6, 10), np.float32), whole),
      mesh_lib.put(
        {'scale': np.float32(32.0), **tasks.REGRESSION.fit(known)}, whole
      ),
      evaluate.on_device(images, points, batch, mesh),
    )
    self.assertEqual(set(found), {'error', 'failure'})
    np.testing.assert_allclose(found['error'], 100 * np.mean(errors), rtol=1e-5)
    self.assertAlmostEqual(found['failure'], 100 * 10 / 11, places=9)
    self.assertGreater(min(errors[1:]), 0.1)

  @parameterized.parameters(1, 3)
  def test_left_of_the_image_counts(self, batch):
    """Four faces whose eyes are 30 apart, each point 6 off: 6 / 30."""
    known = np.array([[-1.0, 20, 29, 20, 10, 30]] * 4, np.float32)
    known += np.arange(4)[:, None] * np.array([-3, 0] * 3, np.float32)
    self.assertLess(known[:, 0].max(), 0.0)
    fitted = {
      'target_mean': np.zeros(6, np.float32),
      'target_std': np.ones(6, np.float32),
    }
    predict = lambda state, x: state[x[:, 0, 0, 0].astype(int)]
    measure = evaluate.make_evaluate(
      Method(init=None, update=None, predict=predict),
      lambda fitted, images: images,
      tasks.REGRESSION,
    )
    found = measure(
      jnp.asarray(known + np.array([6, 0] * 3)),
      fitted,
      evaluate.on_device(
        np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1),
        known,
        batch,
        mesh_lib.make(1),
      ),
    )
    self.assertAlmostEqual(found['error'], 20.0, delta=1e-4)
    self.assertEqual(found['failure'], 100.0)

  def test_report_of_points(self):
    tested = {'error': 12.0, 'failure': 40.0}
    line = evaluate.report(tested, {'error': 11.0, 'failure': 30.0})
    self.assertEqual(
      line,
      {
        'validation_error': 11.0,
        'validation_failure': 30.0,
        'test_error': 12.0,
        'test_failure': 40.0,
      },
    )
    self.assertEqual(
      evaluate.report(tested, None),
      {
        'test_error': 12.0,
        'test_failure': 40.0,
        'validation_error': None,
        'validation_failure': None,
      },
    )


if __name__ == '__main__':
  absltest.main()
