"""The ledger: rows by id, their files, and the table made from them."""

import contextlib
import io
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from ledger_inputs import result_of

from nsl_jax import errors
from nsl_jax.commands import reproduce
from nsl_jax.papers import rows
from nsl_jax.reports import ledger
from nsl_jax.training import config as config_lib, workdir as workdir_lib


class ReproduceTest(absltest.TestCase):
  def test_list_has_every_row_and_says_which_run(self):
    text = reproduce.list_rows(rows.match(''))
    self.assertLen(text.splitlines(), len(rows.read()))
    lines = {line.split()[0]: line for line in text.splitlines()}
    self.assertIn('--row NS-T6-8', lines['NS-T6-8'])
    self.assertIn('16.59 ± 0.19', lines['NS-T6-8'])
    self.assertIn('--row L2-T5-1', lines['L2-T5-1'])
    cited = lines['DN-T1-c-pi-1000']
    self.assertNotIn('--row', cited)
    self.assertIn('cited', cited)

  def test_the_list_refuses_what_it_would_ignore(self):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      reproduce.main(['--list', 'DIG'])
    self.assertLen(printed.getvalue().splitlines(), 2)
    for words in (['--row', 'DIG-1'], ['--seeds', '3'], ['--workdir', 'x']):
      with self.assertRaisesRegex(errors.UserError, f'ignores {words[0]}'):
        reproduce.main(['--list', 'DIG', *words])

  def test_rows_are_found_by_words_in_any_case(self):
    ids = lambda *words: [row.id for row in rows.search(words)]
    self.assertEqual(ids('CIFAR10', 'mixmatch', '250'), ['NS-T3-1', 'NS-T3-2'])
    self.assertEqual(ids('dig'), ['DIG-1', 'DIG-2'])
    self.assertLen(ids(), len(rows.read()))
    self.assertIn('L2-T3-10', ids('mm', 'cifar10', '250'))
    self.assertEmpty(ids('cifar10', 'nothing'))

  def test_every_ready_row_names_itself_in_its_config(self):
    for row in rows.read().values():
      if row.kind == 'run':
        config = config_lib.load(row.config)
        self.assertIn(row.id, config.row.split())
        self.assertEqual(config.data.name, row.data)
        self.assertEqual(config.data.labeled, row.labels)

  def test_file_names_tell_budget_seeds_and_platform(self):
    full = result_of('NS-T6-8', [1.0] * 5, reduced=False, steps=29000)
    short = result_of('NS-T6-8', [1.0] * 3)
    name = reproduce.file_name
    self.assertEqual(
      name('NS-T6-8', full, 'gpu'), 'NS-T6-8-gpu-full-seeds5.json'
    )
    self.assertEqual(
      name('NS-T6-8', short, 'cpu'), 'NS-T6-8-cpu-reduced3000-seeds3.json'
    )
    for seeds, word in (([2], 'seed2'), ([2, 3, 4], 'seeds2-4')):
      self.assertEqual(
        name('NS-T6-8', full | {'seeds': seeds}, 'cpu'),
        f'NS-T6-8-cpu-full-{word}.json',
      )

  def test_a_seed_trained_alone_is_that_of_the_row(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    row, load = rows.find('DIG-1'), config_lib.load

    def load_for_one_device(*args, **kwargs):
      config = load(*args, **kwargs)
      with config.unlocked():
        config.devices = 1
      return config

    self.enterContext(
      mock.patch.object(config_lib, 'load', load_for_one_device)
    )

    def train(**options):
      return reproduce.reproduce(
        row, reduced=40, workdir=folder, ledger=folder / 'out', **options
      )

    train(seeds=1)
    second = train(seeds=1, first_seed=1)
    self.assertEqual(second.name, 'DIG-1-cpu-reduced40-seed1.json')
    (joined,) = ledger.read(folder / 'out')
    together = workdir_lib.read_json(train(seeds=2))
    for field in ('row', 'seeds', 'score', 'split_sha256', 'steps'):
      self.assertEqual(joined[field], together[field])

  def test_rows_without_a_command_and_a_figure_without_all_seeds(self):
    for row_id, first_seed, message in (
      ('DN-T1-c-pi-1000', 0, 'cannot be run'),
      ('NS-F2', 1, 'NS-F2 is a figure'),
      ('DIG-2', -1, 'first_seed=-1: must be at least 0'),
    ):
      with self.assertRaisesRegex(errors.UserError, message):
        reproduce.reproduce(
          rows.find(row_id),
          seeds=1,
          reduced=0,
          workdir=pathlib.Path('/nowhere'),
          first_seed=first_seed,
        )


if __name__ == '__main__':
  absltest.main()
