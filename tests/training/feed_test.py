"""Rows of the calls, and images that are read on the host."""

import numpy as np
from absl.testing import absltest

from nsl_jax.data import sampler
from nsl_jax.training import feed, loop, sharding

IMAGES = np.arange(20 * 2 * 2, dtype=np.uint8).reshape(20, 2, 2, 1)


class FeedTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.mesh = sharding.make(1)
    self.streams = {
      name: sampler.Stream(np.arange(20), size, seed=0, name=name)
      for name, size in (('labeled', 2), ('unlabeled', 3))
    }

  def test_images_belong_to_the_rows(self):
    found = feed.rows_at(self.streams, range(4, 6), self.mesh, IMAGES)
    self.assertEqual(found['labeled_images'].shape, (2, 2, 2, 2, 1))
    for name in self.streams:
      np.testing.assert_array_equal(
        found[f'{name}_images'], IMAGES[np.asarray(found[name])]
      )

  def test_streamed_calls_are_the_same_calls(self):
    plan = loop.Plan(23, 5, 10, 20, 5, 1)
    plain = list(feed.calls(plan.calls(3), self.streams, self.mesh))
    streamed = list(feed.calls(plan.calls(3), self.streams, self.mesh, IMAGES))
    self.assertEqual(
      [steps for steps, _ in plain], [steps for steps, _ in streamed]
    )
    done = [step for steps, _ in plain for step in steps]
    self.assertEqual(done, list(range(3, 23)))
    for (_, rows), (_, more) in zip(plain, streamed):
      self.assertEqual({*rows}, {'labeled', 'unlabeled'})
      for name in rows:
        np.testing.assert_array_equal(rows[name], more[name])

  def test_reading_stops_with_the_run(self):
    requested = []

    class Slow:
      def __getitem__(self, rows):
        requested.append(rows)
        return IMAGES[rows]

    calls = feed.calls(
      loop.Plan(1000, 5, 10, 20, 5, 1).calls(0), self.streams, self.mesh, Slow()
    )
    next(calls)
    calls.close()
    self.assertLess(len(requested), 2 * 10)

  def test_an_error_reaches_the_loop(self):
    class Gone:
      def __getitem__(self, rows):
        raise OSError('the disk is gone')

    calls = feed.calls(
      loop.Plan(10, 5, 10, 20, 5, 1).calls(0), self.streams, self.mesh, Gone()
    )
    with self.assertRaisesRegex(OSError, 'the disk is gone'):
      next(calls)


if __name__ == '__main__':
  absltest.main()
