"""What a run tells before it starts: rows, horizons, splits, networks."""

import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax.data import sources, splits
from nsl_jax.training import config as config_lib, run_warnings


def load(argument, **changed):
  config = config_lib.load(argument).unlock()
  with config.unlocked():
    for name, value in changed.items():
      config.update_from_flattened_dict({name.replace('__', '.'): value})
  return config.lock()


class ErrorTest(absltest.TestCase):
  def test_without_test_images_the_best_of_many_is_too_low(self):
    images = np.zeros((4, 2, 2, 1), np.uint8)
    labels = np.arange(4, dtype=np.int32) % 2
    train, none = (
      sources.Arrays(images, labels),
      sources.Arrays(images[:0], labels[:0]),
    )
    config = load('configs/digits_ns3l.py', steps=100, eval__every_steps=30)
    warnings_of = lambda test, config: [
      *run_warnings.of_error(config, sources.Source('x', 2, train, test, ''))
    ]
    self.assertIn('lowest of 4 evaluations', warnings_of(none, config)[0])
    self.assertEmpty(warnings_of(train, config))
    last = load('configs/digits_ns3l.py', protocol='last')
    self.assertEmpty(warnings_of(none, last))


class RowTest(parameterized.TestCase):
  @parameterized.parameters(
    ('configs/digits_ns3l.py', {}),
    ('configs/digits_ns3l.py:reduced=100', {}),
    ('configs/digits_ns3l.py:seeds=5', {}),
    ('configs/cifar10_mixmatch_ns3l.py:labels=4000,quick=true', {}),
    (
      'configs/digits_ns3l.py',
      dict(
        seed=3,
        data__dir='/data',
        devices=2,
        steps_per_call=4,
        checkpoint__every=10,
        checkpoint__keep=1,
        log_every=7,
        eval__batch=100,
      ),
    ),
    ('configs/cifar10_l2i.py:labels=250,host=pl,variant=v1', {}),
  )
  def test_kept(self, argument, changed):
    config = load(argument, **changed)
    self.assertNotEmpty(config.row)
    after, warnings = run_warnings.confirm_row(config)
    self.assertEqual((after.row, warnings), (config.row, []))

  @parameterized.parameters(
    (
      'configs/digits_ns3l.py:reduced=100',
      dict(optimizer__lr=0.5, method__weight=0.0),
      'method.weight is 0.0 and not 1.0, optimizer.lr is 0.5 and not 0.001',
    ),
    ('configs/digits_ns3l.py', dict(steps=100), 'steps'),
    ('configs/digits_ns3l.py', dict(steps=4000), 'steps is 4000'),
    ('configs/digits_ns3l.py', dict(data__name='mnist'), 'data.name'),
    ('configs/digits_ns3l.py', dict(data__limit=100), 'data.limit'),
    ('configs/digits_ns3l.py', dict(model__name='wide_resnet'), 'model.name'),
    ('configs/digits_ns3l.py', dict(protocol='last'), 'protocol'),
    ('configs/digits_ns3l.py', dict(precision='bfloat16'), 'precision'),
    ('configs/digits_ns3l.py', dict(eval__every_steps=1), 'eval.every_steps'),
  )
  def test_cleared(self, argument, changed, message):
    """An override made of it what the row is not."""
    config = load(argument, **changed)
    after, (warning,) = run_warnings.confirm_row(config)
    self.assertEqual(after.row, '')
    self.assertIn('not those of row DIG-2: ', warning)
    self.assertIn(message, warning)
    self.assertEqual(config.row, 'DIG-2')  # the caller's own is left alone

  def test_two_rows_of_one_run(self):
    config = load(
      'configs/cifar10_l2i.py:labels=250,host=pl,variant=v1,holdout=50',
      batch__unlabeled=49,
    )
    self.assertLen(config.row.split(), 2)
    after, warnings = run_warnings.confirm_row(config)
    self.assertEqual(after.row, '')
    self.assertLen(warnings, 2)

  def test_a_row_of_the_users_own_is_theirs(self):
    config = load('configs/digits_ns3l.py', row='mine', optimizer__lr=0.5)
    self.assertEqual(run_warnings.confirm_row(config)[0].row, 'mine')


class HorizonTest(parameterized.TestCase):
  @parameterized.parameters(
    'configs/digits_ns3l.py',
    'configs/digits_ns3l.py:reduced=50',
    'configs/digits_supervised.py:terms=ns3l',
    'configs/ns3l_table1.py:data=cifar10,method=ns3l',
    'configs/cifar10_mixmatch.py:smoke=true',
  )
  def test_nothing_to_say(self, argument):
    self.assertEmpty(list(run_warnings.of_horizons(load(argument))))

  def test_steps_alone(self):
    config = load('configs/fashion_mnist_ssl.py:method=mixmatch', steps=300)
    (line,) = run_warnings.of_horizons(config)
    self.assertIn('config.steps=300, but ', line)
    self.assertIn('ema_decay=0.999', line)
    self.assertIn(f'method.ramp_steps={config.method.ramp_steps}', line)
    self.assertIn('set for 20000 steps: use the argument reduced=300', line)
    self.assertNotIn('full_steps', line)

  def test_longer(self):
    config = load('configs/digits_ns3l.py', steps=3000)
    (line,) = run_warnings.of_horizons(config)
    self.assertIn(
      'method.ramp_steps=500 are set for 2000 steps: set them too', line
    )

  def test_running_statistics_of_a_short_run(self):
    (line,) = run_warnings.of_horizons(
      load('configs/ns3l_table1.py:data=cifar10,method=supervised', steps=300)
    )
    self.assertIn('eval.batch_norm=running', line)

  def test_nothing_is_set_for_a_length(self):
    config = load('configs/digits_supervised.py', steps=300)
    self.assertEmpty(list(run_warnings.of_horizons(config)))

  def test_reduced_keeps_passes(self):
    config = load('configs/usps_mnist.py:reduced=800')
    (line,) = run_warnings.of_horizons(config)
    self.assertIn(
      'not shortened, since they count passes over the data: ', line
    )
    self.assertIn('method.ramp_steps=1335', line)


class SplitTest(parameterized.TestCase):
  def source(self, *counts):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    images = np.zeros((len(labels), 4, 4, 1), np.uint8)
    arrays = sources.Arrays(images, labels)
    return sources.Source('own', len(counts), arrays, arrays, '')

  def lines(self, source, **options):
    split = splits.make(
      source.train.labels,
      source.num_classes,
      **{
        **dict(
          validation=0, rule='balanced', validation_rule='balanced', seed=0
        ),
        **options,
      },
    )
    return list(run_warnings.of_split(source, split))

  def test_even(self):
    self.assertEmpty(self.lines(self.source(9, 9, 9), labeled=6))

  def test_uneven(self):
    """50 over 7: 7 each, and one more for the first that is drawn."""
    (line,) = self.lines(self.source(*(20,) * 7), labeled=50)
    self.assertStartsWith(
      line, '50 labeled images are not the same number of each of 7'
    )

  @parameterized.parameters('proportional', 'uniform')
  def test_class_without_label(self, rule):
    source = self.source(600, 300, 60, 6)
    (line,) = self.lines(source, labeled=8, rule=rule)
    self.assertStartsWith(line, 'no labeled image of class ')
    self.assertIn('rule=balanced', line)

  def test_many_classes(self):
    (line,) = self.lines(self.source(*(2,) * 50), labeled=60)
    self.assertIn('1 to 2 each', line)

  def test_points(self):
    points = np.zeros((9, 10), np.float32)
    arrays = sources.Arrays(np.zeros((9, 4, 4, 1), np.uint8), points)
    source = sources.Source('own', 0, arrays, arrays, '')
    split = splits.make(
      np.zeros(9, np.int32),
      1,
      labeled=4,
      validation=0,
      rule='uniform',
      validation_rule='uniform',
      seed=0,
    )
    self.assertEmpty(list(run_warnings.of_split(source, split)))


class BatchTest(parameterized.TestCase):
  @parameterized.parameters(
    ('configs/digits_supervised.py', {}, 0),
    ('configs/digits_supervised.py', {'batch__unlabeled': 8}, 1),
    ('configs/digits_supervised.py:terms=entropy', {}, 0),
    ('configs/digits_ns3l.py', {}, 0),
    ('configs/fashion_mnist_ssl.py:method=supervised', {}, 0),
    ('configs/fashion_mnist_mismatch.py:method=supervised', {}, 0),
    ('configs/cifar10_l2i.py:host=sl,variant=none', {}, 0),
  )
  def test_unlabeled_images_that_no_loss_uses(self, argument, changed, count):
    lines = list(run_warnings.of_batch(load(argument, **changed)))
    self.assertLen(lines, count)
    for line in lines:
      self.assertIn('config.batch.unlabeled=8, but no loss uses', line)


class UnusedTest(parameterized.TestCase):
  @parameterized.parameters(
    ('configs/digits_ns3l.py', {}, ''),
    ('configs/digits_ns3l.py', {'data__strong': 'flip'}, 'strong=flip is not'),
    ('configs/cifar_fixmatch.py', {}, ''),
    ('configs/cifar_fixmatch.py', {'data__strong': ''}, 'strong is empty'),
    ('configs/mnist_dnll.py', {}, ''),
    ('configs/mnist_dnll.py', {'data__strong': 'flip'}, ''),
    ('configs/cifar10_l2i.py:host=mt,variant=v2,separate=true', {}, ''),
    ('configs/digits_ns3l.py', {'data__holdout': 60}, 'ns3l does not use them'),
  )
  def test_strong_view_and_hold_out_set(self, argument, changed, message):
    config = load(argument, **changed)
    lines = [*run_warnings.of_views(config), *run_warnings.of_holdout(config)]
    self.assertLen(lines, bool(message))
    self.assertIn(message, ''.join(lines))


class NetworkTest(absltest.TestCase):
  def test_large_dense_layer(self):
    """224 / 4 = 56: 56 * 56 * 64 * 128 is 25.7 million."""
    config = load('configs/digits_supervised.py')
    images = np.zeros((1, 224, 224, 3), np.uint8)
    (line,) = run_warnings.of_network(config, 25_711_306, images)
    self.assertIn('25,711,306 parameters at 224x224x3', line)
    self.assertEmpty(list(run_warnings.of_network(config, 421_642, images)))


if __name__ == '__main__':
  absltest.main()
