"""VAT: directions, values and gradients against loops."""

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special
from softmax_options import EXACT, PROBED, trace
from softmax_toy import B, Toy, probs_of, run
from term_inputs import rows, shared

from nsl_jax import errors, losses, terms
from nsl_jax.types import ForwardPass


class VatTest(parameterized.TestCase):
  def oracle(self, view, params):
    """Rows' Fisher matrices of softmax regression."""
    kernel = np.asarray(params['head']['kernel'], np.float64)
    return [
      kernel @ (np.diag(p) - np.outer(p, p)) @ kernel.T
      for p in probs_of(view, params)
    ]

  @parameterized.parameters('adversarial', 'clean')
  def test_exact_value_against_a_loop(self, direction):
    toy = Toy(noise=0.3)
    state, _, metrics = run('vat', toy, kl_direction=direction, **EXACT)
    clean, moved = (
      np.asarray(v, np.float64).reshape(2 * B, -1) for v in toy.views
    )
    change = moved - clean
    np.testing.assert_allclose(np.linalg.norm(change, axis=1), 0.5, rtol=1e-4)
    total = 0.0
    for row, p, q in zip(
      range(2 * B), probs_of(clean, state.params), probs_of(moved, state.params)
    ):
      if row >= B:
        first, second = (q, p) if direction == 'adversarial' else (p, q)
        total += np.sum(first * np.log(first / second))
    np.testing.assert_allclose(metrics['vat'], total / B, rtol=1e-3)

  def test_directions_are_those_of_the_fisher_matrix(self):
    """Invariant 10, both modes in the method as a whole."""
    for fields in EXACT, dict(PROBED, xi=1e-2):
      toy = Toy(noise=0.0)
      state, _, _ = run('vat', toy, **fields)
      clean, moved = (
        np.asarray(v, np.float64).reshape(2 * B, -1)
        for v in (toy.views[0], toy.views[-1])
      )
      change = (moved - clean) / 0.5
      for row, fisher in enumerate(self.oracle(clean, state.params)):
        # One power iteration from a random start ends in the range of F.
        residual = change[row] - fisher @ np.linalg.pinv(fisher) @ change[row]
        self.assertLess(np.linalg.norm(residual), 0.02, row)

  def test_finite_difference_augments_every_pass(self):
    toy = Toy(noise=0.3)
    run('vat', toy, xi=1e-6, **PROBED)
    clean, _, moved = toy.views
    self.assertGreater(
      np.linalg.norm(
        np.asarray(moved - clean).reshape(2 * B, -1), axis=1
      ).max(),
      0.6,
    )

  @parameterized.parameters(
    (dict(mode='exakt'), "did you mean 'exact'"),
    (dict(kl_direction='cleann'), "did you mean 'clean'"),
    (dict(eps=0.0), 'must be > 0'),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      trace('vat', **{**EXACT, **fields})


class VATTest(parameterized.TestCase):
  """VAT on softmax regression in float64, the first two rows labeled."""

  def setUp(self):
    super().setUp()
    self.enterContext(numeric.float64())
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
    """One exact iteration, to 0.23 of the norm of six values of the images'
    deviation; a probe is of 1e-6."""
    np.testing.assert_allclose(
      self.call(self.kernel),
      self.call(
        self.kernel,
        eps=0.23 * 6**0.5 * self.images.std(),
        mode='exact',
        iterations=1,
        kl_direction='adversarial',
      ),
      rtol=1e-9,
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
