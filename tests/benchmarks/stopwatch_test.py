"""Calls that take turns, and the ratio of neighbors."""

import contextlib
import io
from unittest import mock

import jax
import jax.numpy as jnp
from absl.testing import absltest

from nsl_jax.benchmarks import step_times, stopwatch
from nsl_jax.commands import bench
from nsl_jax.training import sharding as mesh_lib


class StopwatchTest(absltest.TestCase):
  def test_calls_take_turns(self):
    called = []
    subjects = {
      name: stopwatch.Subject(
        lambda name=name: called.append(name), 0, None, None, str
      )
      for name in 'ab'
    }
    setting = stopwatch.Setting(
      1, 1, (8, 8, 1), 10, 4, 'float32', mesh_lib.make(1)
    )
    taken = stopwatch.in_turn(subjects, setting, steps=9)
    self.assertEqual({k: len(v) for k, v in taken.items()}, {'a': 3, 'b': 3})
    self.assertEqual(''.join(called[-6:]), 'ababab')
    self.assertGreater(len(called), 6)  # some came before, untimed

  def test_untimed_calls_end_once_memory_is_still(self):
    for sizes, calls in (  # in MB, before and after the calls
      ([100, 100, 100, 100], 2),
      ([100, 200, 200, 300, 300, 300], 3),
      ([*range(100, 900, 50)], 8),  # grows for ever
    ):
      peaks = iter([2**20 * size for size in sizes])
      called = []
      with mock.patch.object(stopwatch, '_peak_of_process', side_effect=peaks):
        stopwatch._warm_up([lambda: called.append(1)])
      self.assertLen(called, calls)

  def test_ratio_is_the_median_of_neighbors(self):
    self.assertEqual(step_times.ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]), 3.0)

  def test_inference_goes_through_all_images_of_a_call(self):
    setting = stopwatch.Setting(
      2, 1, (8, 8, 1), 10, 2, 'float32', mesh_lib.make(1)
    )
    data = stopwatch.random_data((), setting, 'standard')
    seen = []

    def predict(state, images):
      self.assertEqual(images.shape, (3, 8, 8, 1))
      jax.debug.callback(lambda x: seen.append(float(x)), images[0, 0, 0, 0])
      return {'a': images[:, 0, 0] + state, 'b': images[:, 0, :, 0]}

    one = stopwatch.inference(
      predict, jnp.zeros(()), setting, lambda fitted, x: x / 255.0, data
    )
    one.call()
    jax.effects_barrier()
    first = data.images[jnp.asarray([0, 3]), 0, 0, 0]
    self.assertSequenceAlmostEqual(sorted(seen), sorted(first / 255.0))

  def test_bench_takes_a_pair_inference_and_bfloat16(self):
    printed = io.StringIO()
    with (
      mock.patch.object(stopwatch, '_WARM_UP', (1, 1)),
      contextlib.redirect_stdout(printed),
    ):
      bench.main(
        [
          '--method=dnll:count=2',
          '--model=mlp',
          '--batch=2+2',
          '--image=8x8x1',
          '--steps=1',
          '--augment=',
          '--precision=bfloat16',
          '--inference',
        ]
      )
    lines = printed.getvalue().splitlines()
    self.assertStartsWith(lines[3], '| dnll:count=2 |')
    self.assertGreater(float(lines[3].strip('|').split('|')[-1]), 0.0)
    self.assertIn('inference ms', lines[1])

  def test_the_empty_pipeline_can_be_left_out(self):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      bench.main(
        [
          '--method=supervised',
          '--model=mlp',
          '--batch=2+2',
          '--image=8x8x1',
          '--steps=1',
          '--full_only',
        ]
      )
    self.assertNotIn('empty pipeline', printed.getvalue())
    header, rule, row = printed.getvalue().splitlines()[1:4]
    self.assertEqual(header.count('|'), row.count('|'))
    self.assertEqual(header.count('|'), rule.count('|'))


if __name__ == '__main__':
  absltest.main()
