"""Programs that runs of one process share, and when they must not."""

import gc
import weakref

import numpy as np
import temporary
from absl.testing import absltest, parameterized
from digits_run import make_config

from nsl_jax.data import sources
from nsl_jax.training import assembly, experiment, programs


def prepared(source=None, config=None, **changes):
  return assembly.prepare(config or make_config(**changes), source=source)


class SharedTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    programs._kept.clear()
    self.addCleanup(programs._kept.clear)

  def test_a_second_run_compiles_no_step(self):
    first = prepared()
    second = prepared(
      **{'seed': 3, 'data.labeled': 20, 'row': 'DIG-1'},
      **{'steps': 9, 'eval.every_steps': 3, 'log_every': 2},
    )
    self.assertIs(first.chunk, second.chunk)
    self.assertIs(first.method, second.method)
    self.assertIs(first.evaluate, second.evaluate)

  def test_numbers_are_those_of_a_run_alone(self):
    alone = experiment.run(make_config(seed=1), self.folder / 'alone')
    experiment.run(make_config(seed=2), self.folder / 'other')
    kept = next(iter(programs._kept.values()))
    after = experiment.run(make_config(seed=1), self.folder / 'after')
    self.assertIs(next(iter(programs._kept.values())), kept)
    reports = (run['reports'][0]['last'] for run in (alone, after))
    self.assertEqual(*reports)
    lines = [
      (self.folder / name / 'seed_1' / 'split.npz').read_bytes()
      for name in ('alone', 'after')
    ]
    self.assertEqual(*lines)

  @parameterized.parameters(
    {'optimizer.lr': 0.5},
    {'model.hidden': 8},
    {'data.augment': ''},
    {'method.weight': 0.25},
    {'eval.batch_norm': 'running'},
    {'method.ramp_steps': 3},
  )
  def test_another_config_has_its_own(self, **changes):
    self.assertIsNot(prepared().chunk, prepared(**changes).chunk)

  def test_other_images_of_another_number_have_their_own(self):
    source = sources.load('digits')
    fewer = source._replace(
      train=sources.Arrays(*(part[:900] for part in source.train))
    )
    self.assertIsNot(prepared(source).chunk, prepared(fewer).chunk)

  def test_what_may_differ_though_its_name_does_not_is_built_anew(self):
    for changes in (
      {'data.augment': 'my_views:shift'},
      {'method.name': 'my_package.my_method'},
      {'model.name': '__main__:Net'},
    ):
      config = make_config(**changes)
      self.assertIsNone(programs._key(config, ()))
    config = make_config()
    with config.unlocked():
      config.method.terms['__main__:top'] = dict(weight=0.5)
    self.assertIsNone(programs._key(config, ()))
    self.assertIsNotNone(programs._key(make_config(), ()))
    started = make_config()
    with started.unlocked():
      started.model.init_from = 'weights.safetensors'
    self.assertIsNone(programs._key(started, ()))

  def test_a_view_that_inverts_the_normalization_is_of_its_images(self):
    config = make_config(
      **{'data.normalize': 'standard', 'data.augment': 'cutout:0.5'}
    )
    first, second = prepared(config=config), prepared(config=config)
    self.assertIsNot(first.chunk, second.chunk)
    self.assertEmpty(programs._kept)

  def test_images_are_not_kept(self):
    source = sources.load('digits')
    images = source.train.images.copy()
    source = source._replace(train=source.train._replace(images=images))
    parts = prepared(source)
    self.assertLen(programs._kept, 1)
    there = weakref.ref(images)
    del source, images, parts
    gc.collect()
    self.assertIsNone(there())

  def test_few_are_kept(self):
    for rate in np.linspace(0.1, 0.9, programs._KEPT + 2):
      prepared(**{'optimizer.lr': float(rate)})
    self.assertLen(programs._kept, programs._KEPT)
    self.assertIs(
      prepared(**{'optimizer.lr': 0.9}).chunk,
      list(programs._kept.values())[-1].chunk,
    )


if __name__ == '__main__':
  absltest.main()
