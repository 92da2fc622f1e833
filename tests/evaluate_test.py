"""Evaluation is exact: padding does not count, nor do batches or devices."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nsl_jax import evaluate
from nsl_jax import mesh as mesh_lib
from nsl_jax.types import Method

CLASSES = 3


def linear():
  """A method that judges by `images @ state`, f32[H * W * C, K]."""
  predict = lambda state, x: x.reshape(x.shape[0], -1) @ state
  return Method(init=None, update=None, predict=predict)


def normalise(fitted, images):
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


def run(images, labels, weights, batch, devices, scale=32.0):
  mesh = mesh_lib.make(devices)
  whole = mesh_lib.everywhere(mesh)
  judge = evaluate.make_evaluate(linear(), normalise)
  return judge(
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
    self.assertEqual(set(found), {'error', 'cross_entropy'})
    self.assertAlmostEqual(found['error'], error, places=9)
    self.assertAlmostEqual(found['cross_entropy'] / nats, 1, delta=1e-5)
    for value in found.values():
      self.assertIsInstance(value, float)

  @parameterized.parameters(0, 1, 2)
  def test_padding_is_neither_right_nor_wrong(self, label):
    # Padding is black and would be judged as class 0.
    images = np.ones((5, 2, 3, 1), np.uint8)
    labels = np.full(5, label, np.int32)
    weights = np.eye(6, CLASSES, dtype=np.float32)
    weights[:] = weights[::-1]
    for devices in (1, 4):
      found = run(images, labels, weights, 4, devices)
      judged = by_hand(images, labels, weights, 32.0)[0]
      self.assertEqual(found['error'], judged)
      self.assertIn(judged, (0, 100))

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
      return normalise(fitted, images)

    images, labels, weights = problem(30)
    mesh = mesh_lib.make(4)
    judge = evaluate.make_evaluate(linear(), counted)
    split = evaluate.on_device(images, labels, 8, mesh)
    for _ in range(2):
      judge(jnp.asarray(weights), {'scale': jnp.ones(())}, split)
    self.assertEqual(traces, [(8, 2, 3, 1)])

  def test_state_decides(self):
    images, labels, weights = problem(50)
    one = run(images, labels, weights, 16, 1)
    other = run(images, labels, -weights, 16, 1)
    self.assertNotEqual(one['error'], other['error'])


class OnDeviceTest(parameterized.TestCase):

  @parameterized.parameters(
      # count, batch, devices -> size and number of batches
      (16, 8, 1, 8, 2), (17, 8, 1, 8, 3), (5, 1000, 1, 5, 1),
      (5, 1000, 4, 8, 1), (16, 6, 4, 8, 2), (3, 1, 4, 4, 1),
  )
  def test_batches(self, count, batch, devices, size, number):
    images, labels, _ = problem(count)
    split = evaluate.on_device(images, labels, batch, mesh_lib.make(devices))
    self.assertEqual(split.size, count)
    self.assertLen(split.batches, number)
    for part, names in split.batches:
      self.assertEqual(part.shape, (size, 2, 3, 1))
      self.assertEqual(part.dtype, jnp.uint8)
      self.assertEqual(names.dtype, jnp.int32)
      self.assertLen(part.sharding.device_set, devices)
      shards = {shard.data.shape[0] for shard in part.addressable_shards}
      self.assertEqual(shards, {size // devices})
    parts, names = (
        np.concatenate(jax.device_get(arrays)) for arrays in zip(*split.batches)
    )
    np.testing.assert_array_equal(parts[:count], images)
    np.testing.assert_array_equal(names[:count], labels)
    np.testing.assert_array_equal(names[count:], -1)


if __name__ == '__main__':
  absltest.main()
