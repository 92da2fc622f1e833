"""Hypergradients of labels against closed forms (appendix B) and autodiff."""

import functools

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax.compose import bilevel

RATE = 0.1
# Invariant 24's fixture: labeled, unlabeled with its label, held-out.
THETA, X, Y = [0.5, -0.25], [[1.0, 2.0]], [1.0]
U, Z, H, HY = [[2.0, -1.0]], [0.3], [[1.0, 1.0]], [0.0]


def alone(inner):
  """The inner loss as `bilevel` wants it, of a pass that gives nothing else."""
  return lambda params, z: (inner(params, z), None)


def inner_step(inner, *args, **fields):
  return bilevel.inner_step(alone(inner), *args, **fields)[0]


def label_gradient(inner, *args, **fields):
  return bilevel.label_gradient(alone(inner), *args, **fields)[:2]


def binary(theta, rows, labels):
  """-sum of the log-likelihood of logistic regression."""
  score = rows @ theta
  return jnp.sum(jax.nn.softplus(score) - labels * score)


def squares(theta, rows, labels):
  return jnp.sum((rows @ theta - labels) ** 2)


def problem(loss, x, y, u, h, hy):
  """C_in(theta, z) and C_held(theta)."""
  inner = lambda theta, z: loss(theta, x, y) + loss(theta, u, z)
  return inner, lambda theta: loss(theta, h, hy)


def fixture(loss):
  arrays = [jnp.asarray(a, jnp.float64) for a in (X, Y, U, H, HY)]
  return problem(loss, *arrays), jnp.array(THETA), jnp.array(Z)


def random_problem(seed, loss):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
  x, u, h = draw(4, 3), draw(6, 3), draw(5, 3)
  y, hy = (jnp.asarray(rng.random(n)) for n in (4, 5))
  theta, z = draw(3), jnp.asarray(rng.random(6))
  return problem(loss, x, y, u, h, hy), theta, z, (x, y, u, h, hy)


class Float64(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(numeric.float64())


class ClosedFormTest(Float64):
  @parameterized.parameters(0, 1, 2)
  def test_logistic(self, seed):
    """eta sum_h (sigma(theta*.x_h) - y_h) x_h.x_u."""
    (inner, held), theta, z, (x, y, u, h, hy) = random_problem(seed, binary)
    _, found = label_gradient(inner, held, theta, z, rate=RATE)
    sigma = lambda a: 1 / (1 + np.exp(-np.asarray(a)))
    # Corrected sign (F-L2): theta* moves towards the labels.
    adapted = theta + RATE * (
      (y - sigma(x @ theta)) @ x + (z - sigma(u @ theta)) @ u
    )
    np.testing.assert_allclose(
      inner_step(inner, theta, z, rate=RATE), adapted, atol=1e-12
    )
    expected = RATE * u @ (h.T @ (sigma(h @ adapted) - hy))
    np.testing.assert_allclose(found, expected, atol=1e-12)

  @parameterized.parameters(0, 1, 2)
  def test_least_squares(self, seed):
    """4 eta sum_h (theta*.x_h - y_h) x_h.x_u."""
    (inner, held), theta, z, (x, y, u, h, hy) = random_problem(seed, squares)
    _, found = label_gradient(inner, held, theta, z, rate=RATE)
    adapted = theta + 2 * RATE * ((y - x @ theta) @ x + (z - u @ theta) @ u)
    expected = 4 * RATE * u @ (h.T @ (h @ adapted - hy))
    np.testing.assert_allclose(found, expected, atol=1e-12)

  def test_fixture(self):
    """Invariant 24, digit for digit."""
    (inner, held), theta, z = fixture(binary)
    np.testing.assert_allclose(
      inner_step(inner, theta, z, rate=RATE), [0.454540, -0.102270], atol=5e-7
    )
    _, found = label_gradient(inner, held, theta, z, rate=RATE)
    np.testing.assert_allclose(found, [0.0587168], atol=5e-8)
    noise = jnp.array([[0.1, 0.2]])
    impute = lambda theta: jax.nn.sigmoid((jnp.array(U) + noise) @ theta)
    z = impute(theta)
    np.testing.assert_allclose(z, [0.777300], atol=5e-7)
    np.testing.assert_allclose(
      inner_step(inner, theta, z, rate=RATE), [0.55, -0.15], atol=1e-12
    )
    _, found = label_gradient(inner, held, theta, z, rate=RATE)
    np.testing.assert_allclose(  # V2's
      found @ jax.jacobian(impute)(theta), [0.0217635, -0.00829086], atol=5e-8
    )

  def test_fixture_of_regression(self):
    (inner, held), theta, z = fixture(squares)
    np.testing.assert_allclose(
      inner_step(inner, theta, z, rate=RATE), [0.32, 0.34], atol=1e-12
    )
    _, found = label_gradient(inner, held, theta, z, rate=RATE)
    np.testing.assert_allclose(found, [0.264], atol=1e-12)

  def test_where_it_is_nothing(self):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
    theta, u, h = draw(3), draw(2, 3), draw(4, 3)
    z = jnp.array([0.2, 0.7])
    x, y = jnp.zeros((0, 3)), jnp.zeros(0)
    # No residual on the held-out images ...
    inner, _ = problem(squares, x, y, u, h, y)
    right = h @ inner_step(inner, theta, z, rate=RATE)
    held = lambda theta: squares(theta, h, right)
    _, found = label_gradient(inner, held, theta, z, rate=RATE)
    np.testing.assert_allclose(found, 0, atol=1e-12)
    # ... or nothing that an image has in common with them.
    u, h = draw(2, 3).at[:, 2].set(0), jnp.array([[0.0, 0.0, 1.0]])
    inner, held = problem(binary, x, y, u, h, jnp.array([1.0]))
    _, found = label_gradient(inner, held, theta, z, rate=RATE)
    np.testing.assert_allclose(found, 0, atol=1e-12)

  def test_sign(self):
    """A held-out 1 that is predicted too low raises the label of its like."""
    inner, held = problem(
      binary,
      jnp.zeros((0, 2)),
      jnp.zeros(0),
      jnp.array([[1.0, 0.5]]),
      jnp.array([[1.0, 1.0]]),
      jnp.array([1.0]),
    )
    _, found = label_gradient(
      inner, held, jnp.array([-0.5, 0.1]), jnp.array([0.4]), rate=RATE
    )
    self.assertLess(float(found[0]), -1e-3)


def network(params, images):
  """Two layers with a tanh, f64[N, 3] -> f64[N, K]."""
  return jnp.tanh(images @ params['one']) @ params['two']


def softmax_problem(seed=0, scale=1.0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
  params = {'one': draw(3, 5), 'two': draw(5, 4)}
  u, other, h = draw(6, 3), draw(6, 3), draw(8, 3)
  y = jnp.asarray(rng.integers(0, 4, 8))

  def inner(params, z):
    return scale * jnp.sum((jax.nn.softmax(network(params, u)) - z) ** 2)

  def held(params):
    scores = jax.nn.log_softmax(network(params, h))
    return -jnp.mean(scores[jnp.arange(8), y])

  impute = lambda params: jax.nn.softmax(network(params, other))
  return inner, held, impute, params


class NetworkTest(Float64):
  def test_against_finite_differences(self):
    inner, held, impute, params = softmax_problem()
    z = impute(params)
    held_loss = lambda z: held(inner_step(inner, params, z, rate=RATE))
    _, found = label_gradient(inner, held, params, z, rate=RATE)
    change = jnp.asarray(np.random.default_rng(1).normal(size=z.shape))
    slope = (held_loss(z + 1e-6 * change) - held_loss(z - 1e-6 * change)) / 2e-6
    self.assertGreater(abs(slope), 1e-3)
    np.testing.assert_allclose((found * change).sum(), slope, rtol=1e-6)

  def test_v2_is_the_transposed_jacobian_of_v1(self):
    """Invariant 25; and it is not the whole derivative."""
    inner, held, impute, params = softmax_problem()
    _, by_label = label_gradient(inner, held, params, impute(params), rate=RATE)
    jacobian = jax.jacrev(impute)(params)
    found = {
      name: jnp.tensordot(by_label, part, 2) for name, part in jacobian.items()
    }

    def path(shadow):  # the imputing parameters alone
      return held(inner_step(inner, params, impute(shadow), rate=RATE))

    def whole(params):
      return held(inner_step(inner, params, impute(params), rate=RATE))

    for name, part in jax.grad(path)(params).items():
      self.assertGreater(jnp.abs(part).max(), 1e-3)
      np.testing.assert_allclose(found[name], part, atol=1e-12)
    gap = jnp.abs(jax.grad(whole)(params)['one'] - found['one'])
    self.assertGreater(gap.max(), 0.05)

  def test_theta_is_constant(self):
    """F-L7: the gradient in z is a number of theta, which it has no slope in,
    while it has one in z."""
    inner, held, impute, params = softmax_problem()
    total = lambda params, z: (
      label_gradient(inner, held, params, z, rate=RATE)[1] ** 2
    ).sum()
    by_theta, by_label = jax.grad(total, (0, 1))(params, impute(params))
    self.assertGreater(jnp.abs(by_label).max(), 1e-6)
    for leaf in jax.tree.leaves(by_theta):
      np.testing.assert_array_equal(leaf, 0.0)

  def test_the_labeled_loss_moves_theta_alone(self):
    """Invariant 26: C^T shifts theta*, not how z shifts it."""
    inner, _, impute, params = softmax_problem()
    more = lambda params, z: inner(params, z) + held_squares(params)
    held_squares = lambda params: sum(
      (leaf**2).sum() for leaf in jax.tree.leaves(params)
    )
    z = impute(params)
    shift = lambda c: jax.jacrev(
      lambda z: inner_step(c, params, z, rate=RATE)['one']
    )(z)
    np.testing.assert_allclose(shift(inner), shift(more), atol=1e-12)
    gap = (
      inner_step(inner, params, z, rate=RATE)['one']
      - inner_step(more, params, z, rate=RATE)['one']
    )
    self.assertGreater(jnp.abs(gap).max(), 0.01)
    # So the gradient in z is the same where theta* has one slope.
    linear = lambda params: (params['one'] * 2.0).sum()
    one, two = (
      label_gradient(c, linear, params, z, rate=RATE)[1] for c in (inner, more)
    )
    self.assertGreater(jnp.abs(one).max(), 1e-3)
    np.testing.assert_allclose(one, two, atol=1e-12)

  def test_what_else_the_inner_pass_gives(self):
    inner, held, impute, params = softmax_problem()
    z = impute(params)
    telling = lambda params, z: (inner(params, z), params['one'].sum())
    value, gradient, rest = bilevel.label_gradient(
      telling, held, params, z, rate=RATE
    )
    np.testing.assert_allclose(rest, params['one'].sum(), rtol=1e-12)
    without = label_gradient(inner, held, params, z, rate=RATE)
    np.testing.assert_allclose(value, without[0], rtol=1e-12)
    np.testing.assert_allclose(gradient, without[1], atol=1e-12)

  @parameterized.parameters(0, 1, 2, 3)
  def test_labels_that_help(self, seed):
    """Invariant 27: the inner step taken again with moved labels is better."""
    inner, held, impute, params = softmax_problem(seed)
    z = impute(params)
    value, gradient = label_gradient(inner, held, params, z, rate=RATE)
    second_pass = held(inner_step(inner, params, z - 0.1 * gradient, rate=RATE))
    self.assertLess(float(second_pass), float(value) - 1e-9)
    moved = jnp.log(z) - 0.1 * bilevel.to_logits(gradient, z)
    second_pass = held(
      inner_step(inner, params, jax.nn.softmax(moved), rate=RATE)
    )
    self.assertLess(float(second_pass), float(value) - 1e-9)

  def test_no_inner_rate_no_gradient(self):
    """Invariant 28; and it is linear in the rate where theta* is fixed."""
    inner, held, impute, params = softmax_problem()
    z = impute(params)
    _, found = label_gradient(inner, held, params, z, rate=0.0)
    np.testing.assert_array_equal(found, 0)
    linear = lambda params: (params['one'] * 2.0).sum()  # one g for any theta*
    one, two = (
      label_gradient(inner, linear, params, z, rate=r)[1] for r in (0.1, 0.3)
    )
    np.testing.assert_allclose(3 * one, two, atol=1e-12)

  def test_sum_or_mean(self):
    """Invariant 28: B_u K times the rate on a mean is the rate on the sum."""
    _, held, impute, params = softmax_problem()
    z = impute(params)
    of_sum, of_mean = (
      label_gradient(
        softmax_problem(scale=scale)[0], held, params, z, rate=rate
      )
      for scale, rate in ((1.0, RATE), (1 / 24, 24 * RATE))
    )
    np.testing.assert_allclose(of_sum[0], of_mean[0], rtol=1e-12)
    np.testing.assert_allclose(of_sum[1], of_mean[1], atol=1e-12)


class LastLayerTest(Float64):
  def draw(self, bias):
    """Features, labels and a layer, and its scores."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
    features, held_features = draw(6, 5), draw(8, 5)
    labels = jax.nn.one_hot(jnp.asarray(rng.integers(0, 4, 8)), 4)
    layer = {'w': draw(5, 4), 'b': draw(1, 4)}
    z = jax.nn.softmax(draw(6, 4))
    score = lambda layer, rows: rows @ layer['w'] + bias * layer['b']
    return features, held_features, labels, layer, z, score

  @parameterized.parameters(False, True)
  def test_against_autodiff(self, bias):
    """Invariant 29: only the last layer adapts, to the gradient p - z."""
    features, held_features, labels, layer, z, score = self.draw(bias)

    def adapted(z):
      wrong = jax.nn.softmax(score(layer, features)) - z
      return {
        'w': layer['w'] - RATE * features.T @ wrong,
        'b': layer['b'] - RATE * wrong.sum(0, keepdims=True),
      }

    def held_loss(z):
      scores = jax.nn.log_softmax(score(adapted(z), held_features))
      return -jnp.sum(labels * scores)

    probs = jax.nn.softmax(score(adapted(z), held_features))
    found = bilevel.last_layer_gradient(
      features, held_features, probs, labels, rate=RATE, bias=bias
    )
    np.testing.assert_allclose(found, jax.grad(held_loss)(z), atol=1e-12)

  @parameterized.product(bias=(False, True), squared=(False, True))
  def test_other_inner_losses(self, bias, squared):
    """Autodiff of cross-entropy with free labels takes a row's mean off the
    closed form A (F-L20), that of squared errors weighs by 2 P_U as well."""
    features, held_features, labels, layer, z, score = self.draw(bias)

    def inner(layer, z):
      scores = score(layer, features)
      if squared:
        return jnp.sum((jax.nn.softmax(scores) - z) ** 2)
      return -jnp.sum(z * jax.nn.log_softmax(scores))

    def held(layer):
      return -jnp.sum(labels * jax.nn.log_softmax(score(layer, held_features)))

    _, found = label_gradient(inner, held, layer, z, rate=RATE)
    adapted = inner_step(inner, layer, z, rate=RATE)
    closed = bilevel.last_layer_gradient(
      features,
      held_features,
      jax.nn.softmax(score(adapted, held_features)),
      labels,
      bias=bias,
    )
    probs = jax.nn.softmax(score(layer, features))
    centerd = closed - (closed * probs).sum(-1, keepdims=True)
    expected = RATE * (2 * probs * centerd if squared else centerd)
    np.testing.assert_allclose(found, expected, atol=1e-12)

  def test_one_row_of_classes_for_all_is_refused(self):
    features, held_features, labels, *_ = self.draw(False)
    with self.assertRaises(AssertionError):
      bilevel.last_layer_gradient(features, held_features, labels[:1], labels)

  def test_in_logits(self):
    """F-L20: the softmax takes out what rows have in common."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(6, 4)))
    gradient = jnp.asarray(rng.normal(size=(6, 4)))
    probs, back = jax.vjp(functools.partial(jax.nn.softmax, axis=-1), logits)
    found = bilevel.to_logits(gradient, probs)
    np.testing.assert_allclose(found, back(gradient)[0], atol=1e-12)
    shifted = gradient + jnp.arange(6.0)[:, None]
    np.testing.assert_allclose(
      bilevel.to_logits(shifted, probs), found, atol=1e-12
    )


if __name__ == '__main__':
  absltest.main()
