"""Settings that follow from the images."""

import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.data import examples, sources
from nsl_jax.training import (
  automatic,
  config as config_lib,
  config_checks,
  pipeline,
  run_warnings,
)


def source(counts, unlabeled=0, shape=(32, 32, 3), validation=0):
  """Images of so many of each class, then validation images, then others."""
  labels = np.repeat(np.arange(len(counts)), counts)
  fixed = np.arange(validation) % len(counts)
  labels = np.concatenate([labels, fixed, np.full(unlabeled, -1)])
  labels = labels.astype(np.int32)
  kind = np.float32 if shape[0] == 1 else np.uint8
  images = np.zeros((len(labels), *shape), kind)
  rows = None
  if validation:
    rows = np.arange(sum(counts), sum(counts) + validation, dtype=np.int32)
  train = sources.Arrays(images, labels)
  test = sources.Arrays(images[:0], labels[:0])
  return sources.Source('folder', len(counts), train, test, '', validation=rows)


def config(arguments='', overrides=()):
  return config_lib.load(f'configs/folder.py:dir=photos{arguments}', overrides)


class LimitTest(absltest.TestCase):
  def test_a_limit_keeps_the_validation_images_and_the_paths(self):
    data = source((5, 5), 10, validation=6)
    paths = tuple(f'{row}.png' for row in range(26))
    data = data._replace(files=examples.Files(paths, ()))
    found = pipeline.limited(data, 8)
    rows = [int(path.partition('.')[0]) for path in found.files.train]
    np.testing.assert_array_equal(found.train.labels, data.train.labels[rows])
    self.assertEqual(
      [rows[at] for at in found.validation], list(data.validation)
    )
    self.assertLen(rows, 4 + 4 + 6)
    self.assertEmpty(found.test.labels)


class ResolveTest(parameterized.TestCase):
  def test_a_reduced_run_stays_one(self):
    """Though a field of it is open."""
    reduced = config_lib.load(
      'configs/digits_ns3l.py:reduced=60', [('model.name', 'auto')]
    )
    found, _ = automatic.resolve(reduced, source((8, 8), 100))
    lengths = found.steps, found.scheduled_steps, found.full_steps
    self.assertEqual(lengths, (60, 60, 2000))

  @parameterized.parameters('', ',terms=ns3l', ',method=vat,terms=ns3l+entropy')
  def test_steps_by_either_option(self, arguments):
    data = source((8, 8), 100)
    argument, both, option = (
      automatic.resolve(config(f'{arguments}{text}', overrides), data)[0]
      for text, overrides in (
        (',steps=80', []),
        (',steps=60', [('steps', '80')]),
        ('', [('steps', '80')]),
      )
    )
    self.assertEqual(argument.to_dict(), both.to_dict())
    self.assertEqual(argument.to_dict(), option.to_dict())
    self.assertEmpty(list(run_warnings.of_horizons(argument)))

  @parameterized.parameters('', ',method=l2i')
  def test_batches_of_learning_to_impute(self, arguments):
    open_config = config(arguments, [('method.name', 'l2i')])
    found, _ = automatic.resolve(open_config, source((8, 8), 100))
    config_checks.check(found)
    self.assertEqual(found.batch.holdout, found.batch.labeled)

  def test_a_limit_of_rows_sorted_by_class_keeps_all_classes(self):
    found = pipeline.limited(source((30, 30, 30)), 6)
    np.testing.assert_array_equal(found.train.labels, [0, 0, 1, 1, 2, 2])
    self.assertIn('6 of 90 images to train on', found.report[-1])

  def test_ns3l_on_the_chosen_mixmatch(self):
    found, _ = automatic.resolve(config(',terms=ns3l'), source((8, 8), 100))
    fields = found.method.terms.ns3l
    self.assertEqual(
      (found.method.name, fields.passes, fields.weight, fields.ramp),
      ('mixmatch', 1, 5.0, 'none'),
    )
    features = source((8, 8), 100, shape=(1, 1, 4))
    found, _ = automatic.resolve(config(',terms=ns3l'), features)
    fields = found.method.terms.ns3l
    self.assertEqual(
      (fields.passes, fields.weight, fields.ramp_steps),
      (2, 1.0, found.steps // 4),
    )

  @parameterized.parameters(
    (',method=ns3l', 'no unlabeled images, which ns3l needs'),
    (',terms=vat', 'no unlabeled images, which vat needs'),
    (',validation=15', 'validation=15: at most 14 of the 16'),
  )
  def test_refused_in_one_line(self, arguments, message):
    with self.assertRaisesRegex(errors.UserError, message):
      automatic.resolve(config(arguments), source((8, 8)))

  @parameterized.parameters(
    (('method.name', 'dnll'), False),
    (('method.positives.threshold', '0.9'), True),
  )
  def test_strong_view_of_a_pair(self, pair, harder):
    overrides = [('method.name', 'dnll'), pair]
    found, _ = automatic.resolve(config(overrides=overrides), source((8, 8), 9))
    self.assertEqual('randaugment' in found.data.strong, harder)

  def test_epochs_of_a_weight_follow_from_the_length(self):
    found, _ = automatic.resolve(
      config(overrides=[('method.name', 'dual_student')]), source((8, 8), 100)
    )
    ramp, hold = found.method.ramp_steps, found.method.hold_steps
    self.assertEqual((ramp, hold), (found.steps // 4, found.steps // 20))
    found, _ = automatic.resolve(
      config(overrides=[('method.name', 'dual_student')]),
      source((8000, 8000), 60_000, shape=(2, 2, 1)),
    )
    ramp, hold = found.method.ramp_steps, found.method.hold_steps
    self.assertEqual((found.steps, ramp, hold), (20_000, 1600, 320))

  def test_the_config_is_open(self):
    self.assertTrue(automatic.is_open(config()))
    self.assertTrue(automatic.is_open(config(',steps=100')))
    self.assertFalse(
      automatic.is_open(config_lib.load('configs/digits_ns3l.py'))
    )

  def test_everything_is_resolved_and_allowed(self):
    found, lines = automatic.resolve(config(), source((8, 8), 100))
    self.assertFalse(automatic.is_open(found))
    config_checks.check(found)
    self.assertEqual(found.method.name, 'mixmatch')
    self.assertIn(f'{found.steps:,} steps', ' '.join(lines))
    self.assertNotIn('-1', ' '.join(lines))

  @parameterized.parameters(
    # counts, labeled to train on, validation
    ((1, 1), 2, 0),
    ((2, 2), 4, 0),
    ((4, 4), 8, 0),  # a fifth is too few to measure anything
    ((4,) * 10, 40, 0),
    ((5,) * 10, 40, 10),
    ((1, 54), 44, 11),
    ((1, 1, 50), 42, 10),
    ((100, 50), 120, 30),
  )
  def test_some_labeled_images_are_held_out(self, counts, labeled, validation):
    data = source(counts, 10)
    found, _ = automatic.resolve(config(), data)
    self.assertEqual(
      (found.data.labeled, found.data.validation), (labeled, validation)
    )
    split = pipeline.split_of(found, data, 0)
    self.assertLen(split.labeled, labeled)
    self.assertLen(split.validation, validation)
    self.assertLen(split.unlabeled, 10)
    # Every class keeps an image to train on.
    self.assertLen(set(data.train.labels[split.labeled]), len(counts))

  def test_given_validation_images_are_all_used(self):
    data = source((5, 5), 10, validation=6)
    found, lines = automatic.resolve(config(), data)
    self.assertEqual((found.data.labeled, found.data.validation), (10, 6))
    split = pipeline.split_of(found, data, 0)
    np.testing.assert_array_equal(split.validation, data.validation)
    np.testing.assert_array_equal(split.labeled, np.arange(10))
    np.testing.assert_array_equal(split.unlabeled, np.arange(16, 26))
    self.assertIn('given', ' '.join(lines))

  def test_without_validation_images_the_last_weights_count(self):
    found, lines = automatic.resolve(config(), source((1, 1), 10))
    self.assertEqual(found.protocol, 'last')
    self.assertIn('last step', ' '.join(lines))

  @parameterized.parameters((245, 'last'), (250, 'best_validation'))
  def test_few_validation_images_do_not_choose(self, each, protocol):
    found, lines = automatic.resolve(config(), source((each, each), 10))
    self.assertEqual(found.protocol, protocol)
    self.assertEqual('too few to choose' in ' '.join(lines), protocol == 'last')

  def test_features_of_one_kind_have_one_scale(self):
    rng = np.random.default_rng(0)
    for scales, wanted in (
      ([1.0, 5.0, 25.0], 'common'),
      ([0.0, 5.0, 25.0], 'common'),
      ([1.0, 1.0, 1000.0], 'standard'),
    ):
      data = source((5, 5), 490, (1, 1, 3))
      features = rng.normal(size=(500, 1, 1, 3)) * scales
      images = features.astype(np.float32)
      data = data._replace(train=data.train._replace(images=images))
      found, _ = automatic.resolve(config(), data)
      self.assertEqual(found.data.normalize, wanted)

  def test_features_are_trained_by_mean_teacher(self):
    found, _ = automatic.resolve(config(), source((5, 5), 10, (1, 1, 3)))
    self.assertEqual(found.method.name, 'mean_teacher')

  def test_options_of_the_network_that_is_chosen(self):
    found, _ = automatic.resolve(
      config('', [('model.hidden', '64')]), source((5, 5), 10, (1, 1, 3))
    )
    self.assertEqual(found.model.hidden, 64)
    wrong, _ = automatic.resolve(
      config('', [('model.depth', '64')]), source((5, 5), 10, (1, 1, 3))
    )
    with self.assertRaisesRegex(errors.UserError, 'config.model.depth is not'):
      config_checks.check(wrong)

  def test_another_number_than_the_given_validation_images(self):
    with self.assertRaisesRegex(errors.UserError, 'validation=3, but'):
      automatic.resolve(config(',validation=3'), source((5, 5), validation=6))

  def test_unlabeled_images_that_are_not_used_are_named(self):
    found, lines = automatic.resolve(
      config(',method=supervised'), source((5, 5), 10)
    )
    self.assertEqual(found.batch.unlabeled, 0)
    self.assertIn('10 unlabeled images are not used', ' '.join(lines))

  def test_without_unlabeled_images_it_is_supervised(self):
    found, lines = automatic.resolve(config(), source((10, 10)))
    self.assertEqual(found.method.name, 'supervised')
    self.assertEqual(found.batch.unlabeled, 0)
    self.assertIn('no unlabeled images', ' '.join(lines))

  @parameterized.parameters(
    ((1, 1, 20), 'mlp', 'noise:'),
    ((28, 28, 1), 'small_cnn', 'translate:3'),
    ((32, 32, 3), None, 'flip,translate:4'),
    ((96, 96, 3), 'resnet18', 'flip,translate:12'),
  )
  def test_network_and_views_follow_from_the_size(self, shape, name, view):
    found, _ = automatic.resolve(config(), source((5, 5), 10, shape))
    if name:
      self.assertEqual(found.model.name, name)
    self.assertStartsWith(found.data.augment, view)

  def test_length_follows_from_the_number_of_images(self):
    steps = [
      automatic.resolve(config(), source((5, 5), n, (1, 1, 2)))[0].steps
      for n in (10, 5_000, 2_000_000)
    ]
    self.assertEqual(steps, sorted(steps))
    self.assertLess(steps[0], steps[-1])
    for number in steps:
      self.assertEqual(number % 100, 0)

  def test_what_is_given_stays(self):
    found, _ = automatic.resolve(
      config(
        ',method=vat,steps=300,validation=2',
        [
          ('model.name', 'small_cnn'),
          ('batch.unlabeled', '7'),
          ('method.ramp_steps', '11'),
          ('eval.every_steps', '50'),
          ('data.augment', ''),
        ],
      ),
      source((9, 9), 30),
    )
    self.assertEqual(found.method.name, 'vat')
    self.assertEqual(found.method.ramp_steps, 11)
    self.assertEqual(found.steps, 300)
    self.assertEqual(found.data.validation, 2)
    self.assertEqual(found.model.name, 'small_cnn')
    self.assertEqual(found.batch.to_dict(), {'labeled': 32, 'unlabeled': 7})
    self.assertEqual(found.eval.every_steps, 50)
    self.assertEqual(found.data.augment, '')

  @parameterized.parameters(
    ('', ()),
    (',method=mixmatch', ()),
    ('', [('method.name', 'mixmatch')]),
    ('', [('data.normalize', 'unit'), ('method.name', 'mixmatch')]),
  )
  def test_mixmatch_is_gentle(self, arguments, overrides):
    found, _ = automatic.resolve(
      config(arguments + ',steps=400', overrides), source((9, 9), 30)
    )
    self.assertEqual(found.method.weight, 10.0)
    self.assertEqual(found.method.ramp_steps, 400)
    found, _ = automatic.resolve(
      config(',method=mixmatch', [('method.weight', '75')]), source((9, 9), 30)
    )
    self.assertEqual(found.method.weight, 75.0)

  def test_no_steps(self):
    with self.assertRaisesRegex(errors.UserError, 'config.steps=0: must be >='):
      automatic.resolve(config('', [('steps', '0')]), source((9, 9), 30))

  def test_ramps_follow_from_the_length(self):
    found, _ = automatic.resolve(
      config(',method=ns3l,steps=400'), source((9, 9), 30)
    )
    self.assertEqual(found.method.ramp_steps, 100)


if __name__ == '__main__':
  absltest.main()
