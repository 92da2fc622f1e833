"""The rules of FixMatch and its successors against equations in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special

from nsl_jax import errors
from nsl_jax.compose import combinators, weak_strong
from nsl_jax.methods import fixmatch, flexmatch, freematch, softmatch
from nsl_jax.types import Batch

K, ROWS, IMAGES, UNLABELED = 4, 6, 20, 15
DECAY = 0.9
SHARES = np.array([0.5, 0.3, 0.15, 0.05], np.float32)  # of labeled images


def batches(count=5, seed=0):
  """Logits of weak views f64[count, ROWS, K] and rows of the images; the last
  image of a batch occurs twice in it.
  """
  rng = np.random.default_rng(seed)
  logits = 2.5 * rng.normal(size=(count, ROWS, K)) + [1.0, 0.3, 0.0, -0.5]
  index = np.stack([rng.choice(UNLABELED, ROWS, False) for _ in range(count)])
  index[:, 0] = index[:, -1]
  return logits, index


class Averages:
  """The moving averages that every rule sees, in NumPy."""

  def __init__(self):
    self.mean = self.histogram = np.full(K, 1 / K)

  def add(self, probs):
    move = lambda old, new: DECAY * old + (1 - DECAY) * new
    self.mean = move(self.mean, probs.mean(0))
    counts = np.bincount(probs.argmax(-1), minlength=K)
    self.histogram = move(self.histogram, counts / len(probs))


def run(rule, logits, index):
  """(Predictions, Targets) of a rule over several batches."""
  rule = rule if isinstance(rule, weak_strong.Rule) else rule()
  state = combinators.State(
    step=jnp.zeros((), jnp.int32),
    key=None,
    params={},
    stats={},
    opt=(),
    slots=weak_strong.initial_slots(rule, K, IMAGES),
  )

  @jax.jit
  def one(state, logits, rows):
    batch = Batch(
      *(None, None, None, rows, {}),
      num_unlabeled=jnp.asarray(15),
      label_shares=jnp.asarray(SHARES),
    )
    seen = weak_strong.see(state, batch, logits, DECAY)
    found = rule.targets(seen)
    names = weak_strong.MEAN, weak_strong.HISTOGRAM
    kept = dict(zip(names, (seen.mean, seen.histogram)))
    slots = {**state.slots, **kept, **found.slots}
    return state.replace(step=state.step + 1, slots=slots), seen, found

  for parts in zip(logits.astype(np.float32), index):
    state, seen, found = one(state, *map(jnp.asarray, parts))
    yield jax.device_get((seen, found))


def aligned_by_hand(probs, mean, target):
  scaled = probs * (target + 1e-6) / (mean + 1e-6)
  return scaled / scaled.sum(-1, keepdims=True)


class RuleTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.logits, self.index = batches()
    self.probs = special.softmax(self.logits, -1)

  def check(self, rule, expected):
    """`expected` yields (weights, further slots) of each batch."""
    averages = Averages()
    found = list(run(rule, self.logits, self.index))
    wanted = list(expected(averages))
    self.assertLen(found, len(wanted))
    total = 0.0
    for (seen, made), (weights, slots) in zip(found, wanted):
      np.testing.assert_allclose(made.weights, weights, atol=1e-6)
      for name, value in slots.items():
        np.testing.assert_allclose(made.slots[name], value, atol=1e-6)
      total += weights.sum()
    np.testing.assert_allclose(seen.mean, averages.mean, atol=1e-6)
    np.testing.assert_allclose(seen.histogram, averages.histogram, atol=1e-6)
    self.assertBetween(total / self.logits[..., 0].size, 0.1, 0.95)
    return found

  def each(self, averages):
    for at, probs in enumerate(self.probs):
      averages.add(probs)
      yield at, probs

  def each_aligned(self, averages, kind):
    """The probabilities of each batch, aligned by one of `ALIGNMENTS`."""
    mean = None
    target = SHARES if kind == 'labels' else np.full(K, 1 / K)
    for _, probs in self.each(averages):
      new = probs.mean(0)
      mean = new if mean is None else DECAY * mean + (1 - DECAY) * new
      yield probs if kind == 'none' else aligned_by_hand(probs, mean, target)

  @parameterized.parameters('none', 'uniform', 'labels')
  def test_fixmatch(self, kind):
    def expected(averages):
      for probs in self.each_aligned(averages, kind):
        aligned.append(probs)
        yield (probs.max(-1) >= 0.7) * 1.0, {}

    aligned = []
    rule = functools.partial(fixmatch.rule, threshold=0.7, dist_align=kind)
    found = self.check(rule, expected)
    for (_, made), probs in zip(found, aligned):
      np.testing.assert_allclose(made.probs, probs, atol=1e-6)

  @parameterized.parameters(True, False)
  def test_flexmatch(self, warmup):
    def expected(averages):
      table = np.full(IMAGES, -1)
      for at, probs in self.each(averages):
        count = np.bincount(table[table >= 0], minlength=K)
        most = (
          max(count.max(), UNLABELED - count.sum())
          if warmup
          else (max(count.max(), 1))
        )
        beta = count / most
        limit = 0.7 * beta / (2 - beta)
        top = probs.max(-1)
        for row, p, k in zip(self.index[at], top, probs.argmax(-1)):
          if p >= 0.7:
            table[row] = k  # the last one stays
        yield (
          (top >= limit[probs.argmax(-1)]) * 1.0,
          {flexmatch.PREDICTED: table.copy()},
        )

    rule = functools.partial(
      flexmatch.rule, threshold=0.7, thresh_warmup=warmup
    )
    self.logits, self.index = batches(count=14)
    self.probs = special.softmax(self.logits, -1)
    self.check(rule, expected)

  @parameterized.parameters((False, False), (True, False), (False, True))
  def test_freematch(self, quantile, clip):
    def expected(averages):
      limit = 1 / K
      for _, probs in self.each(averages):
        top = probs.max(-1)
        level = np.quantile(top, 0.8) if quantile else top.mean()
        limit = DECAY * limit + (1 - DECAY) * level
        limit = min(limit, 0.95) if clip else limit
        limits = limit * averages.mean / averages.mean.max()
        yield (top >= limits[probs.argmax(-1)]) * 1.0, {freematch.GLOBAL: limit}

    self.logits, self.index = batches(count=14)
    self.probs = special.softmax(self.logits, -1)
    rule = functools.partial(
      freematch.rule, use_quantile=quantile, clip_thresh=clip
    )
    self.check(rule, expected)

  def test_freematch_clips(self):
    rule = freematch.rule(clip_thresh=True)
    seen = weak_strong.Predictions(
      *[jnp.eye(K)] + 3 * [jnp.full(K, 0.25)],
      jnp.arange(K),
      None,
      {freematch.GLOBAL: jnp.asarray(0.99)},
      jnp.asarray(5),
      DECAY,
    )
    self.assertAlmostEqual(
      float(rule.targets(seen).slots[freematch.GLOBAL]), 0.95
    )

  @parameterized.parameters((1.0, 'none'), (2.0, 'uniform'), (2.0, 'labels'))
  def test_softmatch(self, n_sigma, kind):
    def expected(averages):
      center, variance = 1 / K, 1.0
      for probs in self.each_aligned(averages, kind):
        top = probs.max(-1)
        center = DECAY * center + (1 - DECAY) * top.mean()
        variance = DECAY * variance + (1 - DECAY) * top.var(ddof=1)
        scale = 2 * variance / n_sigma**2
        yield (
          np.where(top < center, np.exp(-((top - center) ** 2) / scale), 1.0),
          {softmatch.CENTER: center, softmatch.VARIANCE: variance},
        )

    self.logits = 0.4 * self.logits
    self.probs = special.softmax(self.logits, -1)
    rule = functools.partial(softmatch.rule, n_sigma=n_sigma, dist_align=kind)
    averages = Averages()
    found = list(run(rule, self.logits, self.index))
    for (seen, made), (weights, slots) in zip(found, expected(averages)):
      np.testing.assert_allclose(made.weights, weights, atol=1e-6)
      for name, value in slots.items():
        np.testing.assert_allclose(made.slots[name], value, atol=1e-6)
      # Labels are those of the predictions as they are.
      np.testing.assert_array_equal(made.probs, seen.probs)

  def test_softmatch_of_a_single_row(self):
    self.logits, self.index = self.logits[:, :1], self.index[:, :1]
    for _, made in run(softmatch.rule, self.logits, self.index):
      self.assertTrue(np.isfinite(made.weights).all())

  def test_flexmatch_thresholds_by_hand(self):
    """Two, one and no images: beta is 1, 1/2, 0; T = tau beta / (2 - beta)."""
    table = jnp.array([0, 1, 0, -1, -1])
    found = flexmatch.thresholds(table, 3, 3, threshold=0.9, thresh_warmup=True)
    np.testing.assert_allclose(found, [0.9, 0.3, 0.0], rtol=1e-6)
    # Eight unused images are the most: beta is 2/8 and 1/8.
    found = flexmatch.thresholds(
      table, 3, 11, threshold=0.9, thresh_warmup=True
    )
    np.testing.assert_allclose(found, [0.9 / 7, 0.9 / 15, 0.0], rtol=1e-6)

  def test_a_single_row_without_variance(self):
    """The Gaussian of a variance of 0 has weight 1 at and above its center."""
    rule = softmatch.rule(dist_align='none')
    seen = weak_strong.Predictions(
      *[jnp.eye(K)[:1]] + 2 * [jnp.full(K, 0.25)],
      *(None, jnp.arange(1), None, rule.slots(K, IMAGES), 0, 0.0),
    )
    np.testing.assert_array_equal(rule.targets(seen).weights, [1.0])

  def test_flexmatch_needs_the_number_of_images(self):
    with self.assertRaisesRegex(errors.UserError, 'set Components.num_images'):
      flexmatch.rule().slots(K, 0)
    seen = weak_strong.Predictions(
      *[jnp.eye(K)] + 2 * [jnp.full(K, 0.25)], *(None, None, None, {}, 0, DECAY)
    )
    slots = flexmatch.rule().slots(K, IMAGES)
    with self.assertRaisesRegex(errors.UserError, 'number of unlabeled images'):
      flexmatch.rule().targets(seen._replace(slots=slots))


if __name__ == '__main__':
  absltest.main()
