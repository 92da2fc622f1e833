"""What holds for any input: losses, splits, horizons."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl.testing import absltest, parameterized
from hypothesis import given, settings, strategies as st

from configs import common
from nsl_jax import losses
from nsl_jax.data import splits

_K = 5
_ROWS = 8
_settings = functools.partial(settings, deadline=None, database=None)


def _rows(seed, spread):
  rng = np.random.default_rng(seed)
  logits = spread * rng.standard_normal((_ROWS, _K)).astype(np.float32)
  probs = rng.dirichlet(np.ones(_K), _ROWS).astype(np.float32)
  negative = rng.random((_ROWS, _K)) < 0.4
  negative[np.arange(_ROWS), rng.integers(_K, size=_ROWS)] = False
  return logits, probs, negative, rng


# Name -> (logits, probabilities, negative labels) -> f32[N].
LOSSES = {
  'cross_entropy': lambda z, p, n: losses.cross_entropy(z, p),
  'entropy': lambda z, p, n: losses.entropy(z),
  'none_of': lambda z, p, n: losses.negative_sampling_loss(z, n),
  'each_not': lambda z, p, n: losses.complementary_label_loss(z, n),
  'squared_error': lambda z, p, n: losses.squared_error(z, p),
  'pseudo_label': lambda z, p, n: losses.pseudo_label(z, p, threshold=0.5),
  'kl_divergence': lambda z, p, n: losses.kl_divergence(z, jnp.log(p)),
}


class LossTest(parameterized.TestCase):
  @parameterized.parameters(*LOSSES)
  def test_shift_and_order_of_classes(self, name):
    """Logits plus a constant predict the same, and classes have no order."""
    loss = jax.jit(LOSSES[name])

    @_settings(max_examples=25)
    @given(st.integers(0, 2**16), st.floats(0.1, 8.0), st.floats(-20.0, 20.0))
    def check(seed, spread, constant):
      logits, probs, negative, rng = _rows(seed, spread)
      value = loss(logits, probs, negative)
      self.assertTrue(np.isfinite(value).all())
      moved = loss(logits + np.float32(constant), probs, negative)
      np.testing.assert_allclose(moved, value, rtol=1e-3, atol=1e-4)
      order = rng.permutation(_K)
      turned = loss(logits[:, order], probs[:, order], negative[:, order])
      np.testing.assert_allclose(turned, value, rtol=1e-4, atol=1e-5)

    check()

  def test_bounds(self):
    negative_sampling_loss, complementary_label_loss = (
      jax.jit(losses.negative_sampling_loss),
      jax.jit(losses.complementary_label_loss),
    )

    @_settings(max_examples=25)
    @given(st.integers(0, 2**16), st.floats(0.1, 8.0))
    def check(seed, spread):
      logits, _, negative, _ = _rows(seed, spread)
      whole = negative_sampling_loss(logits, negative)
      self.assertTrue((whole >= 0.0).all())
      np.testing.assert_array_equal(np.asarray(whole)[~negative.any(1)], 0.0)
      mean = complementary_label_loss(logits, negative)
      count = negative.sum(1)
      self.assertTrue((mean * count <= whole * (1.0 + 1e-4) + 1e-5).all())
      fewer = negative.copy()
      fewer[:, 0] = False
      self.assertTrue(
        (negative_sampling_loss(logits, fewer) <= whole + 1e-5).all()
      )

    check()

  def test_optax_agrees(self):
    logits, probs, _, _ = _rows(0, 3.0)
    labels = np.arange(_ROWS, dtype=np.int32) % _K
    for ours, theirs in (
      (
        losses.cross_entropy(logits, labels),
        optax.softmax_cross_entropy_with_integer_labels(logits, labels),
      ),
      (
        losses.cross_entropy(logits, probs),
        optax.softmax_cross_entropy(logits, probs),
      ),
      (
        losses.kl_divergence(logits, jnp.log(probs)),
        optax.losses.kl_divergence_with_log_targets(
          jnp.log(probs), jax.nn.log_softmax(logits)
        ),
      ),
    ):
      np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


class SplitTest(parameterized.TestCase):
  @parameterized.parameters(*splits.RULES)
  def test_disjoint_complete_and_balanced(self, rule):
    @_settings(max_examples=40)
    @given(
      seed=st.integers(0, 1000),
      classes=st.integers(2, 12),
      per_class=st.integers(8, 40),
      share=st.floats(0.05, 0.4),
      validation_share=st.floats(0.0, 0.3),
      both=st.booleans(),
    )
    def check(seed, classes, per_class, share, validation_share, both):
      labels = np.repeat(np.arange(classes, dtype=np.int32), per_class)
      count = max(classes, int(share * len(labels)))
      validation = int(validation_share * len(labels))
      split = splits.make(
        labels,
        classes,
        labeled=count,
        validation=validation,
        rule=rule,
        validation_rule=rule,
        unlabeled_includes_labeled=both,
        seed=seed,
      )
      self.assertLen(split.labeled, count)
      self.assertLen(split.validation, validation)
      known, held = set(split.labeled), set(split.validation)
      rest = set(split.unlabeled)
      self.assertEmpty(known & held)
      self.assertEmpty(rest & held)
      self.assertEqual(known | held | rest, set(range(len(labels))))
      self.assertEqual(bool(known & rest), both)
      if rule != 'uniform':
        sizes = np.bincount(labels[split.labeled], minlength=classes)
        self.assertLessEqual(np.ptp(sizes), 1)
        self.assertGreaterEqual(sizes.min(), 1)

    check()


class ScaleTest(absltest.TestCase):
  @_settings(max_examples=50)
  @given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([2, 4, 5]))
  def test_two_steps_are_one(self, ramp, every, factor):
    """Horizons that divide are scaled back to what they were."""
    make = lambda: ml_collections.ConfigDict(
      dict(
        steps=1000,
        full_steps=1000,
        ema_decay=0.9,
        passes=(),
        ramp_steps=factor * ramp,
        eval=dict(every_steps=factor * every),
      )
    )
    config = make()
    common.scale(config, 1 / factor)
    self.assertEqual(
      (config.ramp_steps, config.eval.every_steps), (ramp, every)
    )
    common.scale(config, factor)
    before = make()
    self.assertAlmostEqual(config.ema_decay, before.ema_decay, places=10)
    config.ema_decay = before.ema_decay
    self.assertEqual(config.to_dict(), before.to_dict())


if __name__ == '__main__':
  absltest.main()
