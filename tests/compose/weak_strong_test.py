"""The loss of FixMatch's structure against loops in NumPy."""

import compiled
import jax
import jax.numpy as jnp
import numeric
import numpy as np
import optax
from absl.testing import absltest, parameterized
from scipy import special

from nsl_jax import errors
from nsl_jax.compose import weak_strong
from nsl_jax.methods import fixmatch
from nsl_jax.types import Batch, Components, Model, Outputs

K, IMAGES, UNLABELED = 4, 20, 15
SHARES = np.array([0.5, 0.3, 0.15, 0.05], np.float32)  # not those of a batch
SHAPE = (3, 3, 1)


class Linear:
  """Logits are flattened images times a matrix; `centered` subtracts the mean
  of the batch, as batch normalization does.
  """

  def __init__(self, centered=False):
    self.centered, self.calls = centered, []

  def init(self, key, image_shape):
    stats = {'mean': jnp.zeros(K)} if self.centered else {}
    return {'w': jax.random.normal(key, (9, K))}, stats

  def apply(self, params, stats, images, *, train, key=None):
    self.calls.append(images)
    logits = images.reshape(images.shape[0], -1) @ params['w']
    if self.centered:
      logits = logits - logits.mean(0, keepdims=True)
      stats = {'mean': logits.mean(0)}
    return Outputs(logits, logits, logits), stats

  def components(self):
    return Components(
      model=Model(self.init, self.apply),
      tx=optax.sgd(0.1),
      augment=lambda images, key: 1.5 * images,
      strong=lambda images, key: jnp.flip(images, 1) - 0.1,
      image_shape=SHAPE,
      num_images=IMAGES,
    )


def make_batch(labeled=5, unlabeled=8):
  rng = np.random.default_rng(0)
  draw = lambda n: jnp.asarray(rng.normal(size=(n, *SHAPE)), jnp.float32)
  return Batch(
    x=draw(labeled),
    y=jnp.arange(labeled) % K,
    u=draw(unlabeled),
    u_index=jnp.arange(unlabeled),
    per_image_tables={},
    num_unlabeled=jnp.asarray(UNLABELED),
    label_shares=jnp.asarray(SHARES),
  )


def loss_by_hand(w, batch, *, centered, threshold, hard, weight, tau=0.0):
  """FixMatch's loss with constant targets; logits of the weak view too."""
  x, weak = 1.5 * np.asarray(batch.x), 1.5 * np.asarray(batch.u)
  strong = np.asarray(batch.u)[:, ::-1] - 0.1
  images = np.concatenate([x, weak, strong]).astype(float)
  logits = images.reshape(len(images), -1) @ w
  if centered:
    logits = logits - logits.mean(0)
  known, first, second = np.split(logits, [5, 13])
  known = known + tau * np.log(SHARES)
  log_x, log_u = (special.log_softmax(part, -1) for part in (known, second))
  supervised = -log_x[np.arange(5), np.asarray(batch.y)].mean()

  def of(targets):
    labels, mask = targets
    return supervised - weight * (mask * (labels * log_u).sum(-1)).mean()

  probs = special.softmax(first, -1)
  mask = probs.max(-1) >= threshold
  sharp = probs**2.0 / (probs**2.0).sum(-1, keepdims=True)
  labels = np.eye(K)[probs.argmax(-1)] if hard else sharp
  return of, (labels, mask)


class LossTest(parameterized.TestCase):
  @parameterized.product(centered=(False, True), hard=(True, False))
  def test_value_and_gradient(self, centered, hard):
    """Also through the statistics that the views share, and not through the
    targets.
    """
    fields = dict(threshold=0.6, weight=0.7, hard=hard, temperature=0.5)
    toy = Linear(centered)
    method = compiled.build(
      {'name': 'fixmatch', 'terms': {}, 'logit_adjustment': 0.5, **fields},
      toy.components(),
    )
    state, batch = method.init(jax.random.key(0)), make_batch()
    toy.calls.clear()
    moved, metrics = method.update(state, batch, jax.random.key(1))
    # One batch, or the weak views apart where nothing is shared.
    sizes = [len(images) for images in toy.calls]
    self.assertEqual(sizes, [21] if centered else [13, 8])
    w = np.asarray(state.params['w'], float)
    fields = dict(
      centered=centered, threshold=0.6, hard=hard, weight=0.7, tau=0.5
    )
    _, targets = loss_by_hand(w, batch, **fields)
    value = lambda w: loss_by_hand(w, batch, **fields)[0](targets)
    self.assertBetween(targets[1].sum(), 1, 7)
    np.testing.assert_allclose(metrics['loss'], value(w), rtol=1e-6)
    np.testing.assert_allclose(metrics['confident'], targets[1].mean())
    gradient = (w - np.asarray(moved.params['w'])) / 0.1
    np.testing.assert_allclose(gradient, numeric.slope(value, w), atol=2e-5)

  def test_logit_adjustment_needs_the_shares(self):
    method = compiled.build(
      {'name': 'fixmatch', 'terms': {}, 'logit_adjustment': 1.0},
      Linear().components(),
    )
    batch = make_batch()._replace(label_shares=None)
    state = method.init(jax.random.key(0))
    with self.assertRaisesRegex(errors.UserError, 'set Data.label_shares'):
      method.update(state, batch, jax.random.key(1))

  def test_mixed_views(self):
    """The label of a mixed view is the mixture of labels times weights."""
    images = jnp.asarray(np.random.default_rng(0).normal(size=(9, 8, 6, 2)))
    for kind in ('mixup', 'cutmix'):
      mixed = weak_strong.mixed_views(
        kind, images, jax.random.key(2), alpha=1.0
      )
      ratio = np.asarray(mixed.ratio)
      self.assertBetween(ratio.min(), 0.4, 0.95)
      others = np.asarray(images)[mixed.other]
      if kind == 'mixup':
        share = ratio.reshape(-1, 1, 1, 1)
        wanted = share * images + (1 - share) * others
        np.testing.assert_allclose(mixed.images, wanted, atol=1e-6)
      for row in range(9 if kind == 'cutmix' else 0):
        kept = np.asarray(mixed.images)[row] == np.asarray(images)[row]
        taken = np.asarray(mixed.images)[row] == others[row]
        self.assertTrue((kept | taken).all())
        if mixed.other[row] != row:
          self.assertAlmostEqual(kept.all(-1).mean(), ratio[row], places=5)
          box = np.argwhere(~kept.all(-1))
          if len(box):
            sides = box.max(0) - box.min(0) + 1
            self.assertEqual(len(box), sides.prod())
      rows = np.random.default_rng(1).normal(size=(9, 3))
      np.testing.assert_allclose(
        mixed.of(jnp.asarray(rows)),
        ratio[:, None] * rows + (1 - ratio)[:, None] * rows[mixed.other],
        atol=1e-6,
      )

  def test_cutmix_keeps_the_larger_share_and_needs_images(self):
    images = jnp.zeros((64, 7, 5, 1))
    mixed = weak_strong.mixed_views(
      'cutmix', images, jax.random.key(0), alpha=1.0
    )
    self.assertGreaterEqual(float(mixed.ratio.min()), 0.5)
    features = Linear().components()._replace(image_shape=(1, 1, 30))
    fields = {'name': 'fixmatch', 'terms': {}, 'mix': 'cutmix'}
    with self.assertRaisesRegex(errors.UserError, 'use mix=mixup'):
      compiled.build(fields, features)

  @parameterized.parameters('mixup', 'cutmix')
  def test_training_on_mixed_views(self, mix):
    method = compiled.build(
      {'name': 'fixmatch', 'terms': {}, 'threshold': 0.5, 'mix': mix},
      Linear().components(),
    )
    state, batch = method.init(jax.random.key(0)), make_batch()
    _, metrics = method.update(state, batch, jax.random.key(1))
    self.assertTrue(np.isfinite(metrics['loss']))
    self.assertGreater(metrics['strong_view'], 0.0)
    # What recomputes imputed labels needs two views of the same image.
    loss = weak_strong.weak_strong_loss(
      Linear().components(),
      fixmatch.rule(),
      **dict(name='fixmatch', weight=1.0, hard=True, temperature=0.5),
      decay=0.9,
      mix=mix,
    )
    student_view = jax.jit(lambda *args: loss(*args)[1].views.student_view)(
      state.params, state, batch, jax.random.key(1)
    )
    np.testing.assert_allclose(
      student_view, jnp.flip(batch.u, 1) - 0.1, rtol=1e-6
    )

  @parameterized.parameters('fixmatch', 'flexmatch', 'freematch', 'softmatch')
  def test_terms_go_on_every_host(self, name):
    """NS3L where there is no label, entropy, VAT, fairness: a finite sum."""
    terms = {
      'ns3l': dict(where='unconfident', passes=1, threshold=0.2, ramp='none'),
      'entropy': {},
      'vat': dict(ramp='none'),
      **({'fairness': {}} if name != 'freematch' else {}),
    }
    method = compiled.build(
      {'name': name, 'terms': terms}, Linear().components()
    )
    state = method.init(jax.random.key(0))
    moved, metrics = method.update(state, make_batch(), jax.random.key(1))
    names = 'cross_entropy', 'strong_view', 'ns3l', 'entropy', 'vat', 'fairness'
    weights = {n: metrics.get(f'{n}_weight', 1.0) for n in names}
    total = sum(weights[n] * metrics[n] for n in names)
    np.testing.assert_allclose(metrics['loss'], total, rtol=1e-5)
    self.assertEqual(
      jax.tree.structure(moved.slots), jax.tree.structure(state.slots)
    )

  def test_ns3l_of_images_without_a_label(self):
    """Rows are multiplied by 1 minus the weight of the label."""
    found = {}
    for where in ('all', 'unconfident'):
      ns3l = dict(where=where, passes=1, threshold=0.2, ramp='none')
      method = compiled.build(
        {'name': 'fixmatch', 'terms': {'ns3l': ns3l}, 'threshold': 0.6},
        Linear().components(),
      )
      state, batch = method.init(jax.random.key(0)), make_batch()
      _, metrics = method.update(state, batch, jax.random.key(1))
      found[where] = float(metrics['ns3l'])
    w = np.asarray(state.params['w'], float)
    flat = lambda images: np.asarray(images, float).reshape(8, -1) @ w
    weak = special.softmax(flat(1.5 * batch.u), -1)
    strong = special.softmax(flat(jnp.flip(batch.u, 1) - 0.1), -1)
    each = -np.log(1 - np.where(weak < 0.2, strong, 0).sum(-1))
    without = weak.max(-1) < 0.6
    self.assertBetween(without.sum(), 1, 7)
    np.testing.assert_allclose(found['all'], each.mean(), rtol=1e-5)
    np.testing.assert_allclose(
      found['unconfident'], (each * without).mean(), rtol=1e-5
    )

  @parameterized.parameters(
    (
      'supervised',
      {'ns3l': dict(where='unconfident')},
      'where=unconfident needs',
    ),
    ('supervised', {'fairness': {}}, 'fairness needs a method that averages'),
    ('mixmatch', {'fairness': {}}, 'fairness needs a method that averages'),
    ('freematch', {'fairness': {}}, 'freematch has the term fairness already'),
    ('fixmatch', {'mean_teacher': {}}, 'mean_teacher needs the method'),
  )
  def test_a_term_that_the_host_cannot_serve(self, name, terms, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      method = compiled.build(
        {'name': name, 'terms': terms}, Linear().components()
      )
      jax.eval_shape(
        method.update,
        jax.eval_shape(method.init, jax.random.key(0)),
        make_batch(8, 8),
        jax.random.key(1),
      )
    self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(
    (
      dict(name='fixmatch', threshold=1.5),
      r'threshold=1.5: must be in \[0, 1\]',
    ),
    (dict(name='flexmatch', threshold=-0.1), r'must be in \[0, 1\]'),
    (dict(name='fixmatch', mix='cutmx'), "fixmatch mix='cutmx': did you mean"),
    (dict(name='softmatch', n_sigma=0.0), 'must be > 0'),
    (dict(name='freematch', threshold=0.9), "'threshold'"),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      compiled.build({'terms': {}, **fields}, Linear().components())

  def test_needs_unlabeled_images(self):
    method = compiled.build(
      {'name': 'fixmatch', 'terms': {}}, Linear().components()
    )
    state = method.init(jax.random.key(0))
    with self.assertRaisesRegex(errors.UserError, 'fixmatch needs unlabeled'):
      method.update(state, make_batch(5, 0), jax.random.key(1))


class OnTopTest(parameterized.TestCase):
  @parameterized.parameters('v1', 'v2')
  def test_learning_to_impute(self, variant):
    """The labels of FixMatch's views are imputed, and one more step follows."""
    host = dict(name='fixmatch', terms={}, threshold=0.6)
    method = compiled.build(
      {'name': 'l2i', 'host': host, 'variant': variant}, Linear().components()
    )
    state = method.init(jax.random.key(0))
    batch = make_batch()
    batch = batch._replace(meta_x=batch.x, meta_y=batch.y)
    moved, metrics = method.update(state, batch, jax.random.key(1))
    alone = compiled.build(host, Linear().components())
    after, _ = alone.update(state, batch, jax.random.key(1))
    self.assertGreater(float(metrics['held']), 0.0)
    self.assertEqual(moved.slots.keys(), after.slots.keys())
    self.assertGreater(
      np.abs(moved.params['w'] - after.params['w']).max(), 1e-6
    )

  @parameterized.parameters('all', 'unconfident')
  def test_a_pair_of_students(self, where):
    """Each has FixMatch's loss on its own labels, and negative labels."""
    positives = dict(threshold=0.6, weight=0.7, where=where)
    method = compiled.build(
      dict(
        name='dnll',
        terms={},
        positives=positives,
        count=1,
        weight=0.5,
        ramp='none',
        selection='ep',
        unsupervised='cross',
      ),
      Linear().components(),
    )
    state, batch = method.init(jax.random.key(0)), make_batch()
    _, metrics = method.update(state, batch, jax.random.key(1))
    for name in ('a', 'b'):
      w = np.asarray(state.params[name]['w'], float)
      of, targets = loss_by_hand(
        w, batch, centered=False, threshold=0.6, hard=True, weight=0.7
      )
      np.testing.assert_allclose(
        metrics[f'loss_{name}'],
        of(targets) + 0.5 * metrics[f'cross_{name}'],
        rtol=1e-5,
      )
      flat = np.asarray(jnp.flip(batch.u, 1) - 0.1, float).reshape(8, -1)
      least = (-np.log(1 - special.softmax(flat @ w, -1))).min(-1)
      share = ~targets[1] if where == 'unconfident' else np.ones(8)
      self.assertGreaterEqual(
        metrics[f'cross_{name}'] + 1e-6, (share * least).mean()
      )


if __name__ == '__main__':
  absltest.main()
