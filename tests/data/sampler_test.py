"""Streams of rows: whole epochs, any order of asking, one stream per name."""

import collections

import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax.data import sampler

ROWS = np.array([3, 5, 8, 13, 21, 34, 55], np.int32)


def stream(batch, rows=ROWS, seed=0, name='labeled'):
  return sampler.Stream(rows, batch, seed=seed, name=name)


def joined(source, steps):
  return np.concatenate([source(step) for step in range(steps)])


class EpochTest(parameterized.TestCase):
  # Batches that divide an epoch, cross its end, fill it, and exceed it.
  @parameterized.parameters(1, 2, 3, 5, 7, 8, 20)
  def test_each_row_once_per_epoch(self, batch):
    rows = joined(stream(batch), 7 * 4)
    self.assertLen(rows, 7 * 4 * batch)
    for epoch in rows.reshape(-1, 7):
      np.testing.assert_array_equal(np.sort(epoch), ROWS)

  def test_epochs_differ(self):
    epochs = joined(stream(7), 30)
    self.assertGreater(len(set(map(tuple, epochs.reshape(-1, 7)))), 25)

  def test_order_does_not_depend_on_batch(self):
    np.testing.assert_array_equal(joined(stream(2), 30), joined(stream(20), 3))

  def test_every_place_is_as_likely(self):
    epochs = joined(stream(7), 2000).reshape(-1, 7)
    error = (2000 * 6 / 49) ** 0.5
    for row in ROWS:
      np.testing.assert_allclose(
        (epochs == row).sum(0), 2000 / 7, atol=4.5 * error
      )


class StreamTest(parameterized.TestCase):
  @parameterized.parameters(3, 7, 20)
  def test_random_access_equals_sequential(self, batch):
    in_order = [stream(batch)(step) for step in range(40)]
    source = stream(batch)
    for step in np.random.default_rng(0).permutation(40):
      np.testing.assert_array_equal(source(int(step)), in_order[step])
      np.testing.assert_array_equal(source(int(step)), in_order[step])

  def test_far_step_is_quick_and_right(self):
    # A resumed run asks for its own step first.
    far = stream(3)(7 * 10**9)
    np.testing.assert_array_equal(far, stream(21)(10**9)[:3])
    self.assertLen(set(far), 3)

  @parameterized.parameters(
    (dict(seed=1),), (dict(name='unlabeled'),), (dict(name='labelle'),)
  )
  def test_streams_differ(self, changed):
    one, other = joined(stream(7), 20), joined(stream(7, **changed), 20)
    self.assertLess((one == other).mean(), 0.35)  # 1/7 by chance

  def test_same_seed_and_name_are_the_same(self):
    np.testing.assert_array_equal(joined(stream(5), 9), joined(stream(5), 9))

  @parameterized.parameters(7, 0)
  def test_batch_0(self, size):
    source = stream(0, rows=ROWS[:size])
    for step in (0, 1, 1000):
      self.assertEqual(source(step).shape, (0,))
      self.assertEqual(source(step).dtype, np.int32)

  def test_one_row(self):
    found = collections.Counter(joined(stream(4, rows=ROWS[:1]), 5).tolist())
    self.assertEqual(found, {3: 20})

  def test_gives_int32_and_leaves_its_input(self):
    rows = np.arange(6)
    found = stream(4, rows=rows)(0)
    self.assertEqual(found.dtype, np.int32)
    found[:] = -1
    np.testing.assert_array_equal(rows, np.arange(6))
    np.testing.assert_array_equal(stream(4, rows=rows)(0) >= 0, True)

  def test_written_batch_does_not_spoil_the_epoch(self):
    source = stream(7)
    source(0)[:] = -1
    np.testing.assert_array_equal(source(0), stream(7)(0))


if __name__ == '__main__':
  absltest.main()
