"""The ledger: runs of a row that differ in their seeds alone are one result."""

from absl.testing import absltest
from ledger_inputs import result_of

from nsl_jax.reports import ledger


def part_of(seeds: list[int], per_seed: list[float], **changes) -> dict:
  """A run of these seeds, whose split hashes name them."""
  fields = {
    'seeds': seeds,
    'split_sha256': [f'split {seed}' for seed in seeds],
    'wall_time_s': 10.0,
  }
  return result_of('NS-T6-8', per_seed, **fields | changes)


class JoinTest(absltest.TestCase):
  def test_other_seeds_are_joined_in_order(self):
    other = result_of('NS-T6-1', [9.0])
    (joined, kept) = ledger.join(
      [part_of([2], [5.0]), other, part_of([0, 1], [1.0, 3.0])]
    )
    self.assertEqual(kept, other)
    self.assertEqual(joined['seeds'], [0, 1, 2])
    self.assertEqual(joined['score']['per_seed'], [1.0, 3.0, 5.0])
    self.assertEqual(joined['score']['mean'], 3.0)
    self.assertEqual(joined['score']['std'], 2.0)
    self.assertEqual(joined['split_sha256'], ['split 0', 'split 1', 'split 2'])
    self.assertEqual(joined['wall_time_s'], 20.0)
    self.assertEqual(joined['device'], part_of([0], [1.0])['device'])

  def test_a_seed_in_both_keeps_them_apart(self):
    results = [part_of([0], [1.0]), part_of([0, 1], [1.0, 3.0])]
    self.assertEqual(ledger.join(results), results)

  def test_a_repeated_seed_keeps_only_its_run_apart(self):
    results = [
      part_of([0, 1], [1.0, 3.0]),
      part_of([2], [5.0]),
      part_of([2, 3], [6.0, 7.0]),
    ]
    (joined, apart) = ledger.join(results)
    self.assertEqual(joined['seeds'], [0, 1, 2])
    self.assertEqual(apart, results[2])

  def test_what_belongs_to_one_part_is_left_out(self):
    parts = [
      part_of([0], [1.0], commit='a', task='x'),
      part_of([1], [2.0], commit='b', task='x'),
    ]
    del parts[1]['split_sha256']
    (joined,) = ledger.join(parts)
    self.assertNotIn('commit', joined)
    self.assertNotIn('split_sha256', joined)
    self.assertEqual(joined['task'], 'x')

  def test_other_differences_keep_them_apart(self):
    first = part_of([0], [1.0])
    for changes in (
      {'row': 'NS-T6-7'},
      {'kind': 'figure'},
      {'steps': 29000},
      {'protocol': 'best_validation'},
      {'outdated': 'made before.'},
      {'data_note': 'JPEG copy'},
      {'device': '1 x gpu (NVIDIA; host: 2 cores)'},
    ):
      results = [first, part_of([1], [2.0]) | changes]
      self.assertEqual(ledger.join(results), results, changes)

  def test_runs_of_no_row_are_not_joined(self):
    results = [part_of([k], [1.0]) | {'row': ''} for k in range(2)]
    self.assertEqual(ledger.join(results), results)

  def test_devices_that_differ_are_named(self):
    device = '1 x cpu (cpu; host: 1 cores)'
    (joined,) = ledger.join(
      [part_of([0], [1.0]), part_of([1], [1.0], device=device)]
    )
    self.assertEqual(
      joined['device'], f'1 x cpu (cpu; host: 2 cores) and {device}'
    )
    self.assertEqual(ledger.platform(joined), 'cpu')


if __name__ == '__main__':
  absltest.main()
