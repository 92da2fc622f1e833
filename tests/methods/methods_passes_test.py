"""What a step of every method costs, and which terms go on which method."""

import inspect

import numpy as np
from absl.testing import absltest, parameterized
from softmax_options import EXACT, PROBED, TEACHER, TWO, trace
from softmax_toy import (
  ICT,
  MIX,
  NS3L,
  ONCE,
  K,
  Toy,
  check_moved_once,
  make_batch,
  probs_of,
  run,
)

from nsl_jax import errors, methods, terms

# Options of every method, and the passes that its definition needs. The two
# networks of a pair both learn on one view and teach on another.
OWN = {
  'supervised': ({}, 1),
  'pseudo_label': (dict(threshold=0.9, **ONCE), 1),
  'ns3l': (NS3L, 1),
  'pi': (ONCE, 2),
  'mean_teacher': (TEACHER, 2),
  'vat': (EXACT, 2),
  'mixup': (dict(alpha=0.75), 3),
  'ict': (ICT, 3),
  'mixmatch': (MIX, 5),
  'pseudo_label_l2i': (dict(teacher=False, **ONCE), 3),
  'fixmatch': (dict(threshold=0.3), 1),
  'flexmatch': (dict(threshold=0.3), 1),
  'freematch': ({}, 1),
  'softmatch': ({}, 1),
  'dnll': (dict(selection='ep', count=1, unsupervised='both', **ONCE), 4),
  'dual_student': (
    dict(
      consistency=1.0,
      stabilization=1.0,
      tie=0.01,
      threshold=0.8,
      ramp='none',
      ramp_steps=0,
    ),
    4,
  ),
}
# Options of every term, and the passes that it adds.
ADDED = {
  'entropy': (ONCE, 0),
  'pseudo_label': (dict(threshold=0.9, **ONCE), 0),
  'ns3l': (NS3L, 0),
  'pi': (ONCE, 1),
  'mean_teacher': (ONCE, 1),
  'vat': (EXACT, 1),
  'dnll': (dict(count=1, **ONCE), 1),
  'fairness': ({}, 0),
}
_RULES = ('fixmatch', 'flexmatch', 'freematch', 'softmatch')
MIXED, PAIRS = ('mixup', 'ict', 'mixmatch'), ('dnll', 'dual_student')


def refusal(method, term):
  """The message for a combination without a meaning, None for the others."""
  if method == term and method not in PAIRS:
    return 'has the term .* already: set it in config.method'
  if (method, term) == ('freematch', 'fairness'):
    return 'has the term fairness already: set it in config.method'
  if term == 'fairness' and method not in _RULES:
    return 'fairness needs a method that averages its predictions'
  if term == 'mean_teacher' and method != 'ict':
    return 'needs the method mean_teacher'
  if method in MIXED and term in ('pi', 'mean_teacher', 'dnll'):
    return f'has no second pass for {term}'
  if method in (*MIXED, *PAIRS, 'pseudo_label_l2i') and term == 'vat':
    return 'has no first pass for vat'
  return None


class CombinationsTest(parameterized.TestCase):
  def test_all_are_here(self):
    """A new method or term needs an entry, and with it these tests."""
    for name in methods.names():
      takes = 'terms' in inspect.signature(methods.find(name)).parameters
      self.assertEqual(takes, name in (*OWN, 'mean_label'), name)
    self.assertCountEqual(terms.names(), ADDED)

  @parameterized.parameters(*OWN)
  def test_every_term(self, name):
    """By the config alone; each forward pass is made once."""
    options, passes = OWN[name]
    networks = 2 if name in PAIRS else 1
    self.assertEqual(trace(name, **options)[0], passes)
    for term, (fields, more) in ADDED.items():
      message = refusal(name, term)
      with self.subTest(term):
        if message is None:
          calls, metrics = trace(name, terms={term: fields}, **options)
          self.assertEqual(calls, passes + networks * more)
          shown = f'{term}_a' if name in PAIRS else term
          self.assertEqual(metrics[shown].shape, ())
          continue
        with self.assertRaisesRegex(errors.UserError, message) as caught:
          trace(name, terms={term: fields}, **options)
        self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(*MIXED)
  def test_no_second_pass_over_mixed_rows(self, name):
    with self.assertRaisesRegex(
      errors.UserError, 'for ns3l: set terms.ns3l.passes=1'
    ):
      trace(name, terms={'ns3l': TWO}, **OWN[name][0])

  @parameterized.parameters(
    ('ns3l', TWO, 2),
    ('vat', PROBED, 3),
    ('vat', dict(PROBED, iterations=3), 5),
    ('vat', dict(EXACT, iterations=3), 2),
    ('mixmatch', dict(MIX, views=1), 3),
    ('mixmatch', dict(MIX, views=3), 7),
    ('pi', dict(ONCE, terms={'ns3l': TWO}), 3),
    ('mean_teacher', dict(TEACHER, terms={'ns3l': TWO}), 3),
    ('vat', dict(EXACT, terms={'ns3l': TWO}), 3),
    ('vat', dict(PROBED, terms={'ns3l': TWO}), 4),
    (
      'vat',
      dict(
        EXACT,
        terms={
          'ns3l': NS3L,
          'entropy': ONCE,
          'pseudo_label': dict(threshold=0.9, **ONCE),
        },
      ),
      2,
    ),
    ('mixmatch', dict(MIX, terms={'ns3l': NS3L, 'entropy': ONCE}), 5),
    # Labeled and unlabeled images apart: one first pass more.
    ('ns3l', dict(NS3L, shared_batch_norm=False), 2),
    ('pi', dict(ONCE, shared_batch_norm=False), 3),
    ('mean_teacher', dict(TEACHER, shared_batch_norm=False), 3),
    ('vat', dict(EXACT, shared_batch_norm=False), 3),
    ('vat', dict(PROBED, shared_batch_norm=False), 4),
  )
  def test_passes_with_options(self, name, fields, passes):
    self.assertEqual(trace(name, **fields)[0], passes)

  @parameterized.parameters(
    ('supervised', {}),
    ('ns3l', TWO),
    ('pi', ONCE),
    ('mean_teacher', TEACHER),
    ('vat', EXACT),
    ('vat', PROBED),
  )
  def test_clean_pass_alone_moves_the_statistics(self, name, fields):
    """Invariant 18, for family O."""
    toy = Toy(noise=0.1)
    _, after, _ = run(name, toy, **fields)
    check_moved_once(after, toy.views[0])


class ApartTest(parameterized.TestCase):
  @parameterized.parameters('pi', 'mean_teacher', 'vat', 'ns3l')
  def test_each_group_for_itself(self, name):
    """Family M: each group is a separate batch with a separate mean."""
    toy = Toy(noise=0.1)
    state, after, metrics = run(
      name, toy, make_batch(5, 7), shared_batch_norm=False, **OWN[name][0]
    )
    sizes = [len(view) for view in toy.views]
    self.assertEqual(sizes.count(5), 1)
    self.assertEqual(set(sizes), {5, 7})
    labeled = toy.views[sizes.index(5)]
    check_moved_once(after, labeled)
    probs = probs_of(labeled, state.params)
    np.testing.assert_allclose(
      metrics['cross_entropy'],
      -np.log(probs[np.arange(5), np.arange(5) % K]).mean(),
      rtol=1e-5,
    )


if __name__ == '__main__':
  absltest.main()
