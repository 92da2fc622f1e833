"""Terms: which logits they read, what stays constant, how they are built."""

import jax
import numpy as np
from absl.testing import absltest, parameterized
from term_inputs import LOGITS, NEGATIVE, THRESHOLD, WEIGHT, rows, shared

from nsl_jax import errors, losses, terms
from nsl_jax.terms import negative_samplers


class LimitsTest(parameterized.TestCase):
  @parameterized.parameters(
    ('dnll', dict(count=0), 'count=0: must be >= 1'),
    ('dnll', dict(source='techer'), "source='techer': did you mean 'teacher'"),
    (
      'pseudo_label',
      dict(threshold=1.5),
      r'threshold=1.5: must be in \[0, 1\]',
    ),
    ('vat', dict(eps=0.0), 'eps=0.0: must be > 0'),
    ('vat', dict(xi=0.0), 'xi=0.0: must be > 0'),
    ('vat', dict(iterations=0), 'iterations=0: must be >= 1'),
    ('vat', dict(mode='exct'), "mode='exct': did you mean 'exact'"),
    ('vat', dict(kl_direction='cleen'), "'cleen': did you mean 'clean'"),
  )
  def test_values_outside_are_refused(self, name, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      terms.build(name, **fields)


class FindTest(parameterized.TestCase):
  def test_names_are_those_of_the_files(self):
    for name in terms.names():
      module = terms.find(name)
      self.assertEqual(module.__name__, f'nsl_jax.terms.{name}')
      self.assertContainsSubset(
        {'weight', 'ramp', 'ramp_steps'}, module.DEFAULTS
      )

  @parameterized.parameters(
    ('dnll', 2.0, 'dnll', dict(ramp_steps=32_000, hold_steps=320)),
    ('entropy', 0.06, 'none', dict(ramp_steps=0)),
    ('mean_teacher', 8.0, 'sigmoid', dict(ramp_steps=50_000)),
    ('ns3l', 1.0, 'sigmoid', dict(ramp_steps=50_000)),
    ('pi', 20.0, 'sigmoid', dict(ramp_steps=50_000)),
    ('pseudo_label', 1.0, 'sigmoid', dict(ramp_steps=50_000)),
    ('vat', 0.3, 'sigmoid', dict(ramp_steps=50_000)),
  )
  def test_weight_and_ramp_of_the_paper(self, name, weight, ramp, steps):
    self.assertEqual(
      terms.find(name).DEFAULTS, dict(weight=weight, ramp=ramp, **steps)
    )

  def test_every_term_is_built_without_options(self):
    for name in terms.names():
      self.assertTrue(callable(terms.build(name)), name)

  @parameterized.parameters('negative_samplers', 'power_iteration', 'ns3')
  def test_what_is_no_term(self, name):
    with self.assertRaisesRegex(errors.UserError, f"unknown term '{name}'"):
      terms.find(name)


class FromConfigTest(parameterized.TestCase):
  def test_nothing(self):
    self.assertEqual(terms.from_config({}), {})

  def test_weights_ramps_and_options(self):
    built = terms.from_config(
      {
        'pseudo_label': dict(
          weight=3.0, ramp='sigmoid', ramp_steps=10, threshold=0.5
        ),
        'ns3l': dict(
          weight=2.0, ramp='linear', ramp_steps=8, passes=1, **THRESHOLD
        ),
      }
    )
    self.assertEqual(list(built), ['pseudo_label', 'ns3l'])
    for name, step, expected in (
      ('pseudo_label', 5, 3 * 0.286505),
      ('pseudo_label', 10, 3.0),
      ('ns3l', 0, 0.0),
      ('ns3l', 2, 0.5),
      ('ns3l', 9, 2.0),
    ):
      np.testing.assert_allclose(built[name][0](step), expected, rtol=1e-5)
    value = built['pseudo_label'][1](shared(), rows(), jax.random.key(0))
    self.assertTrue((value > 0).all())  # threshold 0.5: either row is confident
    value = built['ns3l'][1](shared(), rows(), jax.random.key(0))
    np.testing.assert_allclose(
      value, losses.negative_sampling_loss(LOGITS, NEGATIVE)
    )

  def test_a_weight_may_be_held(self):
    fields = dict(weight=3.0, ramp='linear', ramp_steps=8, threshold=0.5)
    held, _ = terms.from_config({'pseudo_label': dict(fields, hold_steps=4)})[
      'pseudo_label'
    ]
    np.testing.assert_allclose(
      [held(step) for step in (0, 3, 4, 7, 8)], [0, 0, 1.5, 1.5, 3]
    )
    with self.assertRaisesRegex(errors.UserError, 'hold_steps=-1'):
      terms.from_config({'pseudo_label': dict(fields, hold_steps=-1)})

  def test_missing_options_are_those_of_the_paper(self):
    built = terms.from_config({'ns3l': {}, 'entropy': dict(ramp_steps=0)})
    for name, step, expected in (
      ('ns3l', 0, 0.006738),
      ('ns3l', 25_000, 0.286505),
      ('ns3l', 50_000, 1.0),
      ('entropy', 0, 0.06),
      ('entropy', 10**6, 0.06),
    ):
      np.testing.assert_allclose(built[name][0](step), expected, rtol=1e-4)
    given = terms.from_config(
      {'pseudo_label': dict(ramp_steps=50_000, threshold=0.95)}
    )
    default = terms.from_config({'pseudo_label': {}})
    for weight, term in (*given.values(), *default.values()):
      np.testing.assert_allclose(weight(25_000), 0.286505, rtol=1e-5)
      value = term(shared(), rows(), jax.random.key(0))
      self.assertEqual(value[0], 0.0)  # 0.6 is below 0.95, 0.97 is above
      self.assertGreater(value[1], 0.0)

  @parameterized.parameters(
    ({'ns3': WEIGHT}, "unknown term 'ns3': did you mean 'ns3l'"),
    ({'vat9': WEIGHT}, "unknown term 'vat9': "),
    (
      {'pseudo_label': dict(WEIGHT, threshold=0.9, temperature=1)},
      "'pseudo_label': .*unexpected.*'temperature'",
    ),
    ({'pseudo_label': dict(threshold=2)}, r'threshold=2: must be in \[0, 1\]'),
    ({'ns3l': dict(weight=-1.0)}, 'schedules weight=-1.0: must be >= 0'),
    ({'ns3l': dict(threshold=0.0)}, r'threshold=0.0: must be in \(0, 1\]'),
    (
      {'ns3l': dict(WEIGHT, passes=1, sampler='treshold', threshold=0.05)},
      "ns3l sampler='treshold': did you mean 'threshold'",
    ),
    (
      {'ns3l': dict(WEIGHT, passes=1, sampler='uniform', threshold=0.05)},
      "sampler 'uniform': .*'threshold'",
    ),
    (
      {'ns3l': dict(WEIGHT, ramp='line', passes=1, **THRESHOLD)},
      "schedules ramp='line': did you mean 'linear'",
    ),
  )
  def test_errors_are_one_clear_line(self, config, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      terms.from_config(config)
    self.assertNotIn('\n', str(caught.exception))


class WithOwnTest(absltest.TestCase):
  def test_own_term_comes_first(self):
    merged = terms.with_own('ns3l', THRESHOLD, {'pseudo_label': {}})
    self.assertEqual(list(merged), ['ns3l', 'pseudo_label'])

  def test_the_same_term_twice(self):
    with self.assertRaisesRegex(errors.UserError, 'has the term ns3l already'):
      terms.with_own('ns3l', THRESHOLD, {'ns3l': {}})


class SingleImagesTest(absltest.TestCase):
  def test_what_looks_an_image_up_is_refused(self):
    terms.refuse_single_images('mixup', {'ns3l': THRESHOLD})
    with self.assertRaisesRegex(
      errors.UserError, 'with mixup the ns3l sampler'
    ):
      terms.refuse_single_images('mixup', {'ns3l': {'sampler': 'oracle'}})


class LinearizedPassTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, False),
    ({'entropy': {}, 'pi': {}}, False),
    ({'vat': {'mode': 'finite_difference'}}, False),
    ({'vat': {}}, True),
    ({'pi': {}, 'vat': {'mode': 'exact', 'eps': 1.0}}, True),
    ({'mine': {'module': 'nsl_jax.terms.vat'}}, True),
    ({'mine': {'module': 'nsl_jax.terms.pi'}}, False),
  )
  def test_only_exact_vat_needs_it(self, config, expected):
    self.assertEqual(terms.needs_linearized_pass(config), expected)


class SideTablesTest(absltest.TestCase):
  def test_union_of_what_the_samplers_look_up(self):
    both = {
      'a': dict(sampler='oracle'),
      'b': dict(sampler='furthest'),
      'c': dict(sampler='exclude_nearest'),
      'd': dict(threshold=0.9),
    }
    self.assertEqual(
      terms.per_image_tables(both),
      (negative_samplers.DISTANCE, negative_samplers.TRUE_CLASS),
    )
    self.assertEqual(terms.per_image_tables({'ns3l': THRESHOLD}), ())
    self.assertEqual(terms.per_image_tables({}), ())


if __name__ == '__main__':
  absltest.main()
