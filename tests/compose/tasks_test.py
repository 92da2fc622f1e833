"""Points: how they are standardized, moved, trained on and measured."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from nsl_jax import errors, losses, methods
from nsl_jax.compose import tasks
from nsl_jax.data import augment
from nsl_jax.types import Batch, Components, Model, Outputs

SHAPE, P = (6, 8, 1), 4
SCALE = np.tile([1.0, 2.0, 4.0, 8.0], (3, 1))  # of each of three rows


class Toy:
  """Linear regression of two points; keeps the views that it is shown."""

  def __init__(self):
    self.views = []

  def init(self, key, image_shape):
    return {'w': jax.random.normal(key, (np.prod(image_shape), P))}, {}

  def apply(self, params, stats, images, *, train, key=None):
    self.views.append(images)
    flat = images.reshape(images.shape[0], -1)
    outputs = flat @ params['w']
    return Outputs(outputs, flat, outputs), stats


def tools_of(toy, steps='translate:2', rate=0.1):
  return Components(
    model=Model(toy.init, toy.apply),
    tx=optax.sgd(rate),
    augment=augment.build(steps),
    image_shape=SHAPE,
    task=tasks.REGRESSION,
    moving=augment.build_moving(steps),
  )


def make_batch(labeled=5, unlabeled=0):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return Batch(
    x=draw(labeled, *SHAPE),
    y=draw(labeled, P),
    u=draw(unlabeled, *SHAPE),
    u_index=jnp.arange(unlabeled),
    per_image_tables={},
    scale=jnp.array([1.0, 2.0, 4.0, 8.0]),
  )


def how_far(view, image):
  """(right, down) by which numpy finds that an image was moved."""
  found = []
  padded = np.pad(image[..., 0], 2, mode='reflect')
  for right in range(-2, 3):
    for down in range(-2, 3):
      at = padded[2 - down : 2 - down + 6, 2 - right : 2 - right + 8]
      if np.array_equal(at, view[..., 0]):
        found.append((right, down))
  return found


class ErrorTest(parameterized.TestCase):
  def test_by_hand(self):
    """Eyes 4 apart; the points are 0, 3 and 5 pixels off: 8 / 3 / 4."""
    true = jnp.array([[1.0, 1.0, 5.0, 1.0, 3.0, 3.0]])
    found = true + jnp.array([[0.0, 0.0, 0.0, 3.0, 3.0, -4.0]])
    np.testing.assert_allclose(
      losses.interocular_error(found, true), [8 / 12], rtol=1e-6
    )

  def test_against_a_loop(self):
    rng = np.random.default_rng(0)
    found, true = rng.normal(size=(2, 7, 10)).astype(np.float32)
    expected = []
    for one, other in zip(found, true):
      eyes = np.hypot(other[2] - other[0], other[3] - other[1])
      away = [
        np.hypot(one[i] - other[i], one[i + 1] - other[i + 1])
        for i in range(0, 10, 2)
      ]
      expected.append(np.mean(away) / eyes)
    np.testing.assert_allclose(
      losses.interocular_error(found, true), expected, rtol=1e-5
    )

  @parameterized.parameters(0.5, 3.0)
  def test_knows_no_unit(self, scale):
    rng = np.random.default_rng(1)
    found, true = rng.normal(size=(2, 7, 10)).astype(np.float32)
    np.testing.assert_allclose(
      losses.interocular_error(scale * found + 1, scale * true + 1),
      losses.interocular_error(found, true),
      rtol=1e-4,
    )


class ClassificationTest(absltest.TestCase):
  def test_metrics_by_hand(self):
    """Each row has another best class; the second one's is not its own."""
    logits = jnp.log(
      jnp.array([[0.2, 0.7, 0.1], [0.2, 0.1, 0.7], [0.7, 0.2, 0.1]])
    )
    found = tasks.CLASSIFICATION.metrics(logits, jnp.array([1, 0, 0]), {})
    np.testing.assert_array_equal(found['error'], [False, True, False])
    np.testing.assert_allclose(
      found['cross_entropy'], -np.log([0.7, 0.2, 0.7]), rtol=1e-6
    )

  def test_inner_loss_is_a_sum(self):
    """F-L4: over rows and classes, for either variant."""
    logits = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
    target = jnp.array([[1.0, 0.0], [0.25, 0.75]])
    for variant in ('v1', 'v2'):
      np.testing.assert_allclose(
        tasks.CLASSIFICATION.inner(logits, target, variant), 0.5, rtol=1e-6
      )


class RegressionTest(parameterized.TestCase):
  def labels(self):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(50, P)) * 7 + 30).astype(np.float32)

  def test_standardized(self):
    task, labels = tasks.REGRESSION, self.labels()
    labels[:, 3] = 5.0
    fitted = task.fit(labels[:20])
    encoded = task.encode(fitted, labels)
    self.assertEqual(encoded.dtype, np.float32)
    np.testing.assert_allclose(encoded[:20].mean(0), np.zeros(P), atol=1e-5)
    np.testing.assert_allclose(
      encoded[:20].std(0, ddof=1), [1, 1, 1, 0], atol=1e-5
    )
    self.assertGreater(np.abs(encoded[20:].mean(0)).max(), 0.01)

  def test_deviation_by_hand(self):
    """Of 1, 3 and 8, over N - 1: sqrt((9 + 1 + 16) / 2)."""
    column = np.array([[1.0], [3.0], [8.0]], np.float32)
    fitted = tasks.REGRESSION.fit(column)
    np.testing.assert_allclose(fitted['target_mean'], [4.0])
    np.testing.assert_allclose(fitted['target_std'], [13**0.5], rtol=1e-6)

  def test_a_small_deviation_is_one(self):
    """Of 0 and 1: sqrt(1 / 2); only a constant one is not scaled."""
    fitted = tasks.REGRESSION.fit(np.array([[0.0], [1.0]], np.float32))
    np.testing.assert_allclose(fitted['target_std'], [0.5**0.5], rtol=1e-6)

  def test_sums_are_of_float64(self):
    """2^24 + 1 is no float32: the mean of 2^24, 1 and 1 would lose both."""
    fitted = tasks.REGRESSION.fit(np.array([[2.0**24], [1], [1]], np.float32))
    np.testing.assert_array_equal(fitted['target_mean'], [5592406.0])

  def test_one_row_is_not_scaled(self):
    fitted = tasks.REGRESSION.fit(np.array([[3.0, -5.0]], np.float32))
    np.testing.assert_array_equal(fitted['target_mean'], [3.0, -5.0])
    np.testing.assert_array_equal(fitted['target_std'], [1.0, 1.0])

  def test_errors_are_in_pixels(self):
    """An error of 9 % of the distance of the eyes is none, one of 11 % is."""
    task, labels = tasks.REGRESSION, self.labels()[:2]
    fitted = task.fit(self.labels())
    eyes = np.hypot(*(labels[:, 2:] - labels[:, :2]).T)
    off = np.zeros_like(labels)
    off[:, 0::2] = (np.array([0.09, 0.11]) * eyes)[:, None]  # both points
    found = task.metrics(
      jnp.asarray(task.encode(fitted, labels + off)), labels, fitted
    )
    np.testing.assert_allclose(found['error'], [0.09, 0.11], rtol=1e-4)
    np.testing.assert_array_equal(found['failure'], [False, True])

  def test_a_tenth_of_the_distance_is_no_failure(self):
    """Both points 1 off where the eyes are 10 apart."""
    labels = jnp.array([[0.0, 0.0, 10.0, 0.0]])
    fitted = {'target_mean': jnp.zeros(4), 'target_std': jnp.ones(4)}
    off = jnp.array([[0.0, 1.0, 0.0, 1.0]])
    found = tasks.REGRESSION.metrics(labels + off, labels, fitted)
    np.testing.assert_array_equal(found['error'], np.float32([0.1]))
    np.testing.assert_array_equal(found['failure'], [False])

  @parameterized.parameters(('v1', (0.3**2 + 0.1**2) / 2), ('v2', None))
  def test_inner_loss(self, variant, expected):
    """Means, not sums; in V2 after a tanh (F-L4, F-L11)."""
    outputs, target_probs = jnp.array([[0.5, 1.0]]), jnp.array([[0.2, 1.1]])
    if expected is None:
      expected = np.mean((np.tanh([0.5, 1.0]) - np.tanh([0.2, 1.1])) ** 2)
    inner = tasks.REGRESSION.inner
    np.testing.assert_allclose(
      inner(outputs, target_probs, variant), expected, rtol=1e-5
    )
    twice = lambda x: jnp.tile(x, (2, 1))
    np.testing.assert_allclose(
      inner(twice(outputs), twice(target_probs), variant), expected, rtol=1e-5
    )

  def test_disagreement_holds_the_target_constant(self):
    """(0.5^2 + 1^2) / 2, and its gradient in the outputs alone."""
    outputs, target = jnp.array([[0.5, 3.0]]), jnp.array([[0.0, 2.0]])
    loss = lambda *args: tasks.REGRESSION.disagreement(*args).sum()
    value, grads = jax.value_and_grad(loss, (0, 1))(outputs, target)
    np.testing.assert_allclose(value, 0.625)
    np.testing.assert_allclose(grads[0], [[0.5, 1.0]])
    np.testing.assert_array_equal(grads[1], 0.0)


class MovingTest(parameterized.TestCase):
  def test_tells_how_far(self):
    """The same view as without telling, moved by what is told."""
    images = make_batch(40).x
    for seed in range(3):
      view, move = augment.build_moving('translate:2')(
        images, jax.random.key(seed)
      )
      plain = augment.build('translate:2')(images, jax.random.key(seed))
      np.testing.assert_array_equal(view, plain)
      for one, image, told in zip(np.asarray(view), np.asarray(images), move):
        self.assertEqual(how_far(one, image), [tuple(told.tolist())])
    self.assertEqual({-2, -1, 0, 1, 2}, set(np.asarray(move).ravel().tolist()))

  def test_other_steps(self):
    images, key = make_batch(4).x, jax.random.key
    steps = 'translate:1,noise:0.1,translate:2'
    view, move = augment.build_moving(steps)(images, key(0))
    np.testing.assert_array_equal(view, augment.build(steps)(images, key(0)))
    self.assertEqual(move.shape, (4, 2))
    view, move = augment.build_moving('')(images, key(0))
    np.testing.assert_array_equal(view, images)
    np.testing.assert_array_equal(move, np.zeros((4, 2)))

  @parameterized.parameters('flip', 'translate_x:2')
  def test_points_do_not_follow(self, step):
    with self.assertRaisesRegex(errors.UserError, f'do not follow {step}'):
      augment.build_moving(f'translate:1,{step}')

  def test_labels_move_by_pixels(self):
    labels = jnp.zeros((2, P))
    move = jnp.array([[4.0, -2.0], [0.0, 1.0]])
    scale = jnp.array([1.0, 2.0, 4.0, 8.0])
    np.testing.assert_allclose(
      tasks.shift_labels(labels, move, scale),
      [[4, -1, 1, -0.25], [0, 0.5, 0, 0.125]],
    )
    np.testing.assert_array_equal(
      tasks.shift_labels(labels, None, scale), labels
    )
    np.testing.assert_array_equal(
      tasks.shift_labels(labels, move, None), labels
    )

  @parameterized.product(moving=(False, True), scaled=(False, True))
  def test_views_of_a_step(self, moving, scaled):
    """Each view has its own key; only points that move have a change."""
    drawn = []

    def view(images, key):
      drawn.append(jax.random.key_data(key).tolist())
      return images + len(drawn)

    def move(images, key):
      moved = view(images, key)
      return moved, jnp.full((len(images), 2), 2.0 ** len(drawn))

    components = tools_of(Toy())._replace(
      augment=view, moving=move if moving else None
    )
    batch = make_batch(3, 2)
    if not scaled:
      batch = batch._replace(scale=None)
    keys = list(jax.random.split(jax.random.key(0), 3))
    views = tasks.draw_views(components, batch, keys)
    self.assertEqual(drawn, [jax.random.key_data(key).tolist() for key in keys])
    np.testing.assert_array_equal(views.x, batch.x + 1)
    np.testing.assert_array_equal(views.student_view, batch.u + 2)
    np.testing.assert_array_equal(views.teacher_view, batch.u + 3)
    target = jnp.ones((2, P))
    imputed = tasks.imputed(components, target, views)
    if moving and scaled:
      np.testing.assert_allclose(views.y - batch.y, 2 / SCALE[:3], atol=1e-6)
      np.testing.assert_allclose(views.change, -4 / SCALE[:2])
      np.testing.assert_allclose(imputed, 1 - 4 / SCALE[:2])
    else:
      self.assertIsNone(views.change)
      np.testing.assert_array_equal(views.y, batch.y)
      np.testing.assert_array_equal(imputed, target)


class SupervisedTest(parameterized.TestCase):
  @parameterized.parameters((True, 0), (False, 3), (True, 3))
  def test_loss_by_hand(self, joint, unlabeled):
    """The points move as their images, by pixels over the scale."""
    toy = Toy()
    method = methods.build(
      {'name': 'supervised', 'terms': {}, 'shared_batch_norm': joint},
      tools_of(toy),
    )
    state, batch = method.init(jax.random.key(0)), make_batch(5, unlabeled)
    toy.views.clear()
    _, metrics = method.update(state, batch, jax.random.key(1))
    view = np.asarray(toy.views[0 if joint else -1])[:5]
    w = np.asarray(state.params['w'], np.float64)
    squares, moves = [], set()
    for one, image, y in zip(view, np.asarray(batch.x), np.asarray(batch.y)):
      ((right, down),) = how_far(one, image)
      moves |= {(right, down)}
      target = y + np.array([right, down / 2, right / 4, down / 8])
      squares.append(np.mean((one.ravel() @ w - target) ** 2))
    self.assertGreater(len(moves), 2)
    total = 5 + unlabeled * joint
    np.testing.assert_allclose(metrics['loss'], sum(squares) / total, rtol=1e-4)
    self.assertIn('squared_error', metrics)
    self.assertNotIn('cross_entropy', metrics)

  @parameterized.parameters(
    (
      dict(
        name='vat',
        terms={},
        weight=1.0,
        ramp='none',
        ramp_steps=0,
        eps=1.0,
        mode='exact',
      ),
      "'vat' is not for config.task=regression",
    ),
    (dict(name='supervised', terms={'entropy': {}}), 'entropy is about'),
  )
  def test_not_for_points(self, config, message):
    with self.assertRaisesRegex(errors.UserError, message):
      methods.build(config, tools_of(Toy()))

  def test_unknown_task(self):
    with self.assertRaisesRegex(errors.UserError, "mean 'regression'"):
      tasks.find('regresion')


if __name__ == '__main__':
  absltest.main()
