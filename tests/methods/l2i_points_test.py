"""Learning to impute points: shifted targets, both steps, in plain numpy."""

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import optax
from absl.testing import absltest, parameterized
from points_toy import LR, SCALE, SHAPE, WEIGHT, Moving, P, batch_of, tools_of

from nsl_jax import errors, methods
from nsl_jax.compose import tasks
from nsl_jax.data import augment
from nsl_jax.types import Components, Model, Outputs

STUDENT = dict(
  name='pseudo_label_l2i',
  weight=WEIGHT,
  teacher=False,
  interleave=False,
  ramp='none',
  ramp_steps=0,
  terms={},
)
TEACHER = dict(STUDENT, teacher=True, decay=0.9)


def build(host, components, **fields):
  fields = {'variant': 'v2', 'inner_rate': 0.3, **fields}
  return methods.build({'name': 'l2i', 'host': host, **fields}, components)


def rows(images):
  return np.asarray(images, np.float64).reshape(len(images), -1)


def shift(move):
  """Pixels to the right and down, of two points, in units of their scales."""
  right, down = np.asarray(move, np.float64).T
  return np.stack([right, down, right, down], axis=1) / SCALE


class Seen:
  """What a step showed, as matrices: images, and labels moved with them."""

  def __init__(self, moving, batch, order):
    shown = dict(zip(order, moving.shown))
    at = lambda name: (rows(shown[name][0]), shift(shown[name][1]))
    self.x, move = at('x')
    self.y = np.asarray(batch.y) + move
    self.student_view, one = at('student')
    self.teacher_view, other = at('teacher')
    self.change = one - other
    if 'held' in order:
      self.held, move = at('held')
      self.meta_y = np.asarray(batch.meta_y) + move


def slope(matrix, w, target):
  """d/dw of mean((matrix w - target)^2)."""
  return 2 * matrix.T @ (matrix @ w - target) / target.size


def host_by_hand(w, seen, imputer=None):
  z = seen.teacher_view @ (w if imputer is None else imputer) + seen.change
  return w - LR * (
    slope(seen.x, w, seen.y) + WEIGHT * slope(seen.student_view, w, z)
  )


def label_slope(w, seen, rate, z, squash):
  """The held-out loss after the inner step and its d/dz, by differences."""

  def held_loss(z):
    out = seen.student_view @ w
    gap = out - z
    if squash:
      gap = (np.tanh(out) - np.tanh(z)) * (1 - np.tanh(out) ** 2)
    moved = w - rate * 2 * seen.student_view.T @ gap / z.size
    return np.mean((seen.held @ moved - seen.meta_y) ** 2)

  return held_loss(z), numeric.slope(held_loss, z)


class HostTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_targets_shift_with_the_crop(self, teacher):
    moving = Moving()
    components = tools_of(moving)
    method = methods.build(TEACHER if teacher else STUDENT, components)
    state, batch = method.init(jax.random.key(0)), batch_of()
    w = np.asarray(state.params['w'], np.float64)
    if teacher:
      state = state.replace(slots={'teacher': {'w': -state.params['w']}})
    after, metrics = method.update(state, batch, jax.random.key(1))
    seen = Seen(moving, batch, ('x', 'student', 'teacher'))
    self.assertGreater(np.abs(seen.change).max(), 2.0)
    imputer = -w if teacher else w
    gap = seen.student_view @ w - (seen.teacher_view @ imputer + seen.change)
    known = np.mean((seen.x @ w - seen.y) ** 2)
    np.testing.assert_allclose(metrics['squared_error'], known, rtol=1e-4)
    np.testing.assert_allclose(
      metrics['soft_label'], np.mean(gap**2), rtol=1e-4
    )
    np.testing.assert_allclose(
      metrics['loss'], known + WEIGHT * np.mean(gap**2), rtol=1e-4
    )
    np.testing.assert_allclose(
      after.params['w'], host_by_hand(w, seen, imputer), atol=1e-4
    )


class StepTest(parameterized.TestCase):
  @parameterized.product(host=(STUDENT, TEACHER), variant=('v1', 'v2'))
  def test_by_hand(self, host, variant):
    """The student imputes whatever the host; V1's labels move by 3 times their
    gradient, V2 has its tanh, and the images in the pair keep their shift."""
    moving = Moving()
    method = build(host, tools_of(moving), variant=variant, label_rate=3.0)
    state, batch = method.init(jax.random.key(0)), batch_of()
    after, metrics = method.update(state, batch, jax.random.key(1))
    seen = Seen(moving, batch, ('held', 'x', 'student', 'teacher'))
    w = host_by_hand(np.asarray(state.params['w'], np.float64), seen)
    z = seen.teacher_view @ w + seen.change
    value, change = label_slope(w, seen, 0.3, z, variant == 'v2')
    if variant == 'v1':
      grad = slope(seen.student_view, w, z - 3.0 * change)
    else:
      grad = seen.teacher_view.T @ change
    self.assertGreater(np.abs(grad).max(), 0.01)
    np.testing.assert_allclose(after.params['w'], w - LR * grad, atol=2e-4)
    np.testing.assert_allclose(metrics['held'], value, rtol=1e-3)

  def test_the_inner_rate_may_follow_the_optimizer(self):
    """10 times a rate that is .03 first, and .003 after its drop."""

    def moved(step, **fields):
      components = tools_of(
        Moving(),
        learning_rate=optax.piecewise_constant_schedule(0.03, {100: 0.1}),
      )
      method = build(STUDENT, components, **fields)
      state = method.init(jax.random.key(0)).replace(
        step=jnp.array(step, jnp.int32)
      )
      return jax.jit(method.update)(state, batch_of(), jax.random.key(1))[
        0
      ].params['w']

    for step, rate in (50, 0.3), (150, 0.03):
      followed = moved(step, inner_rate=10.0, follow_rate=True)
      np.testing.assert_allclose(
        followed, moved(step, inner_rate=rate), atol=1e-6
      )
    self.assertGreater(
      np.abs(moved(50, inner_rate=0.3) - moved(50, inner_rate=0.03)).max(), 1e-4
    )

  def test_watching_test_images_changes_nothing(self):
    moving, ends = Moving(), []
    batch = batch_of()
    rng = np.random.default_rng(7)
    images = rng.normal(size=(4, *SHAPE)).astype(np.float32)
    labels = rng.normal(size=(4, P)).astype(np.float32)
    for probe_images in (None, (jnp.asarray(images), jnp.asarray(labels))):
      method = build(
        STUDENT, tools_of(moving), variant='v1', log_test_loss=True
      )
      self.assertGreater(method.num_probe_images, 0)
      state = method.init(jax.random.key(0))
      moving.shown.clear()
      after, metrics = method.update(
        state, batch._replace(probe_images=probe_images), jax.random.key(1)
      )
      ends.append(np.asarray(after.params['w']))
    np.testing.assert_array_equal(*ends)
    seen = Seen(moving, batch, ('held', 'x', 'student', 'teacher'))
    middle = host_by_hand(np.asarray(state.params['w'], np.float64), seen)
    loss = lambda w: np.mean((rows(images) @ w - labels) ** 2)
    np.testing.assert_allclose(metrics['test_before'], loss(middle), rtol=1e-3)
    np.testing.assert_allclose(metrics['test_after'], loss(ends[1]), rtol=1e-3)

  @parameterized.parameters('v1', 'v2')
  def test_the_average_moves_after_either_step(self, variant):
    """F-L11: twice in an iteration, of points."""
    moving = Moving()
    method = build(STUDENT, tools_of(moving, ema_decay=0.8), variant=variant)
    state, batch = method.init(jax.random.key(0)), batch_of()
    after, _ = method.update(state, batch, jax.random.key(1))
    seen = Seen(moving, batch, ('held', 'x', 'student', 'teacher'))
    w = np.asarray(state.params['w'], np.float64)
    middle, end = host_by_hand(w, seen), np.asarray(after.params['w'])
    expected = 0.8 * (0.8 * w + 0.2 * middle) + 0.2 * end
    self.assertGreater(np.abs(expected - 0.8 * w - 0.2 * end).max(), 0.01)
    np.testing.assert_allclose(after.slots['ema']['w'], expected, atol=1e-4)


class EquivariantTest(absltest.TestCase):
  def test_a_network_that_follows_loses_nothing(self):
    """Invariant 30, with real crops: the center of light moves as the image
    does, so that shifted targets are what the network says anyhow."""
    side, pixels = 16, 4

    def center(params, stats, images, *, train, key=None):
      light = images[..., 0]
      along = jnp.arange(side, dtype=jnp.float32)
      across = (light.sum(1) * along[None]).sum(1) / light.sum((1, 2))
      down = (light.sum(2) * along[None]).sum(1) / light.sum((1, 2))
      two = jnp.stack([across, down, across, down], axis=1)
      outputs = two / jnp.asarray(SCALE, jnp.float32)[None] + params['w'][None]
      return Outputs(outputs, outputs, outputs), stats

    rng = np.random.default_rng(0)
    images = np.zeros((8, side, side, 1), np.float32)
    images[:, 6:10, 6:10] = rng.random((8, 4, 4, 1))  # no border reflects it
    components = Components(
      model=Model(lambda key, shape: ({'w': jnp.ones(P)}, {}), center),
      tx=optax.sgd(LR),
      augment=augment.build(f'translate:{pixels}'),
      moving=augment.build_moving(f'translate:{pixels}'),
      image_shape=(side, side, 1),
      task=tasks.REGRESSION,
    )
    method = methods.build(STUDENT, components)
    state = method.init(jax.random.key(0))
    batch = batch_of(8)._replace(x=jnp.asarray(images), u=jnp.asarray(images))
    step = jax.jit(method.update)
    _, metrics = step(state, batch, jax.random.key(1))
    self.assertLess(float(metrics['soft_label']), 1e-10)
    still = methods.build(STUDENT, components._replace(moving=None))
    _, metrics = jax.jit(still.update)(state, batch, jax.random.key(1))
    self.assertGreater(float(metrics['soft_label']), 0.1)


class ErrorTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(gradient='last_layer'), 'last_layer is for classes'),
    (dict(host=dict(STUDENT, hard=True)), 'hard=true is for classes'),
    (dict(host=dict(STUDENT, terms={'vat': {}})), 'vat is about classes'),
    (dict(follow_rate=True), 'the optimizer has no rate'),
    (
      dict(
        host=dict(
          name='mixmatch',
          weight=1.0,
          ramp='none',
          ramp_steps=0,
          alpha=0.75,
          temperature=0.5,
          views=2,
          terms={},
        )
      ),
      "'mixmatch' is not for config",
    ),
  )
  def test_not_for_points(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      build(**{'host': STUDENT, 'components': tools_of(Moving()), **fields})


if __name__ == '__main__':
  absltest.main()
