"""Configs from the command line: fields, options, and what is refused."""

import ml_collections
from absl.testing import absltest, parameterized
from config_files import NAMES

from nsl_jax import errors, methods
from nsl_jax.options import Option
from nsl_jax.training import config as config_lib, config_checks, config_options


class OverrideTest(parameterized.TestCase):
  """Fields and options from the command line."""

  def load(self, *pairs, argument='configs/digits_ns3l.py'):
    return config_lib.load(argument, [pair.split('=', 1) for pair in pairs])

  def test_fields(self):
    config = self.load(
      'optimizer.lr=1', 'data.dir=/x', 'seeds=3', 'data.augment=flip,noise:0.1'
    )
    self.assertEqual(config.optimizer.lr, 1.0)
    self.assertIsInstance(config.optimizer.lr, float)
    self.assertEqual((config.data.dir, config.seeds), ('/x', 3))
    self.assertEqual(config.data.augment, 'flip,noise:0.1')

  @parameterized.parameters(*methods.names())
  def test_any_method_with_all_of_its_options(self, name):
    config = self.load('optimizer.lr=0.1', f'method.name={name}')
    known = config_options.method_options(config.method)
    self.assertContainsSubset(known, config.method)
    self.assertContainsSubset(config.method, {*known, 'name', 'terms', 'host'})
    if 'ramp_steps' in config.method:
      self.assertLessEqual(config.method.ramp_steps, config.steps // 4)

  def test_null_in_place_of_what_the_file_sets(self):
    config = self.load('method.threshold=null')
    self.assertIsNone(config.method.threshold)
    config_checks.check(config)

  def test_options_follow_the_name_in_any_order(self):
    first = self.load('method.eps=2', 'method.name=vat')
    second = self.load('method.name=vat', 'method.eps=2')
    self.assertEqual(first.method.eps, 2.0)
    self.assertEqual(first.to_dict(), second.to_dict())

  def test_options_of_networks_optimizers_samplers_and_terms(self):
    config = self.load(
      'model.name=wide_resnet',
      'model.width=4',
      'optimizer.name=sgd',
      'optimizer.momentum=0.5',
      'method.sampler=uniform',
      'method.count=2',
      'method.terms.entropy.weight=0.1',
      'method.terms.vat.eps=1',
    )
    self.assertEqual((config.model.width, config.model.depth), (4, 28))
    self.assertEqual(config.optimizer.momentum, 0.5)
    self.assertEqual(config.optimizer.lr, 1e-3)  # kept
    self.assertEqual(
      (config.method.sampler, config.method.count), ('uniform', 2)
    )
    self.assertNotIn('threshold', config.method)
    self.assertEqual(config.method.terms.entropy.ramp, 'none')
    vat = config.method.terms.vat
    self.assertEqual((vat.weight, vat.eps, vat.mode), (0.3, 1.0, 'exact'))
    self.assertEqual(vat.ramp_steps, 500)

  def test_a_ramp_does_not_depend_on_the_order(self):
    words = ['steps=400', 'method.terms.vat.weight=0.3']
    first, second = (self.load(*pair) for pair in (words, words[::-1]))
    self.assertEqual(first.to_dict(), second.to_dict())
    self.assertEqual(first.method.terms.vat.ramp_steps, 500)

  @parameterized.parameters(
    ('dual_student', '', 100), ('dnll', '', 5), ('mixup', '.terms.dnll', 5)
  )
  def test_epochs_of_a_weight_are_shortened_with_its_ramp(
    self, method, term, hold
  ):
    """320 of 1,600 or 32,000 steps are as many of a quarter of 2,000."""
    words = [f'method.name={method}']
    if term:
      words.append('method.terms.dnll.weight=1')
    fields = self.load(*words).method
    fields = fields.terms.dnll if term else fields
    self.assertEqual((fields.ramp_steps, fields.hold_steps), (500, hold))

  def test_defaults_of_a_term_on_its_host(self):
    for method, passes, ramp in (('mixmatch', 1, 'none'), ('pi', 2, 'sigmoid')):
      config = self.load(f'method.name={method}', 'method.terms.ns3l.weight=3')
      fields = config.method.terms.ns3l
      self.assertEqual(
        (fields.weight, fields.passes, fields.ramp), (3.0, passes, ramp)
      )
    open_config = self.load(
      'method.terms.ns3l.weight=3',
      argument='configs/folder.py:dir=photos,terms=ns3l',
    )
    self.assertEqual(open_config.method.terms.ns3l.to_dict(), {'weight': 3})

  def test_a_part_that_is_turned_on_has_a_ramp(self):
    config = config_lib.load(
      'configs/cifar10_dual_student.py:method=dual_student',
      [('method.negatives.count', '3')],
    )
    self.assertEqual(
      config.method.negatives.ramp_steps, min(32_000, config.steps // 4)
    )

  def test_an_epoch_of_a_weight_without_a_ramp(self):
    declared = {
      name: Option(name, default, int, '', '')
      for name, default in (('hold_steps', 7), ('ramp_steps', 0))
    }
    for names in (['hold_steps'], ['hold_steps', 'ramp_steps']):
      fields = ml_collections.ConfigDict()
      config_options.fill(fields, {n: declared[n] for n in names}, 100)
      self.assertEqual(fields.hold_steps, 7)

  def test_a_method_from_elsewhere_may_do_without_unlabeled_images(self):
    name = 'nsl_jax.methods.supervised:build'
    config_checks.check(self.load('batch.unlabeled=0', f'method.name={name}'))

  @parameterized.parameters('pseudo_label_l2i', 'mixmatch')
  def test_a_host_in_place_of_the_default_one(self, host):
    config = self.load('method.name=l2i', f'method.host.name={host}')
    self.assertEqual(
      (config.method.name, config.method.host.name), ('l2i', host)
    )
    self.assertNotIn('terms', config.method)

  def test_long_names_of_folders(self):
    words = [f'optimizer.field{n}=1e-3' for n in range(30)]
    long, other = (
      config_lib.name_of('configs/x.py:labels=5', *words, last)
      for last in ('seed=1', 'seed=2')
    )
    self.assertStartsWith(long, 'x,labels=5,optimizer.field0=1e-3')
    self.assertLess(len(long), 220)
    self.assertNotEqual(long, other)
    self.assertEqual(config_lib.name_of('a/x.py', 'b=1'), 'x,b=1')

  @parameterized.parameters(
    ('optimizer.lrr=1', 'optimizer.lrr: did you mean lr.* has .*drop_factor'),
    ('method.eps=1', 'config.method has hold_steps, name, passes'),
    ('steps_per_cal=3', 'did you mean steps_per_call'),
    ('nothing.at.all=3', 'no such field config.nothing.at.all'),
    ('optimizer.lr=fast', 'lr=fast: must be float, like 0.001'),
    ('seeds=1.5', 'seeds=1.5: must be int, like 1'),
    ('data.unlabeled_includes_labeled=1', 'must be true or false'),
    ('method.name=va', "unknown method 'va': did you mean 'vat'"),
    ('method.sampler=oracl', "unknown sampler 'oracl': did you mean 'oracle'"),
    ('method.terms.vta.weight=1', "unknown term 'vta': did you mean 'vat'"),
    ('method=vat', 'config.method is a section, with the fields .*name'),
  )
  def test_refused(self, pair, message):
    with self.assertRaisesRegex(errors.UserError, message) as e:
      self.load(pair)
    self.assertNotIn('\n', str(e.exception))

  @parameterized.parameters(
    ('method.threshold=2', 'config.method.threshold=2.0: must be in (0, 1]'),
    ('method.weight=-1', 'config.method.weight=-1.0: must be >= 0'),
    ('method.weight=null', 'config.method.weight=None: must be a number'),
    ('method.ramp=linea', "config.method.ramp='linea': did you mean 'linear'"),
    ('optimizer.lr=-1', 'config.optimizer.lr=-1.0: must be >= 0'),
    ('method.terms.vat.eps=0', 'config.method.terms.vat.eps=0: must be > 0'),
    ('precision=half', "config.precision='half': known"),
  )
  def test_checked_before_data_are_read(self, pair, message):
    with self.assertRaises(errors.UserError) as e:
      config_checks.check(self.load(pair))
    self.assertIn(message, str(e.exception))


class RefusalTest(parameterized.TestCase):
  @parameterized.parameters(
    ('seed=3', "unknown config argument 'seed': did you mean 'seeds'"),
    ('reducd=3', "did you mean 'reduced'"),
    ('zzzzzz=1', 'unknown config argument .*known: .*reduced.*smoke'),
    ('seeds=abc', "seeds='abc': must be int"),
    ('seeds=', "seeds='': must be int"),
    ('reduced=1.5', "reduced='1.5': must be int"),
    ('smoke=maybe', 'smoke=maybe: must be true or false'),
  )
  def test_in_one_line(self, argument, message):
    for name in NAMES:
      with self.assertRaisesRegex(errors.UserError, message) as e:
        config_lib.load(f'{name}:{argument}')
      self.assertNotIn('\n', str(e.exception))
      self.assertStartsWith(str(e.exception), f'{name}: ')

  @parameterized.parameters(
    ('configs/digits_ns3l.py:labels=abc', "labels='abc': must be int"),
    ('configs/digits_ns3l.py:label=20', "did you mean 'labels'"),
    (
      'configs/fashion_mnist_table6.py:negatives=threshold04',
      "unknown negatives 'threshold04': did you mean 'threshold0[35]'",
    ),
    (
      'configs/fashion_mnist_table6.py:negatives=',
      "unknown negatives '': known: none, uniform1",
    ),
    (
      'configs/digit_ns3l.py',
      'no config file configs/digit_ns3l.py: did you mean configs/digits_ns3l',
    ),
    ('configs', 'no config file configs'),
    ('configs/cifar10_l2i.py:host=pi', "unknown host 'pi': known: sl, pl"),
    ('configs/cifar10_l2i.py:host=sl', 'host=sl imputes nothing'),
    ('configs/fashion_mnist_l2i.py:variant=3', "unknown variant '3': known"),
    (
      'configs/cifar100_l2i.py:variant=none,separate=true',
      'separate=true needs variant=v1 or v2',
    ),
    ('configs/mnist_points.py:host=mean', 'host=mean imputes nothing'),
    (
      'configs/mnist_points.py:variant=none,watch=true',
      'watch=true needs variant=v1 or v2',
    ),
  )
  def test_of_one_file(self, argument, message):
    with self.assertRaisesRegex(errors.UserError, message) as e:
      config_lib.load(argument)
    self.assertNotIn('\n', str(e.exception))


if __name__ == '__main__':
  absltest.main()
