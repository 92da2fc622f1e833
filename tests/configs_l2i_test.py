"""The numbers of Learning to Impute's profiles, from L-REG to PTS."""

import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import errors, schedules
from nsl_jax.data import splits
from nsl_jax.papers import rows
from nsl_jax.training import config as config_lib


class LearningToImputeTest(parameterized.TestCase):
  @parameterized.parameters(
    ('L2-T2-7', 40_000, 3e-3, 50, 0.3, 75.0, 16_000),
    ('L2-T2-22', 40_000, 3e-3, 128, 0.15, 75.0, 16_000),
    ('L2-T3-7', 1_048_576, 2e-3, 32, 0.1, 50.0, 419_430),
    ('L2-T3-22', 1_048_576, 2e-3, 128, 0.2, 50.0, 419_430),
    ('L2-T3-16', 1_048_576, 2e-3, 32, 0.1, 75.0, 16_384),
    ('L2-T3-31', 1_048_576, 2e-3, 128, 0.2, 150.0, 16_384),
  )
  def test_profiles(self, row, steps, lr, batch, inner_rate, weight, ramp):
    """L-13 and L-WRN, with the inner rates of F-L4 and F-L22."""
    config = config_lib.load(rows.find(row).config)
    self.assertEqual(
      (
        config.steps,
        config.optimizer.lr,
        config.method.inner_rate,
        config.method.host.weight,
        config.method.host.ramp_steps,
      ),
      (steps, lr, inner_rate, weight, ramp),
    )
    self.assertEqual(set(config.batch.values()), {batch})
    self.assertEqual(set(config.batch), {'labeled', 'unlabeled', 'holdout'})
    self.assertEqual(config.data.holdout, 0)
    self.assertEqual(config.optimizer.name, 'adam')
    self.assertEqual(config.optimizer.drop_steps, 0)
    self.assertEqual((config.ema_decay, config.weight_decay), (0.999, 0.02))
    self.assertEqual(config.protocol, 'median_last_20')
    self.assertEqual(config.data.augment, 'translate:4,flip')
    self.assertEqual(config.data.validation, 5000)
    if config.method.host.name == 'mixmatch':
      self.assertTrue(config.method.host.ratio_per_batch)
      self.assertEqual(config.method.host.moved_by, 'all')  # F-L23
    self.assertEqual(
      (config.method.label_rate, config.method.gradient), (1.0, 'nested')
    )

  @parameterized.parameters(
    ('L2-T1-9', 'v1', 1.0, 91),
    ('L2-T1-16', 'v2', 10.0, 911),
    ('L2-T1-21', 'v1', 1.0, 91),
    ('L2-T1-28', 'v2', 10.0, 911),
  )
  def test_landmarks(self, row, variant, inner_rate, labels):
    """L-REG, with one drop of the rate at two thirds (F-L11)."""
    config = config_lib.load(rows.find(row).config)
    self.assertEqual((config.row, config.task), (row, 'regression'))
    self.assertEqual((config.steps, config.eval.every_steps), (22_500, 150))
    rate = schedules.learning_rate(config.optimizer)
    for step, expected in ((0, 0.03), (14_999, 0.03), (15_000, 0.003)):
      self.assertAlmostEqual(float(rate(step)), expected, places=7)
    sgd = config.optimizer
    self.assertEqual(
      (sgd.name, sgd.momentum, sgd.weight_decay, sgd.nesterov),
      ('sgd', 0.9, 5e-4, False),
    )
    method, host = config.method, config.method.host
    self.assertEqual(
      (
        method.variant,
        method.inner_rate,
        method.follow_rate,
        method.label_rate,
      ),
      (variant, inner_rate, True, 1.0),
    )
    self.assertEqual(
      (host.weight, host.ramp, host.ramp_steps), (1.0, 'linear', 9000)
    )
    self.assertEqual((config.ema_decay, config.weight_decay), (0.999, 0.0))
    self.assertEqual(host.decay, 0.999)
    self.assertEqual(config.data.augment, 'translate:4')
    self.assertEqual(
      (config.data.labeled, config.data.validation), (labels, 1012)
    )
    self.assertEqual(set(config.batch.values()), {128})
    self.assertEqual(config.protocol, 'best_validation')

  def test_points_of_digits(self):
    """Weights are averaged over the same share of the run as on faces."""
    config = config_lib.load('configs/mnist_points.py:host=mt')
    for decay in (config.ema_decay, config.method.host.decay):
      self.assertAlmostEqual(decay**2000, 0.999**22_500, places=15)
    for variant in ('v1', 'v2'):
      config = config_lib.load(f'configs/mnist_points.py:variant={variant}')
      self.assertEqual(config.method.inner_rate, 1.0)

  @parameterized.parameters(('L2-T1-mean', 150, 9110), ('PTS-0', 100, 50))
  def test_mean_of_the_labels(self, row, steps, labels):
    config = config_lib.load(rows.find(row).config)
    self.assertEqual((config.row, config.steps), (row, steps))
    self.assertEqual(
      (config.task, config.method.name, config.data.labeled),
      ('regression', 'mean_label', labels),
    )
    self.assertEqual(config.batch.unlabeled, 0)

  def test_hold_out_sets_and_batches(self):
    load = lambda row: config_lib.load(rows.find(row).config)
    self.assertEqual(load('L2-T4-12').data.holdout, 2000)
    self.assertEqual(load('L2-F6-V2-25').batch.holdout, 25)
    self.assertEqual(load('L2-F6-V1-50').row, 'L2-T2-7 L2-F6-V1-50')
    self.assertNotIn('holdout', load('L2-T2-4').batch)
    self.assertEqual(load('L2-T2-1').batch.unlabeled, 0)


class TinyImagenetTest(parameterized.TestCase):
  """Profile L-TIN by hand (F-L12)."""

  @parameterized.parameters(
    ('mt', 'pseudo_label_l2i', 'none'),
    ('mm', 'mixmatch', 'none'),
    ('mt', 'pseudo_label_l2i', 'v1'),
    ('mm', 'mixmatch', 'v2'),
  )
  def test_horizons(self, host, method, variant):
    config = config_lib.load(
      f'configs/tiny_imagenet_l2i.py:host={host},variant={variant}'
    )
    epoch = 185  # 95,000 unlabeled images, 512 a step, the last 280 left out
    self.assertEqual(config.steps, 120 * epoch)
    self.assertEqual(config.optimizer.drop_steps, (80 * epoch, 100 * epoch))
    rate = schedules.learning_rate(config.optimizer)
    for step, expected in (
      (14_799, 1e-3),
      (14_800, 1e-4),
      (18_500, 1e-5),
      (22_199, 1e-5),
    ):
      self.assertAlmostEqual(float(rate(step)) / expected, 1, places=5)
    learner = config.method.get('host', config.method)
    self.assertEqual(learner.name, method)
    self.assertEqual((learner.weight, learner.ramp), (100.0, 'linear'))
    self.assertEqual(learner.ramp_steps, 8880)
    held_out = config.batch.get('holdout', 0)
    self.assertEqual(held_out, 0 if variant == 'none' else 512)
    self.assertEqual(config.method.get('variant', 'none'), variant)
    if variant != 'none':
      self.assertEqual(
        (
          config.method.gradient,
          config.method.inner_rate,
          config.method.label_rate,
          config.method.label_space,
        ),
        ('last_layer', 1.0, 1.0, 'labels'),
      )
    self.assertEqual(config.eval.every_steps, epoch)
    self.assertEqual((config.ema_decay, config.weight_decay), (0.999, 0.0))
    self.assertEqual(config.data.augment, 'flip,translate:8')

  def test_supervised_sees_every_label(self):
    config = config_lib.load(
      'configs/tiny_imagenet_l2i.py:host=sl,variant=none'
    )
    self.assertEqual(config.batch.to_dict(), dict(labeled=512, unlabeled=0))
    self.assertEqual(config.data.labeled, 100_000)
    self.assertEqual(config.steps, 120 * 195)

    with self.assertRaisesRegex(errors.UserError, 'sl imputes nothing'):
      config_lib.load('configs/tiny_imagenet_l2i.py:host=sl')

  def test_five_per_cent_are_25_of_each_class(self):
    config = config_lib.load('configs/tiny_imagenet_l2i.py')
    labels = np.arange(100_000) % 200
    split = splits.make(
      labels,
      200,
      labeled=config.data.labeled,
      validation=config.data.validation,
      rule=config.data.rule,
      validation_rule=config.data.validation_rule,
      seed=0,
    )
    found = np.bincount(labels[split.labeled])
    self.assertEqual(found.tolist(), [25] * 200)
    self.assertLen(split.unlabeled, 95_000)

  def test_drops_that_a_short_run_brings_together(self):
    config = config_lib.load('configs/tiny_imagenet_l2i.py', reduced=2)
    self.assertEqual(config.optimizer.drop_steps, (1, 2))


if __name__ == '__main__':
  absltest.main()
