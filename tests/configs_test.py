"""Every config loads, is refused in one line, and has no dead field."""

import ast
import contextlib
import functools
import tempfile

import ml_collections
from absl.testing import absltest, parameterized
from config_files import NAMES
from repository import ROOT

from configs import common
from nsl_jax import errors
from nsl_jax.data import sources
from nsl_jax.papers import rows
from nsl_jax.training import (
  assembly,
  config as config_lib,
  config_checks,
  config_options,
)

NOT_MIRRORED = ('digits', 'mnist', 'usps', 'svhn', 'svhn_extra')
# Sections that go whole to the part that takes their fields by name.
PASSED_ON = ('model', 'method', 'optimizer', 'log')


def flat(config):
  """{'data.labeled': 50, ...}."""
  found = {}
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict) and value:
      found |= {f'{name}.{k}': v for k, v in flat(value).items()}
    else:
      found[name] = value
  return found


def variants():
  """--config arguments: every file, and every row of the papers it runs."""
  runnable = [row.config for row in rows.read().values() if row.config]
  return sorted({*NAMES, *runnable})


@functools.cache
def loaded(argument):
  """The config, which nobody changes."""
  return config_lib.load(argument)


def is_horizon(field):
  last = field.rpartition('.')[2]
  counts = 'full_steps', 'scheduled_steps'
  return last == 'steps' or (last.endswith('_steps') and last not in counts)


class LoadTest(parameterized.TestCase):
  def test_every_config_and_row(self):
    for argument in variants():
      with self.subTest(argument):
        config = loaded(argument)
        self.assertTrue(config.is_locked)
        self.assertEqual(config.steps, config.full_steps)
        self.assertIn(config.data.name, sources.NAMES)
        config_checks.check(config)
        second_pass = config.copy_and_resolve_references().unlock()
        config_options.complete(second_pass)
        self.assertEqual(second_pass.to_dict(), config.to_dict())
        for row_id in config.row.split():  # one run may be several rows
          row = rows.find(row_id)
          if ':' in argument:
            self.assertEqual(row.config, argument)
          self.assertEqual(config.data.name, row.data)
          self.assertEqual(config.data.labeled, row.labels)
        if config.data.name in (
          'digits',
          'mnist',
          'usps',
          'svhn',
          'svhn_extra',
        ):
          self.assertNotIn('flip', config.data.augment + config.data.strong)

  def test_extra_arguments(self):
    config = config_lib.load('configs/digits_ns3l.py:labels=20', seeds=4)
    self.assertEqual((config.data.labeled, config.seeds), (20, 4))

  def test_from_another_folder(self):
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
      self.assertEqual(config_lib.root(), ROOT)
      self.assertEqual(config_lib.find(NAMES[0]), ROOT / NAMES[0])
      self.assertEqual(config_lib.load(NAMES[0], seeds=2).seeds, 2)


class TermsTest(absltest.TestCase):
  def test_terms_go_on_top_of_any_config(self):
    config = config_lib.load(
      'configs/digits_supervised.py:terms=ns3l+pseudo_label', reduced=400
    )
    self.assertEqual(set(config.method.terms), {'ns3l', 'pseudo_label'})
    self.assertEqual(config.method.terms.ns3l.ramp_steps, 100)  # a quarter
    self.assertEqual(config.batch.unlabeled, 50)
    self.assertEqual(config.row, '')
    assembly.build_method(config, 10, (8, 8, 1))

  def test_of_a_host(self):
    """What learns to impute has the terms of its host."""
    config = config_lib.load('configs/fashion_mnist_l2i.py:terms=entropy')
    self.assertNotIn('terms', config.method)
    self.assertEqual(set(config.method.host.terms), {'entropy'})
    assembly.build_method(config, 10, (28, 28, 1))

  def test_unknown_term(self):
    with self.assertRaisesRegex(errors.UserError, "did you mean 'ns3l'"):
      config_lib.load('configs/digits_supervised.py:terms=ns3')


class RateTest(parameterized.TestCase):
  @parameterized.parameters(('v1', 0.01), ('v2', 3e-4))
  def test_searched_rates(self, variant, rate):
    for host in ('pl', 'mt', 'mm'):
      config = config_lib.load(
        f'configs/fashion_mnist_l2i.py:host={host},variant={variant}'
      )
      self.assertEqual(config.method.inner_rate, rate)


class TwoNetworksTest(parameterized.TestCase):
  """DNLL's own data sets and baselines, by hand."""

  @parameterized.parameters(
    ('labels=20', 'DN-T4-1'),
    ('labels=30', ''),
    ('labels=50,width=0.125', 'MN-4'),
    ('labels=20,width=0.25', ''),
    ('labels=30,width=0.125', ''),
    ('width=0.125,count=2', ''),
    ('width=0.125,method=supervised', 'MN-1'),
    ('method=supervised', ''),
    ('labels=100,width=0.125,method=supervised', 'MN-5'),
  )
  def test_narrow_rows_of_mnist(self, words, row):
    config = config_lib.load(f'configs/mnist_dnll.py:{words}')
    self.assertEqual(config.row, row)
    self.assertEqual(
      config.batch.unlabeled, 0 if 'supervised' in words else 128
    )

  @parameterized.parameters('mean_teacher', 'dual_student', 'dnll')
  def test_from_usps_to_mnist(self, name):
    config = config_lib.load(f'configs/usps_mnist.py:method={name}')
    weights = [
      config.method.get(key)
      for key in ('weight', 'consistency', 'stabilization')
    ]
    self.assertEqual({*weights} - {None}, {1.0})
    method = config.method
    self.assertEqual(
      (method.ramp, method.ramp_steps, method.hold_steps),
      ('sigmoid', 5 * 267, 267),
    )
    self.assertEqual(config.eval.every_steps, 4 * 267)
    self.assertEqual(config.batch.to_dict(), dict(labeled=32, unlabeled=224))

  @parameterized.parameters(
    'mean_teacher', 'mean_teacher_dnll', 'dual_student', 'dual_student_dnll'
  )
  def test_weights_of_the_combinations(self, name):
    """The released code's, which its means over unlabeled images go with; the
    cosine lags an epoch of (50,000 - 5,000 - 1,000) / 50 steps."""
    config = config_lib.load(f'configs/cifar10_dual_student.py:method={name}')
    method = config.method
    self.assertEqual(config.optimizer.cosine_lag_steps, 880)
    self.assertEqual(config.optimizer.cosine_steps, 88_000)
    if name.startswith('mean_teacher'):
      self.assertEqual(
        (method.weight, method.second_pass_rows, method.tie),
        (10.0, 'unlabeled', 0.01),
      )
    negatives = method.get('negatives') or method.terms.get('dnll')
    self.assertEqual(
      negatives and negatives.weight, 2.0 if name.endswith('dnll') else None
    )

  def test_which_cosines_lag(self):
    da = config_lib.load('configs/usps_mnist.py:method=mean_teacher')
    self.assertEqual(
      (da.method.weight, da.method.second_pass_rows), (1.0, 'unlabeled')
    )
    self.assertEqual(da.optimizer.cosine_lag_steps, 267)
    main = config_lib.load('configs/cifar10_dnll.py').optimizer
    self.assertEqual(main.get('cosine_lag_steps', 0), 0)

  @parameterized.parameters(
    'configs/usps_mnist.py:method=mean_teacher',
    'configs/cifar10_dual_student.py:method=mean_teacher',
    'configs/cifar10_dual_student.py:method=mean_teacher_dnll',
  )
  def test_the_teacher_is_evaluated(self, argument):
    config = config_lib.load(argument)
    self.assertEqual(config.method.eval_with, 'teacher')
    self.assertTrue(config.method.warm_up_decay)
    self.assertEqual((config.method.decay, config.ema_decay), (0.999, 0.0))


class ShorteningTest(parameterized.TestCase):
  @parameterized.parameters(100, 7, 1)
  def test_reduced_scales_horizons_and_nothing_else(self, steps):
    for argument in variants():
      with self.subTest(argument):
        self.check_reduced(argument, steps)

  def check_reduced(self, argument, steps):
    config = loaded(argument)
    whole, short = (
      flat(config),
      flat(config_lib.load(argument, reduced=steps)),
    )
    if steps == config.steps:  # nothing is reduced
      self.assertEqual(short, whole)
      return
    self.assertEqual(whole.keys(), short.keys())
    shorter = lambda one: one and max(1, round(one * steps / config.steps))
    for field, value in whole.items():
      if field in config.passes:
        self.assertEqual(short[field], value, field)
      elif is_horizon(field):
        several = isinstance(value, tuple)
        expected = tuple(map(shorter, value)) if several else shorter(value)
        if field == 'eval.every_steps' and (
          config.protocol != 'median_last_20'
        ):
          expected = max(expected, 40)
        self.assertEqual(short[field], expected, field)
      elif field == 'ema_decay':  # averages over the same share of the run
        kept = value ** (config.steps / steps)
        self.assertAlmostEqual(short[field], kept, places=12)
      elif field == 'eval.batch_norm':
        self.assertEqual(short[field], 'recomputed')
      elif field == 'scheduled_steps':
        self.assertEqual(short[field], steps)
      else:
        self.assertEqual(short[field], value, field)
    self.assertEqual(short['steps'], steps)
    self.assertEqual(short['full_steps'], config.steps)

  def test_what_is_counted_is_not_scaled(self):
    config = ml_collections.ConfigDict(
      dict(
        steps=100,
        full_steps=100,
        ramp_steps=50,
        ema_decay=0.9,
        method=dict(ramp_steps=20, hold_steps=4),
        passes=('method.hold_steps',),
      )
    )
    common.scale(config, 0.5)
    self.assertEqual(
      config.to_dict(),
      dict(
        steps=50,
        full_steps=100,
        ramp_steps=25,
        ema_decay=0.9**2,
        method=dict(ramp_steps=10, hold_steps=4),
        passes=('method.hold_steps',),
      ),
    )

  @parameterized.parameters(
    ('configs/fashion_mnist_ssl.py', 1500, 75),
    ('configs/fashion_mnist_ssl.py', 500, 40),
    ('configs/usps_mnist.py', 2500, 100),
    ('configs/cifar10_mixmatch.py', 3000, 10),  # a median of the last 20
  )
  def test_short_runs_are_not_only_evaluated(self, argument, steps, apart):
    config = config_lib.load(argument, reduced=steps)
    self.assertEqual(config.eval.every_steps, apart)

  def test_not_reduced(self):
    for argument in variants():
      self.assertEqual(
        config_lib.load(argument, reduced=0, smoke='false', seeds=1).to_dict(),
        loaded(argument).to_dict(),
      )

  def test_smoke_is_short_and_the_same_otherwise(self):
    for argument in variants():
      with self.subTest(argument):
        self.check_smoke(argument)

  def check_smoke(self, argument):
    whole = flat(loaded(argument))
    short = flat(config_lib.load(argument, smoke='true'))
    self.assertEqual(short['steps'], 20)
    self.assertLessEqual(short['batch.labeled'], 16)
    self.assertLessEqual(short['batch.unlabeled'], 16)
    self.assertEqual(
      bool(short['batch.unlabeled']), bool(whole['batch.unlabeled'])
    )
    self.assertEqual(
      bool(short['data.validation']), bool(whole['data.validation'])
    )
    self.assertLessEqual(short['data.limit'], 2000)
    differ = {k for k in whole if whole[k] != short[k]}
    others = {k for k in differ if not is_horizon(k)}
    self.assertContainsSubset(
      others,
      {
        'row',
        'data.limit',
        'data.labeled',
        'data.validation',
        'log_every',
        'data.holdout',
        'batch.labeled',
        'batch.unlabeled',
        'batch.holdout',
        'checkpoint.every',
        'ema_decay',
        'eval.batch_norm',
        'scheduled_steps',
        'model.width',
        'model.depth',
        'model.blocks',
      },
    )
    self.assertEqual(short.keys(), whole.keys())
    self.assertEqual(short['row'], '')  # no result of a paper's row


@functools.cache
def nodes():
  """Everything that is written in the package."""
  return [
    node
    for path in (ROOT / 'nsl_jax').rglob('*.py')
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
  ]


@functools.cache
def chains():
  """Every `config.a.b` of the package, as 'a.b'."""
  found = (ast.unparse(n) for n in nodes() if isinstance(n, ast.Attribute))
  return {
    name.removeprefix('config.') for name in found if name.startswith('config.')
  }


@functools.cache
def words():
  """Every parameter, class field, string and file of the package."""
  found = {path.stem for path in (ROOT / 'nsl_jax').rglob('*.py')}
  for node in nodes():
    if isinstance(node, ast.arg):
      found.add(node.arg)
    elif isinstance(node, ast.AnnAssign):
      found.add(ast.unparse(node.target))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      found.add(node.value)
  return found


class FieldTest(parameterized.TestCase):
  """No field is written that nobody reads."""

  def is_read(self, field):
    section, _, name = field.partition('.')
    if section in PASSED_ON:
      return section in chains() and set(name.split('.')) <= words()
    return field in chains() or f'{section}.items' in chains()

  def test_every_field_is_read(self):
    fields = {f for argument in variants() for f in flat(loaded(argument))}
    for field in sorted(fields):
      self.assertTrue(self.is_read(field), f'nobody reads config.{field}')

  def test_a_dead_field_would_be_found(self):
    for field in ('data.color', 'stepz', 'method.lambda9', 'eval.evry'):
      self.assertFalse(self.is_read(field))


if __name__ == '__main__':
  absltest.main()
