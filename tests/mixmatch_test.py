"""MixMatch and its mixed baselines against loops in numpy.

Here are also the toy network and the helpers of the other methods' tests.
"""

import functools
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from model_helpers import TINY, images, quick_jit
from scipy import special

from nsl_jax import errors, methods, models
from nsl_jax.compose import combinators, mixing
from nsl_jax.methods import mixmatch
from nsl_jax.types import Batch, Components, Model, Outputs

SHAPE, K, B = (2, 2, 1), 4, 6
LABELS = np.arange(B) % K
ONCE = dict(weight=1.0, ramp='none', ramp_steps=0)
ICT = dict(alpha=0.75, decay=0.9, **ONCE)
MIX = dict(alpha=0.75, temperature=0.5, views=2, **ONCE)
NS3L = dict(sampler='threshold', threshold=0.2, passes=1, **ONCE)


class Toy:
  """Softmax regression that keeps what it is shown, in order.

  Its statistics are an average of the means that it saw in train mode, and
  their number.
  """

  def __init__(self, noise=0.0):
    self.noise, self.calls, self.seen, self.augmented = noise, 0, {}, []

  @property
  def views(self):
    """What each application was shown, in order."""
    jax.effects_barrier()
    return [self.seen[number] for number in range(self.calls)]

  def init(self, key, image_shape):
    weights = jax.random.normal(key, (math.prod(image_shape), K))
    return {'head': {'kernel': weights, 'bias': jnp.zeros(K)}}, {
      'mean': jnp.zeros(()),
      'passes': jnp.zeros(()),
    }

  def apply(self, params, stats, images, *, train, key=None):
    note = lambda number, images: self.seen.update(
      {int(number): np.asarray(images)}
    )
    jax.debug.callback(note, self.calls, images, ordered=True)
    self.calls += 1
    flat = images.reshape(images.shape[0], -1)
    logits = flat @ params['head']['kernel'] + params['head']['bias'][None]
    moved = {
      'mean': 0.9 * stats['mean'] + 0.1 * images.mean(),
      'passes': stats['passes'] + 1,
    }
    return Outputs(logits, flat, logits), moved if train else stats

  def augment(self, images, key):
    view = images + self.noise * jax.random.normal(key, images.shape)
    note = lambda *pair: self.augmented.append(tuple(map(np.asarray, pair)))
    jax.debug.callback(note, images, view, ordered=True)
    return view

  def components(self, **options):
    return Components(
      **{
        'model': Model(self.init, self.apply),
        'tx': optax.sgd(0.1),
        'augment': self.augment,
        'image_shape': SHAPE,
        **options,
      }
    )


def make_batch(labeled=B, unlabeled=B, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda n: jnp.asarray(rng.normal(size=(n, *SHAPE)), jnp.float32)
  return Batch(
    x=draw(labeled),
    y=jnp.arange(labeled) % K,
    u=draw(unlabeled),
    u_index=jnp.arange(unlabeled),
    per_image_tables={},
  )


def build(name, toy=None, components=None, **fields):
  return methods.build(
    {'name': name, 'terms': {}, **fields},
    components or (toy or Toy()).components(),
  )


def run(
  name, toy=None, batch=None, state=None, key=1, components=None, **fields
):
  """One update: the state before, the state after, the metrics."""
  method = build(name, toy, components, **fields)
  state = state or quick_jit(method.init)(jax.random.key(0))
  after, metrics = quick_jit(method.update)(
    state, batch or make_batch(), jax.random.key(key)
  )
  return state, after, metrics


def probs_of(view, params):
  flat = np.asarray(view, np.float64).reshape(len(view), -1)
  head = {k: np.asarray(v, np.float64) for k, v in params['head'].items()}
  return special.softmax(flat @ head['kernel'] + head['bias'], axis=-1)


def negative_sampling_loss(target_probs, probs, threshold):
  """NS3L's loss of a row."""
  return -np.log(sum(p for q, p in zip(target_probs, probs) if q >= threshold))


def check_moved_once(after, view):
  """One pass in train mode moved the statistics, and it saw this view."""
  assert after.stats['passes'] == 1, after.stats
  np.testing.assert_allclose(after.stats['mean'], 0.1 * view.mean(), rtol=1e-5)


def swapped(chunks):
  """MixMatch's interleaving: piece i of chunk i for piece i of the first."""
  count, rows = len(chunks), len(chunks[0])
  sizes = [rows // count] * count
  for i in range(rows - sum(sizes)):
    sizes[-1 - i] += 1
  found = [np.array(chunk) for chunk in chunks]
  for i in range(1, count):
    for row in range(sum(sizes[:i]), sum(sizes[: i + 1])):
      found[0][row], found[i][row] = chunks[i][row], chunks[0][row]
  return found


def share_of(mixed, first, second):
  """The s of mixed = s * first + (1 - s) * second that fits best, and by how
  much it misses.
  """
  mixed, gap = mixed - second, first - second
  share = np.sum(mixed * gap) / max(np.sum(gap**2), 1e-30)
  return share, np.abs(mixed - share * gap).max()


def partner_of(mixed, own, rows):
  """Which row was mixed into `own`, and the share of `own`."""
  fits = [share_of(mixed, own, row) for row in rows]
  other = min(
    (i for i in range(len(rows)) if fits[i][0] < 1 + 1e-5),
    key=lambda i: fits[i][1],
  )
  assert fits[other][1] < 1e-5, fits
  return other, fits[other][0]


class MixAllTest(parameterized.TestCase):
  def mix(self, labels, seed, per_batch):
    """Mixing matrix M, f64[N, N], and mixed labels, of rows that are all
    alone in their pixel.
    """
    rows = len(labels)
    with jax.enable_x64(True):
      mixed = quick_jit(
        lambda key: mixmatch.mix_all(
          jnp.eye(rows).reshape(rows, 1, rows, 1),
          jnp.asarray(labels),
          key,
          alpha=0.75,
          per_batch=per_batch,
        )
      )(jax.random.key(seed))
    return (
      np.asarray(mixed.images).reshape(rows, rows),
      np.asarray(mixed.labels),
    )

  @parameterized.parameters(False, True)
  def test_against_a_loop(self, per_batch):
    """Invariant 16: rows of sum 1, each nearest to its own source; one
    permutation and the same shares for images and labels.
    """
    labels = np.random.default_rng(0).dirichlet(np.ones(K), 3 * B)
    matrix, mixed = self.mix(labels, 0, per_batch)
    others, shares = [], np.diag(matrix)
    for i, row in enumerate(matrix):
      rest = [j for j in range(3 * B) if j != i and row[j] > 0]
      other = rest[0] if rest else i
      share = row[i] if rest else 1.0
      self.assertBetween(share, 0.5, 1.0)
      np.testing.assert_allclose(
        mixed[i], share * labels[i] + (1 - share) * labels[other]
      )
      own = np.linalg.norm(row - np.eye(3 * B)[i])
      self.assertLessEqual(own, np.linalg.norm(row - np.eye(3 * B)[other]))
      others.append(other)
    self.assertCountEqual(others, range(3 * B))
    self.assertNotEqual(others, list(range(3 * B)))
    np.testing.assert_allclose(mixed.sum(1), 1.0, rtol=1e-12)
    moved = shares[np.array(others) != np.arange(3 * B)]
    self.assertLen(np.unique(moved.round(12)), 1 if per_batch else len(moved))

  def test_classes_keep_their_total(self):
    """Invariant 16: exactly with one share for the batch, else on average."""
    labels = np.random.default_rng(1).dirichlet(np.full(K, 0.3), 12)
    _, mixed = self.mix(labels, 0, True)
    np.testing.assert_allclose(mixed.sum(0), labels.sum(0), rtol=1e-12)
    draw = lambda key: mixmatch.mix_all(
      jnp.zeros((12, 1, 1, 1)),
      jnp.asarray(labels, jnp.float32),
      key,
      alpha=0.75,
      per_batch=False,
    ).labels.sum(0)
    drawn = np.asarray(
      quick_jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 500))
    )
    gap = drawn - labels.sum(0)
    self.assertGreater(np.abs(gap).mean(), 0.1)
    error = gap.std(0) / math.sqrt(len(gap))
    np.testing.assert_array_less(np.abs(gap.mean(0)), 4 * error)

  def test_mixing_with_oneself(self):
    """Invariant 16: the identity permutation changes nothing."""
    labels = np.random.default_rng(2).dirichlet(np.ones(K), 9)
    with mock.patch.object(
      jax.random, 'permutation', lambda key, rows: jnp.arange(rows)
    ):
      matrix, mixed = self.mix(labels, 0, False)
    np.testing.assert_allclose(matrix, np.eye(9), rtol=0, atol=1e-15)
    np.testing.assert_allclose(mixed, labels, rtol=1e-14)


class MixMatchTest(parameterized.TestCase):
  @parameterized.parameters((1, False), (2, False), (2, True), (3, False))
  def test_against_a_loop(self, views, per_batch):
    """Every step of section 'MixMatch', with NS3L (invariant 7: masks from
    the mixed labels, all rows) and a ramp at a quarter; draws are read off
    the images that the network was shown.
    """
    toy, batch = Toy(noise=0.3), make_batch()
    fields = dict(
      MIX,
      views=views,
      weight=12.0,
      ramp='linear',
      ramp_steps=16_384,
      ratio_per_batch=per_batch,
      terms={'ns3l': dict(NS3L, threshold=0.05, weight=2.0)},
    )
    state = quick_jit(build('mixmatch', toy, **fields).init)(
      jax.random.key(0)
    ).replace(step=jnp.array(4096))
    toy.calls = 0
    _, after, metrics = run('mixmatch', toy, batch, state, **fields)
    guesses, passes = toy.views[:views], toy.views[views:]
    (x,) = (new for old, new in toy.augmented if np.array_equal(old, batch.x))
    u = [new for old, new in toy.augmented if np.array_equal(old, batch.u)]
    np.testing.assert_array_equal(guesses, u)
    labels = [np.eye(K)[label] for label in LABELS] + views * [
      p**2 / sum(p**2)
      for p in sum(probs_of(view, state.params) for view in u) / views
    ]
    rows, shown = np.concatenate([x, *u]), np.concatenate(swapped(passes))
    mixed, shares = [], []
    for i, image in enumerate(shown):
      other, share = partner_of(image, rows[i], rows)
      mixed.append(share * labels[i] + (1 - share) * labels[other])
      if share < 1 - 1e-5:  # else it was mixed with itself
        shares.append(share)
    self.assertBetween(min(shares), 0.5 - 1e-5, 0.9)
    self.assertEqual(np.ptp(shares) < 1e-4, per_batch)
    probs = probs_of(shown, state.params)
    known = -np.mean([sum(q * np.log(p)) for q, p in zip(mixed[:B], probs[:B])])
    guess = np.mean([(q - p) ** 2 for q, p in zip(mixed[B:], probs[B:])])
    ns3l = np.mean(
      [negative_sampling_loss(q, p, 0.05) for q, p in zip(mixed, probs)]
    )
    self.assertGreater(ns3l, 0.0)
    for name, value in (
      ('cross_entropy', known),
      ('mixmatch', guess),
      ('ns3l', ns3l),
      ('loss', known + 3.0 * guess + 2.0 * ns3l),
    ):
      np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    check_moved_once(after, passes[0])
    self.check_step(state, after, shown, probs, np.array(mixed), 3.0)

  def check_step(self, state, after, shown, probs, mixed, weight):
    """Invariant 18: the step is that of targets that are constant."""
    slope = np.zeros((K + 1, K))
    for i, (image, p, q) in enumerate(zip(shown, probs, mixed)):
      if i < B:
        change = (p - q) / B
      else:
        gap = weight * 2 * (p - q) / K / (len(shown) - B)
        change = p * (gap - sum(p * gap))
      negative = q < 0.05
      masked = sum(p[negative])
      more = np.where(negative, p, -p * masked / (1 - masked))
      change += 2.0 * more / len(shown)
      slope += np.outer(np.append(image.reshape(-1), 1.0), change)
    for name, want in ('kernel', slope[:-1]), ('bias', slope[-1]):
      got = state.params['head'][name] - after.params['head'][name]
      np.testing.assert_allclose(got / 0.1, want, atol=2e-4)

  def test_passes_as_one_program_give_the_same(self):
    """As on an accelerator: logits, statistics and gradients to rounding."""
    model = models.build(TINY['oliver'], K)
    components = Toy().components(model=model)
    batches = [images(4, 8, seed=seed) for seed in range(3)]

    def passes(params, stats):
      logits, moved = mixmatch.each_pass(
        components, params, stats, batches, jax.random.key(1), moved_by='first'
      )
      return jnp.sum(logits**2), (logits, moved)

    params, stats = quick_jit(lambda key: model.init(key, (8, 8, 3)))(
      jax.random.key(0)
    )
    found = []
    for backend in 'cpu', 'gpu':
      with mock.patch.object(jax, 'default_backend', lambda: backend):
        grads = jax.grad(passes, has_aux=True)
        found.append(quick_jit(lambda *args: grads(*args))(params, stats))
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
      *found,
    )

  def test_every_pass_may_move_the_statistics(self):
    """L2I's code: guesses, then mixed chunks, each after the last (F-L23)."""
    toy = Toy(noise=0.3)
    state = quick_jit(build('mixmatch', toy, **MIX).init)(jax.random.key(0))
    toy.calls = 0
    _, after, _ = run('mixmatch', toy, state=state, moved_by='all', **MIX)
    mean = 0.0
    for view in toy.views:
      mean = 0.9 * mean + 0.1 * view.mean()
    self.assertLen(toy.views, 5)
    self.assertEqual(after.stats['passes'], 5)
    np.testing.assert_allclose(after.stats['mean'], mean, rtol=1e-4)

  def test_unknown_mover(self):
    with self.assertRaisesRegex(errors.UserError, "did you mean 'first'"):
      build('mixmatch', moved_by='frst', **MIX)

  def test_batch_norm_moves_once(self):
    """Invariant 18: one update, by 0.999, of a network with batch norm."""
    components = Components(
      model=models.build(TINY['small_cnn'], K),
      tx=optax.sgd(0.1),
      augment=lambda images, key: images,
      image_shape=(4, 4, 1),
    )
    method = build('mixmatch', components=components, **MIX)
    batch = Batch(
      x=images(3, 4, 1),
      y=jnp.arange(3),
      u=images(3, 4, 1, 1),
      u_index=jnp.arange(3),
      per_image_tables={},
    )
    update = quick_jit(method.update)
    state = quick_jit(method.init)(jax.random.key(0))
    late = jax.tree_util.tree_map_with_path(  # once momentum has warmed up
      lambda path, leaf: leaf + 1e6 * (path[-1].key == 'count'), state.stats
    )
    state = state.replace(stats=late)
    shifted = state.replace(
      stats=jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 1.0 * (path[-1].key != 'count'), late
      )
    )
    with mock.patch.object(  # drawing takes long to compile
      mixing, 'mix_ratio', lambda *args, **more: jnp.full(9, 0.75)
    ):
      first, second = (
        update(start, batch, jax.random.key(1))[0].stats
        for start in (state, shifted)
      )
    for name, layer in first.items():
      self.assertEqual(layer['count'], 1e6 + 1)  # one pass of five
      for kind in 'mean', 'var':
        np.testing.assert_allclose(
          second[name][kind] - layer[kind], 0.999, rtol=1e-5
        )

  def test_kernels_alone_decay_and_after_the_average(self):
    """Invariant 18: without gradients kernels shrink by 1 - 0.02 lr."""
    components = (
      Toy()
      .components(
        weight_decay=0.02, ema_decay=0.5, learning_rate=lambda step: 0.002
      )
      ._replace(tx=optax.sgd(0.0))
    )
    state, after, _ = run('mixmatch', components=components, **MIX)
    before, now = state.params['head'], after.params['head']
    np.testing.assert_array_equal(
      now['kernel'], before['kernel'] * np.float32(1 - 4e-5)
    )
    np.testing.assert_array_equal(now['bias'], before['bias'])
    np.testing.assert_array_equal(
      after.slots[combinators.EMA]['head']['kernel'], before['kernel']
    )

  @parameterized.parameters(
    (dict(alpha=0.0), 'alpha=0.0'),
    (dict(temperature=-1.0), 'temperature'),
    (dict(views=0), 'views=0'),
    (
      dict(terms={'ns3l': dict(sampler='furthest', passes=1, **ONCE)}),
      'not a single image',
    ),
  )
  def test_wrong_options(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      run('mixmatch', **{**MIX, **fields})
    self.assertNotIn('\n', str(caught.exception))

  def test_unequal_batches(self):
    with self.assertRaisesRegex(errors.UserError, 'same number'):
      run('mixmatch', batch=make_batch(4, 6), **MIX)


class MixedBaselinesTest(parameterized.TestCase):
  """Both mix with the reversed batch; shares show in the mixed images."""

  def mixed_labels(self, shown, rows, labels):
    """Labels of the images shown, which are mixtures of these rows."""
    found = []
    for i, image in enumerate(np.asarray(shown, np.float64)):
      share, miss = share_of(image, rows[i], rows[B - 1 - i])
      self.assertLess(miss, 1e-5)
      self.assertBetween(share, 0.5 - 1e-4, 1.0 + 1e-4)
      found.append(share * labels[i] + (1 - share) * labels[B - 1 - i])
    return found

  def check(self, metrics, expected):
    """Means over rows, and the loss, NS3L at weight 2."""
    for name, values in expected.items():
      np.testing.assert_allclose(
        metrics[name], np.mean(values), rtol=1e-3, err_msg=name
      )
    self.assertGreater(metrics['ns3l'], 0.0)
    np.testing.assert_allclose(
      metrics['loss'],
      sum(metrics[name] for name in expected) + metrics['ns3l'],
      rtol=1e-5,
    )

  def test_mixup_against_a_loop(self):
    toy, batch = Toy(), make_batch()
    state, after, metrics = run(
      'mixup', toy, batch, alpha=0.75, terms={'ns3l': dict(NS3L, weight=2.0)}
    )
    guessing, labeled, unlabeled = toy.views
    found = {}
    for name, shown, rows, labels in (
      ('cross_entropy', labeled, batch.x, np.eye(K)[LABELS]),
      ('mixup', unlabeled, batch.u, probs_of(guessing, state.params)),
    ):
      targets = self.mixed_labels(shown, np.asarray(rows, np.float64), labels)
      probs = probs_of(shown, state.params)
      found[name] = [-sum(q * np.log(p)) for q, p in zip(targets, probs)]
    found['ns3l'] = [
      negative_sampling_loss(q, p, 0.2) for q, p in zip(targets, probs)
    ]
    self.check(metrics, found)
    check_moved_once(after, labeled)

  def test_mixup_labels_are_constant(self):
    """The step without labeled images: p - q of every row, whatever q."""
    toy, batch = Toy(), make_batch()
    state, after, _ = run('mixup', toy, batch, alpha=0.75)
    guessing, labeled, unlabeled = toy.views
    want = np.zeros(K)
    for shown, rows, labels in (
      (labeled, batch.x, np.eye(K)[LABELS]),
      (unlabeled, batch.u, probs_of(guessing, state.params)),
    ):
      targets = self.mixed_labels(shown, np.asarray(rows, np.float64), labels)
      want += np.mean(probs_of(shown, state.params) - targets, axis=0)
    got = state.params['head']['bias'] - after.params['head']['bias']
    np.testing.assert_allclose(got / 0.1, want, atol=1e-4)

  def test_ict_against_a_loop(self):
    """The teacher moves after the student's step."""
    toy, batch = Toy(), make_batch()
    fields = dict(ICT, terms={'ns3l': dict(NS3L, weight=2.0)})
    state = quick_jit(build('ict', toy, **fields).init)(jax.random.key(0))
    other = jax.tree.map(lambda leaf: 0.3 * leaf, state.params)
    state = state.replace(slots={'teacher': other})
    _, after, metrics = run('ict', toy, batch, state, **fields)
    labeled, teaching, shown = toy.views
    targets = self.mixed_labels(
      shown, np.asarray(batch.u, np.float64), probs_of(teaching, other)
    )
    probs, known = (probs_of(v, state.params) for v in (shown, labeled))
    self.check(
      metrics,
      {
        'cross_entropy': -np.log(known[np.arange(B), LABELS]),
        'ict': [sum((p - q) ** 2) / K for p, q in zip(probs, targets)],
        'ns3l': [
          negative_sampling_loss(q, p, 0.2) for q, p in zip(targets, probs)
        ],
      },
    )
    check_moved_once(after, labeled)
    kernel = lambda tree: np.asarray(tree['head']['kernel'])
    np.testing.assert_allclose(
      kernel(after.slots['teacher']),
      0.9 * kernel(other) + 0.1 * kernel(after.params),
      rtol=1e-5,
    )


if __name__ == '__main__':
  absltest.main()
