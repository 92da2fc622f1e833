"""Learning to impute: what a step does, against the same in plain numpy."""

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import optax
from absl.testing import absltest, parameterized
from l2i_toy import (
  LR,
  RAMP,
  STUDENT,
  TEACHER,
  Brighter,
  K,
  Toy,
  batch_of,
  flat,
  slope_of_classes,
  slope_of_squares,
  softmax,
  tools_of,
)
from model_helpers import quick_jit

from nsl_jax import errors, methods, optimizers
from nsl_jax.compose import combinators
from nsl_jax.methods import mixmatch, pseudo_label_l2i
from nsl_jax.types import Model, Outputs

MIXMATCH = dict(
  name='mixmatch',
  weight=2.0,
  alpha=0.75,
  temperature=0.5,
  views=2,
  terms={},
  **RAMP,
)


def build(host, components=None, **fields):
  fields = {'variant': 'v2', 'inner_rate': 0.1, **fields}
  return methods.build(
    {'name': 'l2i', 'host': host, **fields}, components or tools_of()
  )


def host_by_hand(w, y, x, student_view, teacher_view, lr=LR):
  """w after the step of Pseudo-Label."""
  z = softmax(teacher_view @ w)
  return w - lr * (
    slope_of_classes(w, x, y)
    + 2.0 * slope_of_squares(w, student_view, z, 1 / z.size)
  )


def v2_slope(teacher_view, z, slope):
  """A gradient in z = softmax(teacher @ w) as one in w."""
  return teacher_view.T @ (z * (slope - (slope * z).sum(-1, keepdims=True)))


def label_slope(w, u, h, y, rate, z):
  """The held-out loss after the inner step and its d/dz, by differences."""

  def held_loss(z):
    moved = w - rate * slope_of_squares(w, u, z, 1.0)
    return -np.log(softmax(h @ moved)[np.arange(len(y)), y]).mean()

  return held_loss(z), numeric.slope(held_loss, z)


class StepTest(parameterized.TestCase):
  def start(self, **fields):
    """w after the host's step by hand, u, h, held-out classes, and what the
    method gives, with all views of an image the same."""
    method = build(STUDENT, **fields)
    state = method.init(jax.random.key(0))
    batch = batch_of()
    after, metrics = quick_jit(method.update)(state, batch, jax.random.key(1))
    x, u, h = flat(batch.x), flat(batch.u), flat(batch.meta_x)
    w = np.asarray(state.params['w'], np.float64)
    w = host_by_hand(w, np.asarray(batch.y), x, u, u)
    meta_y = np.asarray(batch.meta_y)
    return w, u, h, meta_y, np.asarray(after.params['w']), metrics

  def test_v2_by_hand(self):
    w, u, h, y, found, metrics = self.start(variant='v2')
    z = softmax(u @ w)
    value, slope = label_slope(w, u, h, y, 0.1, z)
    grad = v2_slope(u, z, slope)
    self.assertGreater(np.abs(grad).max(), 0.01)
    np.testing.assert_allclose(found, w - LR * grad, atol=2e-6)
    np.testing.assert_allclose(metrics['held'], value, rtol=1e-5)

  @parameterized.parameters('logits', 'labels')
  def test_v1_by_hand(self, space):
    w, u, h, y, found, _ = self.start(
      variant='v1', label_rate=3.0, label_space=space
    )
    z = softmax(u @ w)
    _, slope = label_slope(w, u, h, y, 0.1, z)
    if space == 'logits':
      moved = softmax(
        u @ w - 3.0 * z * (slope - (slope * z).sum(-1, keepdims=True))
      )
    else:
      moved = np.maximum(z - 3.0 * slope, 0)
      moved /= moved.sum(-1, keepdims=True)
    self.assertGreater(np.abs(moved - z).max(), 0.02)
    grad = slope_of_squares(w, u, moved, 1 / z.size)
    np.testing.assert_allclose(found, w - LR * grad, atol=2e-6)

  def test_labels_that_stay_are_trained_on(self):
    w, u, _, _, found, _ = self.start(variant='v1', label_rate=0.0)
    np.testing.assert_allclose(found, w, atol=2e-6)  # all views are the same
    view = Brighter()
    method = build(
      STUDENT, tools_of(augment=view), variant='v1', label_rate=0.0
    )
    state, batch = method.init(jax.random.key(0)), batch_of()
    after, _ = method.update(state, batch, jax.random.key(1))
    _, x, student_view, teacher_view = (flat(images) for images in view.views)
    w = host_by_hand(
      np.asarray(state.params['w'], np.float64),
      np.asarray(batch.y),
      x,
      student_view,
      teacher_view,
    )
    grad = slope_of_squares(
      w, student_view, softmax(teacher_view @ w), 1 / len(u) / K
    )
    self.assertGreater(LR * np.abs(grad).max(), 2e-5)
    np.testing.assert_allclose(after.params['w'], w - LR * grad, atol=2e-6)

  def test_the_last_layer_alone(self):
    """Of softmax regression: eta (F_U F_H^T) (P_H - Y_H), without a step."""
    w, u, h, y, found, metrics = self.start(
      variant='v2', gradient='last_layer', inner_rate=0.3
    )
    slope = 0.3 * (u @ h.T) @ (softmax(h @ w) - np.eye(K)[y]) / len(h)
    grad = v2_slope(u, softmax(u @ w), slope)
    np.testing.assert_allclose(found, w - LR * grad, atol=2e-6)
    np.testing.assert_allclose(
      metrics['held'],
      -np.log(softmax(h @ w)[np.arange(5), y]).mean(),
      rtol=1e-5,
    )

  def test_the_last_layer_of_a_network_without_features(self):
    model = tools_of().model

    def logits_only(*args, **options):
      outputs, stats = model.apply(*args, **options)
      return Outputs(*[outputs.logits] * 3), stats

    tools = tools_of()._replace(model=Model(model.init, logits_only))
    method = build(STUDENT, tools, gradient='last_layer')
    state = method.init(jax.random.key(0))
    with self.assertRaisesRegex(errors.UserError, 'returns logits only'):
      method.update(state, batch_of(), jax.random.key(1))

  def test_who_sees_which_view(self):
    """The inner step has the view that the host learns the unlabeled images
    on, and no labeled image; its pass moves the statistics last."""
    view = Brighter()
    method = build(STUDENT, tools_of(augment=view))
    state, batch = method.init(jax.random.key(0)), batch_of()
    after, metrics = method.update(state, batch, jax.random.key(1))
    h, x, student_view, teacher_view = (flat(images) for images in view.views)
    y, meta_y = np.asarray(batch.y), np.asarray(batch.meta_y)
    w = np.asarray(state.params['w'], np.float64)
    w = host_by_hand(w, y, x, student_view, teacher_view)
    z = softmax(teacher_view @ w)
    value, slope = label_slope(w, student_view, h, meta_y, 0.1, z)
    np.testing.assert_allclose(metrics['held'], value, rtol=1e-5)
    np.testing.assert_allclose(
      after.params['w'], w - LR * v2_slope(teacher_view, z, slope), atol=2e-6
    )
    np.testing.assert_allclose(
      after.stats['mean'], student_view.mean(), rtol=1e-5
    )

  @parameterized.product(
    variant=('v1', 'v2'), gradient=('nested', 'last_layer')
  )
  def test_statistics_of_the_student_view(self, variant, gradient):
    view = Brighter()
    method = build(
      STUDENT, tools_of(augment=view), variant=variant, gradient=gradient
    )
    state = method.init(jax.random.key(0))
    after, _ = method.update(state, batch_of(), jax.random.key(1))
    np.testing.assert_allclose(
      after.stats['mean'], view.views[2].mean(), rtol=1e-5
    )
    self.assertEqual(float(after.stats['passes']), 3)

  def test_watching_changes_nothing(self):
    base, probe_images = self.start(), self.start(log_test_loss=True)
    np.testing.assert_array_equal(base[4], probe_images[4])
    w, _, h, y, found, metrics = probe_images
    for name, at in (('held_before', w), ('held_after', found)):
      np.testing.assert_allclose(
        metrics[name],
        -np.log(softmax(h @ at)[np.arange(5), y]).mean(),
        rtol=1e-5,
      )

  @parameterized.parameters('v1', 'v2')
  def test_what_the_step_is_made_to_lower(self, variant):
    """F-L24: the held-out loss after the virtual step, of the labels before
    and after; V2's are what the changed weights impute."""
    w, u, h, y, found, metrics = self.start(
      variant=variant, log_test_loss=True, label_rate=3.0
    )
    z = softmax(u @ w)
    before, slope = label_slope(w, u, h, y, 0.1, z)
    if variant == 'v1':
      changed = softmax(
        u @ w - 3.0 * z * (slope - (slope * z).sum(-1, keepdims=True))
      )
    else:
      changed = softmax(u @ found)
    after, _ = label_slope(w, u, h, y, 0.1, changed)
    np.testing.assert_allclose(metrics['virtual_before'], before, rtol=1e-5)
    np.testing.assert_allclose(
      metrics['virtual_after'] - metrics['virtual_before'],
      after - before,
      atol=2e-6,
    )
    self.assertLess(after, before - 5e-5)  # to first order it must

  @parameterized.parameters('v1', 'v2')
  def test_the_same_optimizer_takes_both_steps(self, variant):
    method = build(
      STUDENT, tools_of()._replace(tx=optax.adam(1e-2)), variant=variant
    )
    state, _ = method.update(
      method.init(jax.random.key(0)), batch_of(), jax.random.key(1)
    )
    counts = [leaf for leaf in jax.tree.leaves(state.opt) if leaf.ndim == 0]
    self.assertEqual([int(c) for c in counts], [2])

  @parameterized.parameters(('v1', 'adam'), ('v2', 'sgd'))
  def test_the_rate_is_that_of_the_step(self, variant, name):
    """Two updates a step, and yet a drop at step 2 comes at step 2."""
    momentum = dict(momentum=0.5, nesterov=True, weight_decay=0.01)

    def at(lr, drop_steps):
      config = dict(name=name, lr=lr, drop_steps=drop_steps, drop_factor=0.1)
      tx = optimizers.build(config | (momentum if name == 'sgd' else {}))
      method = build(STUDENT, tools_of()._replace(tx=tx), variant=variant)
      return method.init, quick_jit(method.update)

    dropping, high, low = at(LR, 2), at(LR, 0), at(0.1 * LR, 0)
    state = high[0](jax.random.key(0))
    for step, (_, constant) in enumerate((high, high, low, low)):
      state = state.replace(step=jnp.array(step, jnp.int32))
      expected, _ = constant(state, batch_of(), jax.random.key(1))
      found, _ = dropping[1](state, batch_of(), jax.random.key(1))
      np.testing.assert_allclose(
        found.params['w'], expected.params['w'], rtol=1e-6
      )
      self.assertGreater(
        np.abs(found.params['w'] - state.params['w']).max(), 1e-4
      )
      state = found

  def test_passes_and_statistics(self):
    """Dropout is off on held-out images; both of the host's chunks and one pass
    over the first view move the statistics (F-L23)."""
    network = Toy()
    method = build(STUDENT, tools_of(network), variant='v2')
    state = method.init(jax.random.key(0))
    network.seen.clear()
    after, _ = quick_jit(method.update)(state, batch_of(), jax.random.key(1))
    self.assertEqual(float(after.stats['passes']), 3)
    self.assertSetEqual({n for n, noise in network.seen if not noise}, {5})
    self.assertNotIn((5, True), network.seen)


class HostTest(parameterized.TestCase):
  @parameterized.product(
    host=('student', 'teacher', 'mixmatch'), variant=('v1', 'v2')
  )
  def test_what_follows_the_step_of_every_host(self, host, variant):
    """The host's own step, at the same key, then the other one by hand; the
    student's softmax imputes for it, whatever the host imputes by (F-L8)."""
    options = {'student': STUDENT, 'teacher': TEACHER, 'mixmatch': MIXMATCH}
    components, batch = tools_of(), batch_of()
    method = build(options[host], components, variant=variant, label_rate=3.0)
    state = method.init(jax.random.key(0)).replace(step=jnp.array(5, jnp.int32))
    if host == 'teacher':
      state = state.replace(slots={'teacher': {'w': -state.params['w']}})
    after, metrics = method.update(state, batch, jax.random.key(1))

    fields = {k: v for k, v in options[host].items() if k != 'name'}
    build_recipe = (mixmatch if host == 'mixmatch' else pseudo_label_l2i).build
    key = jax.random.split(jax.random.split(jax.random.key(1), 2)[0], 5)[0]
    if host != 'teacher':  # nothing follows the step, so its key is not split
      key = jax.random.split(jax.random.key(1), 5)[0]
    hosted, first, views = combinators.loss_step(
      build_recipe(components, **fields).loss, components.tx, state, batch, key
    )
    np.testing.assert_allclose(metrics['loss'], first['loss'], rtol=1e-6)
    w, old = (np.asarray(s.params['w'], np.float64) for s in (hosted, state))
    self.assertGreater(np.abs(w - old).max(), 1e-3)
    student_view, teacher_view = (
      flat(views.student_view),
      flat(views.teacher_view),
    )
    z = softmax(teacher_view @ w)
    value, slope = label_slope(
      w, student_view, flat(batch.meta_x), np.asarray(batch.meta_y), 0.1, z
    )
    np.testing.assert_allclose(metrics['held'], value, rtol=1e-5)
    if variant == 'v2':
      grad = v2_slope(teacher_view, z, slope)
    else:
      inward = slope - (slope * z).sum(-1, keepdims=True)
      moved = softmax(np.log(z) - 3.0 * z * inward)
      grad = slope_of_squares(w, student_view, moved, 1 / z.size)
    self.assertGreater(LR * np.abs(grad).max(), 2e-5)
    np.testing.assert_allclose(after.params['w'], w - LR * grad, atol=2e-6)

  def test_the_average_moves_after_both_steps(self):
    method = build(STUDENT, tools_of(ema_decay=0.9))
    state = method.init(jax.random.key(0))
    after, _ = method.update(state, batch_of(), jax.random.key(1))
    expected = 0.9 * state.params['w'] + 0.1 * after.params['w']
    np.testing.assert_allclose(
      after.slots[combinators.EMA]['w'], expected, rtol=1e-5
    )


class ErrorTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(variant='v3'), "variant='v3'"),
    (dict(gradient='nestd'), "did you mean 'nested'"),
    (dict(label_space='logit'), "did you mean 'logits'"),
    (dict(gradient='tangent'), "gradient='tangent'"),
    (dict(imputer='host'), "unexpected keyword argument 'imputer'"),
    (dict(inner_rate=0.0), 'inner_rate=0.0: must be > 0'),
    (dict(label_rate=-1.0), 'label_rate=-1.0: must be >= 0'),
    (
      dict(host=dict(STUDENT, name='pseudolabel_l2i')),
      "mean 'pseudo_label_l2i'",
    ),
    (dict(host=dict(STUDENT, wieght=1)), "'wieght'"),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      build(**{'host': STUDENT, **fields})

  def test_needs_held_out_images(self):
    method = build(STUDENT)
    state = method.init(jax.random.key(0))
    batch = batch_of()._replace(meta_x=None, meta_y=None)
    with self.assertRaisesRegex(errors.UserError, 'config.batch.holdout'):
      method.update(state, batch, jax.random.key(1))

  def test_needs_two_views(self):
    method = build(dict(MIXMATCH, views=1))
    state = method.init(jax.random.key(0))
    with self.assertRaisesRegex(errors.UserError, 'two views'):
      method.update(state, batch_of(), jax.random.key(1))


if __name__ == '__main__':
  absltest.main()
