"""Terms: which logits they read, what stays constant, how they are built."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special

from nsl_jax import errors, losses, terms
from nsl_jax.terms import negative_samplers
from nsl_jax.types import Batch, ForwardPass, TermInputs

LOGITS = jnp.array([[1.0, -2.0, 0.5, 0.4], [0.0, 3.0, -1.0, 0.2]])
BELIEF = jnp.array([[0.6, 0.02, 0.3, 0.08], [0.01, 0.97, 0.01, 0.01]])
THRESHOLD = dict(sampler='threshold', threshold=0.05)
NEGATIVE = np.array([[False, True, False, False], [True, False, True, True]])
WEIGHT = dict(weight=2.0, ramp='none', ramp_steps=0)


def shared(logits=LOGITS, target_probs=BELIEF, second_pass=None, **more):
  return TermInputs(
    logits, target_probs, normalizer=4, second_pass=second_pass, **more
  )


def rows(per_image_tables=None):
  images = jnp.zeros((2, 1, 1, 1))
  return Batch(
    x=images,
    y=jnp.zeros(2, jnp.int32),
    u=images,
    u_index=jnp.arange(2),
    per_image_tables=per_image_tables or {},
  )


class NS3LTest(parameterized.TestCase):
  def test_one_pass(self):
    """Algorithm 1: negatives by belief, probabilities from the same pass."""
    term = terms.build('ns3l', passes=1, **THRESHOLD)
    refused = lambda key: self.fail('one pass must not run a second one')
    value = term(shared(second_pass=refused), rows(), jax.random.key(0))
    np.testing.assert_allclose(
      value, losses.negative_sampling_loss(LOGITS, NEGATIVE), rtol=1e-6
    )

  def test_two_passes(self):
    """F-N2: negatives by belief, probabilities from one more pass."""
    views = []

    def second_pass(key):
      views.append(key)
      return LOGITS + jax.random.normal(key, LOGITS.shape)

    term = terms.build('ns3l', passes=2, **THRESHOLD)
    value = term(shared(second_pass=second_pass), rows(), jax.random.key(0))
    self.assertLen(views, 1)
    second = LOGITS + jax.random.normal(jax.random.clone(views[0]), (2, 4))
    np.testing.assert_allclose(
      value, losses.negative_sampling_loss(second, NEGATIVE), rtol=1e-6
    )
    term(shared(second_pass=second_pass), rows(), jax.random.key(1))
    self.assertNotEqual(*(jax.random.key_data(k).tolist() for k in views))

  @parameterized.parameters(1, 2)
  def test_gradient(self, passes):
    """Invariant 6: it comes from the pass that gives p, not by the belief."""
    term = terms.build('ns3l', passes=passes, **THRESHOLD)

    def total(first, second, target_probs):
      aux = shared(first, target_probs, lambda key: second)
      return term(aux, rows(), jax.random.key(0)).sum()

    found = jax.grad(total, (0, 1, 2))(LOGITS, LOGITS, BELIEF)
    expected = jax.grad(
      lambda z: losses.negative_sampling_loss(z, NEGATIVE).sum()
    )(LOGITS)
    for grad, used in zip(found, (passes == 1, passes == 2, False)):
      np.testing.assert_allclose(grad, used * expected, rtol=1e-6, atol=1e-7)

  def test_second_pass_without_one(self):
    term = terms.build('ns3l', passes=2, **THRESHOLD)
    with self.assertRaisesRegex(errors.UserError, 'set passes=1'):
      term(shared(), rows(), jax.random.key(0))

  @parameterized.parameters(
    (0, r'passes=0: must be in \[1, 2\]'),
    (3, r'passes=3: must be in \[1, 2\]'),
    ('1', "passes='1': must be a whole number"),
    (1.5, 'passes=1.5: must be a whole number'),
  )
  def test_number_of_passes(self, passes, message):
    with self.assertRaisesRegex(errors.UserError, f'ns3l {message}'):
      terms.build('ns3l', passes=passes, **THRESHOLD)

  def test_sampler_sees_the_side_tables(self):
    distance = jnp.array([[1.0, 2.0, 9.0, 3.0], [8.0, 0.0, 1.0, 2.0]])
    term = terms.build('ns3l', sampler='furthest', passes=1)
    value = term(
      shared(), rows({negative_samplers.DISTANCE: distance}), jax.random.key(0)
    )
    probs = jax.nn.softmax(LOGITS)
    expected = -np.log1p(-np.array([probs[0, 2], probs[1, 0]]))
    np.testing.assert_allclose(value, expected, rtol=1e-5)

  def test_negatives_are_drawn_anew_with_each_key(self):
    """F-N17: the drawn class shows in the value, -log(1 - p_j)."""
    term = jax.jit(
      lambda key: terms.build('ns3l', sampler='uniform', count=1, passes=1)(
        shared(), rows(), key
      )
    )
    values = np.stack([term(jax.random.key(seed)) for seed in range(60)])
    expected = -np.log1p(-np.asarray(jax.nn.softmax(LOGITS), np.float64))
    for row in range(2):
      gap = np.abs(values[:, row, None] - expected[row])
      self.assertLess(gap.min(axis=1).max(), 1e-5)
      self.assertEqual(set(gap.argmin(axis=1)), {0, 1, 2, 3})

  def test_without_options(self):
    """Two passes, and classes believed less than 0.04."""
    views = []

    def second_pass(key):
      views.append(key)
      return LOGITS

    value = terms.build('ns3l')(
      shared(second_pass=second_pass), rows(), jax.random.key(0)
    )
    self.assertLen(views, 1)
    negative = np.array([[0, 1, 0, 0], [1, 0, 1, 1]], bool)
    np.testing.assert_array_equal(BELIEF < 0.04, negative)
    np.testing.assert_allclose(
      value, losses.negative_sampling_loss(LOGITS, negative)
    )


class DNLLTest(parameterized.TestCase):
  """All of the three classes that another view does not predict."""

  OTHER = LOGITS[::-1]  # predicts the classes 1 and 0
  NEGATIVE = np.array([[True, False, True, True], [False, True, True, True]])

  def test_without_options(self):
    """Three negatives, from a second pass of the student."""
    passes = []

    def second_pass(key, params):
      passes.append(params)
      return self.OTHER

    value = terms.build('dnll')(
      shared(second_pass=second_pass), rows(), jax.random.key(0)
    )
    self.assertEqual(passes, [None])
    np.testing.assert_allclose(
      value, losses.complementary_label_loss(LOGITS, self.NEGATIVE), rtol=1e-6
    )

  def test_a_pass_that_moves_the_statistics(self):
    """The student's; they are given on, and the second head learns."""
    refused = lambda *args: self.fail('the other pass is for the teacher')
    value, stats = terms.build('dnll', count=3)(
      shared(
        second_pass=refused,
        second_pass_with_stats=lambda stats, key: (
          self.OTHER,
          stats | {'n': 1},
        ),
        consistency_u=2.0 * LOGITS,
        stats={},
      ),
      rows(),
      jax.random.key(0),
    )
    self.assertEqual(stats, {'n': 1})
    np.testing.assert_allclose(
      value, losses.complementary_label_loss(2.0 * LOGITS, self.NEGATIVE)
    )

  def test_by_the_teacher(self):
    """Its pass leaves the statistics alone."""
    slot = jnp.array(7.0)

    def second_pass(key, params):
      self.assertIs(params, slot)
      return self.OTHER

    refused = lambda *args: self.fail('the other pass is for the student')
    value = terms.build('dnll', source='teacher')(
      shared(
        second_pass=second_pass, second_pass_with_stats=refused, teacher=slot
      ),
      rows(),
      jax.random.key(0),
    )
    np.testing.assert_allclose(
      value, losses.complementary_label_loss(LOGITS, self.NEGATIVE), rtol=1e-6
    )


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


class PseudoLabelTest(absltest.TestCase):
  def test_reads_the_clean_pass(self):
    value = terms.build('pseudo_label', threshold=0.95)(
      shared(), rows(), jax.random.key(0)
    )
    self.assertEqual(value[0], 0.0)
    self.assertGreater(value[1], 0.0)
    np.testing.assert_array_equal(
      value, losses.pseudo_label(LOGITS, BELIEF, threshold=0.95)
    )


class EntropyTest(absltest.TestCase):
  def test_against_a_loop(self):
    """F-N7: of the first pass."""
    value = terms.build('entropy')(shared(), rows(), jax.random.key(0))
    want = [
      -sum(p * np.log(p) for p in row)
      for row in special.softmax(np.asarray(LOGITS), axis=-1)
    ]
    np.testing.assert_allclose(value, want, rtol=1e-5)


class AgreementTest(parameterized.TestCase):
  """Pi and Mean Teacher: which pass teaches, and that it is constant."""

  def call(self, name, student, teacher):
    """Values per row; the teacher's logits come from the extra pass."""
    slot = jnp.array(7.0)

    def second_pass(key, params=None):
      self.assertEqual(params is slot, name == 'mean_teacher')
      return teacher

    term = terms.build(name)
    aux = shared(student, second_pass=second_pass, teacher=slot)
    return term(aux, rows(), jax.random.key(0))

  @parameterized.parameters('pi', 'mean_teacher')
  def test_against_a_loop(self, name):
    """Invariant 9: 0 where both passes agree, else more."""
    teacher = LOGITS[::-1] * 0.5
    want = []
    for p, q in zip(
      *(special.softmax(np.asarray(z), axis=-1) for z in (LOGITS, teacher))
    ):
      want.append(sum((p[k] - q[k]) ** 2 for k in range(4)) / 4)
    found = self.call(name, LOGITS, teacher)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    self.assertGreater(min(want), 1e-3)
    np.testing.assert_array_equal(self.call(name, LOGITS, LOGITS), 0.0)

  @parameterized.parameters('pi', 'mean_teacher')
  def test_teacher_is_constant(self, name):
    """Invariant 9: its gradient is exactly 0, the student's is not."""
    total = lambda *logits: self.call(name, *logits).sum()
    student, teacher = jax.grad(total, (0, 1))(LOGITS, LOGITS[::-1] * 0.5)
    self.assertGreater(np.abs(student).max(), 1e-2)
    np.testing.assert_array_equal(teacher, 0.0)


class VATTest(parameterized.TestCase):
  """VAT on softmax regression in float64, the first two rows labeled."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.kernel = rng.normal(size=(6, 4))
    self.images = rng.normal(size=(5, 2, 3, 1))

  def call(self, kernel, shift=0.0, seen=None, **options):
    """Values of the unlabeled rows.

    Args:
      kernel: f64[6, 4] of the network.
      shift: added to the clean logits.
      seen: list that gets the images of each pass after the clean one.
      **options: of the term.
    """
    network = lambda view: view.reshape(len(view), -1) @ kernel
    logits, jvp = jax.linearize(network, jnp.asarray(self.images))

    def apply(view, key=None):
      if seen is not None:
        seen.append(view)
      return network(view)

    clean = ForwardPass(
      images=jnp.asarray(self.images),
      view=jnp.asarray(self.images),
      logits=logits + shift,
      consistency=logits,
      jvp=jvp,
      apply_same_dropout=apply,
      apply_new_augmentation=apply,
      unlabeled=lambda values: values[2:],
    )
    return terms.build('vat', **options)(
      shared(forward_pass=clean), rows(), jax.random.key(3)
    )

  def by_hand(self, eps, mode, xi, iterations, kl_direction):
    """Loops over rows; the start is drawn from the same key."""
    start = jax.random.normal(
      jax.random.split(jax.random.key(3))[0], self.images.shape, float
    )
    found = []
    for image, d in zip(self.images, np.asarray(start)):
      x, d = image.reshape(-1), d.reshape(-1)
      p = special.softmax(x @ self.kernel)
      for _ in range(iterations):
        d = self.normalized(d)
        if mode == 'exact':
          slope = (np.diag(p) - np.outer(p, p)) @ self.kernel.T @ d
        else:  # of KL(p || q) in the logits of q
          slope = special.softmax((x + xi * d) @ self.kernel) - p
        d = self.kernel @ slope
      q = special.softmax((x + eps * self.normalized(d)) @ self.kernel)
      first, second = (q, p) if kl_direction == 'adversarial' else (p, q)
      found.append(sum(a * np.log(a / b) for a, b in zip(first, second)))
    return found[2:]

  def normalized(self, v):
    v = v / (1e-12 + max(abs(v)))
    return v / np.sqrt(1e-6 + sum(v**2))

  @parameterized.product(
    mode=('exact', 'finite_difference'),
    iterations=(1, 3),
    kl_direction=('adversarial', 'clean'),
  )
  def test_against_a_loop(self, **options):
    """Invariant 9: also that no row is below 0."""
    options.update(eps=0.7, xi=0.5)
    found = self.call(self.kernel, **options)
    # Where the slope is small the 1e-12 beside the largest entry shows.
    np.testing.assert_allclose(found, self.by_hand(**options), rtol=1e-9)
    self.assertGreater(found.min(), 1e-3)

  def test_without_options(self):
    """One exact iteration to a change of 6; a probe is of 1e-6."""
    np.testing.assert_array_equal(
      self.call(self.kernel),
      self.call(
        self.kernel,
        eps=6.0,
        mode='exact',
        iterations=1,
        kl_direction='adversarial',
      ),
    )
    short, default, long = (
      self.call(self.kernel, mode='finite_difference', **fields)
      for fields in ({'xi': 1e-6}, {}, {'xi': 1.0})
    )
    np.testing.assert_array_equal(default, short)
    self.assertGreater(np.abs(default - long).max(), 1e-3)

  @parameterized.product(
    mode=('exact', 'finite_difference'), eps=(1e-3, 1.0, 6.0)
  )
  def test_length_of_the_change(self, mode, eps):
    """Invariant 10: eps to 1e-6 in every image."""
    seen = []
    self.call(self.kernel, seen=seen, mode=mode, eps=eps, xi=1e-2)
    change = np.asarray(seen[-1] - self.images).reshape(5, -1)
    np.testing.assert_allclose(np.linalg.norm(change, axis=1), eps, rtol=1e-6)

  @parameterized.product(
    mode=('exact', 'finite_difference'), kl_direction=('adversarial', 'clean')
  )
  def test_no_change_no_loss(self, **options):
    """Invariant 9: an eps that is lost in the pixels."""
    found = self.call(self.kernel, eps=1e-30, xi=1e-2, **options)
    np.testing.assert_array_equal(found, 0.0)

  @parameterized.product(
    mode=('exact', 'finite_difference'), kl_direction=('adversarial', 'clean')
  )
  def test_gradient(self, mode, kl_direction):
    """Invariant 9: none into the clean prediction; the change is constant."""
    seen = []
    options = dict(mode=mode, kl_direction=kl_direction, eps=0.7, xi=1e-2)
    total = lambda *args, **more: self.call(*args, **options, **more).sum()
    grad, clean = jax.grad(total, (0, 1))(self.kernel, np.zeros((5, 4)))
    np.testing.assert_array_equal(clean, 0.0)
    total(self.kernel, seen=seen)
    fixed = self.images[2:].reshape(3, -1) @ self.kernel
    view = seen[-1][2:].reshape(3, -1)

    def direct(kernel):
      pair = (view @ kernel, fixed)
      if kl_direction == 'clean':
        pair = pair[::-1]
      return losses.kl_divergence(*pair).sum()

    want = jax.grad(direct)(self.kernel)
    self.assertGreater(np.abs(want).max(), 0.1)
    np.testing.assert_allclose(grad, want, rtol=1e-9, atol=1e-12)


if __name__ == '__main__':
  absltest.main()
