"""RandAugment: every operation gives Pillow's result, and what is drawn."""

import functools
import json
import pathlib
import shutil
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import real_data
from absl.testing import absltest, parameterized
from sklearn import datasets

from nsl_jax import errors
from nsl_jax.benchmarks import augmentation
from nsl_jax.commands import bench
from nsl_jax.data import augment, normalize, randaugment
from nsl_jax.training import sharding

_IMAGES, _SHARES = 6, (0.0, 0.03, 0.5, 0.8, 1.0)  # of the range of an operation


@functools.cache
def images_of(data):
  """The first images of a data set, u8[N, H, W, C]; None if it is not there."""
  if data == 'digits':
    levels = datasets.load_digits().images[:_IMAGES, ..., None]
    return (levels * 255 / 16).round().astype(np.uint8)
  if data == 'uneven':  # not square, one without contrast, one of two levels
    images = np.random.default_rng(0).integers(40, 200, (4, 24, 16, 3))
    images[1] = 90
    images[2] = np.where(images[2] > 100, 200, 30)
    return images.astype(np.uint8)
  found = real_data.first(data, _IMAGES)
  return found and found[0]


class PillowTest(parameterized.TestCase):
  @parameterized.parameters('digits', 'uneven', 'mnist', 'cifar10')
  def test_each_operation_equals_pillow(self, data):
    """All pixels of all images are compared, for magnitudes from end to end of
    each range. All are equal but for autocontrast, where Pillow's rounding may
    take one level off.
    """
    images = images_of(data)
    if images is None:
      self.skipTest(f'{data} is not in TFDS_DATA_DIR')
    cases = [
      (name, image, bounds.low + share * (bounds.high - bounds.low))
      for name, bounds in randaugment.RANGES.items()
      for share in _SHARES
      for image in images
    ]
    which = [randaugment.NAMES.index(name) for name, _, _ in cases]
    amounts = np.array([amount for _, _, amount in cases], np.float32)
    found = jax.jit(randaugment.apply)(
      jnp.stack([image for _, image, _ in cases]), jnp.array(which), amounts
    )
    self.assertEqual(found.dtype, np.uint8)
    changed = set()
    for (name, image, _), amount, one in zip(cases, amounts, found):
      wanted = augmentation.with_pillow(image, name, float(amount)).astype(int)
      off = np.abs(np.asarray(one).astype(int) - wanted).max()
      self.assertLessEqual(off, name == 'autocontrast', f'{name} {amount}')
      if (wanted != image).any():
        changed.add(name)
    same = {'identity'} | ({'color'} if images.shape[-1] == 1 else set())
    if data in ('cifar10', 'uneven'):
      self.assertEqual(changed, set(randaugment.NAMES) - same)

  def test_a_stage_that_nothing_needs_is_skipped(self):
    """A batch of one operation equals its rows in a batch of all."""
    image = images_of('uneven')[:1]
    count = len(randaugment.NAMES)
    amounts = jnp.array([sum(r) / 2 for r in randaugment.RANGES.values()])
    apply = jax.jit(randaugment.apply)
    together = apply(
      jnp.repeat(image, count, axis=0), jnp.arange(count), amounts
    )
    for at in range(count):
      alone = apply(image, jnp.array([at]), amounts[at : at + 1])
      np.testing.assert_array_equal(alone[0], together[at])


class RandAugmentTest(parameterized.TestCase):
  def test_several_accelerators_exchange_nothing(self):
    """Each of the 4 devices needs its own images alone."""
    rows = sharding.batch_sharding(sharding.make(4))
    levels, which, amount = (
      jax.device_put(np.zeros((8, *shape), dtype), rows)
      for shape, dtype in (((6, 6, 3), 'u1'), ((), 'i4'), ((), 'f4'))
    )
    with mock.patch.object(jax, 'default_backend', lambda: 'gpu'):
      step = jax.jit(randaugment.apply).lower(levels, which, amount)
    text = step.compile().as_text()
    self.assertIn('num_partitions=4', text)
    for exchange in 'all-gather', 'all-reduce', 'collective-permute':
      self.assertNotIn(exchange, text)

  def test_draws_operations_and_magnitudes_uniformly(self):
    count = 14_000
    drawn = []

    def keep(levels, which, amount):
      drawn.append((np.asarray(which), np.asarray(amount)))
      return levels

    images = jnp.zeros((count, 1, 1, 1), jnp.uint8)
    with mock.patch.object(randaugment, 'apply', keep):
      randaugment.randaugment(images, jax.random.key(0), operations=2)
    self.assertLen(drawn, 2)
    self.assertGreater((drawn[0][0] != drawn[1][0]).mean(), 0.9)
    for which, amount in drawn:
      counts = np.bincount(which, minlength=14)
      np.testing.assert_allclose(counts, 1000, atol=4.5 * 30.5)
      for at, (low, high) in enumerate(randaugment.RANGES.values()):
        some = amount[which == at]
        self.assertBetween(some.min(), low, low + 0.02 * (high - low))
        self.assertBetween(some.max(), high - 0.02 * (high - low), high)
        np.testing.assert_allclose(
          some.mean(), (low + high) / 2, atol=0.05 * (high - low)
        )

  def test_two_operations_are_one_after_the_other(self):
    image = jnp.asarray(images_of('uneven'))
    key = jax.random.key(3)
    once = jax.jit(functools.partial(randaugment.randaugment, operations=2))
    whole = once(image, jax.random.clone(key))
    parts = image
    for one in jax.random.split(key, 2):
      which_key, share_key = jax.random.split(one)
      which = jax.random.randint(which_key, (4,), 0, 14)
      low, high = np.array(list(randaugment.RANGES.values())).T
      share = jax.random.uniform(share_key, (4,))
      amount = low[which] + share * (high - low)[which]
      parts = jax.jit(randaugment.apply)(
        parts, which, amount.astype(jnp.float32)
      )
    np.testing.assert_array_equal(whole, parts)
    self.assertGreater((np.asarray(whole) != image).mean(), 0.1)

  @parameterized.parameters('signed', 'standard')
  def test_is_in_levels_whatever_the_normalization(self, kind):
    levels = images_of('uneven')
    fitted = normalize.fit(kind, levels)
    pixels = augment.Pixels(
      functools.partial(normalize.invert, kind, fitted),
      functools.partial(normalize.from_unit, kind, fitted),
    )
    view = augment.build('randaugment:2', pixels=lambda: pixels)
    key = jax.random.key(5)
    found = jax.jit(view)(
      normalize.apply(kind, fitted, levels), jax.random.clone(key)
    )
    wanted = jax.jit(functools.partial(randaugment.randaugment, operations=2))(
      jnp.asarray(levels), jax.random.split(key, 1)[0]
    )
    np.testing.assert_allclose(
      found, normalize.apply(kind, fitted, wanted), atol=1e-5
    )


class CutoutTest(parameterized.TestCase):
  @parameterized.parameters((8, 0.5, 4), (9, 0.5, 4), (10, 0.3, 3))
  def test_is_a_square_cut_off_at_the_border(self, side, share, size):
    images = jnp.ones((400, side, side, 2))
    pixels = augment.Pixels(lambda x: x / 2, lambda unit: 2 * unit)
    gray = 1.0 - augment.cutout(
      images + 1.0, jax.random.key(0), share=share, pixels=pixels
    )
    hit = np.asarray(gray == 0.0).all(-1)  # twice 1/2
    np.testing.assert_array_equal(np.asarray(gray)[~hit], -1.0)
    seen = set()
    for one in hit:
      rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
      self.assertEqual(one.sum(), len(rows) * len(columns))
      self.assertLessEqual(max(len(rows), len(columns)), size)
      self.assertGreaterEqual(min(len(rows), len(columns)), 1)
      if rows[0] > 0 and rows[-1] < side - 1:
        self.assertLen(rows, size)
      seen.add((rows[-1], columns[-1]))
    self.assertGreater(len(seen), side**2 // 2)  # everywhere

  def test_a_share_of_nothing(self):
    pixels = augment.Pixels(lambda x: x, lambda x: x)
    images = jnp.ones((3, 8, 8, 1))
    found = augment.cutout(images, jax.random.key(0), share=0.0, pixels=pixels)
    np.testing.assert_array_equal(found, images)


class RefusalTest(parameterized.TestCase):
  @parameterized.parameters(
    'randaugment', 'randaugment:0', 'randaugment:x', 'cutout:1.5', 'cutout:'
  )
  def test_wrong_values(self, steps):
    with self.assertRaisesRegex(errors.UserError, 'is none of .*OPERATIONS'):
      augment.build(steps, pixels=lambda: augment.Pixels(None, None))

  @parameterized.parameters('randaugment:2', 'cutout:0.5')
  def test_features(self, steps):
    pixels = augment.Pixels(lambda x: x, lambda x: x)
    view = augment.build(steps, pixels=lambda: pixels)
    with self.assertRaisesRegex(errors.UserError, 'these are features: leave'):
      view(jnp.ones((2, 1, 1, 5)), jax.random.key(0))

  def test_points_do_not_follow(self):
    pixels = augment.Pixels(lambda x: x, lambda x: x)
    with self.assertRaisesRegex(errors.UserError, 'points do not follow rand'):
      augment.build_moving('randaugment:2', pixels=lambda: pixels)


class BenchTest(parameterized.TestCase):
  def test_measures_both(self):
    path = pathlib.Path(tempfile.mkdtemp()) / 'x.json'
    self.addCleanup(shutil.rmtree, path.parent)
    with mock.patch.object(augmentation, '_ROUNDS', 2):
      bench.main(['--randaugment=4', '--image=24x16x3', f'--json={path}'])
    content = json.loads(path.read_text())
    (one,) = content['images'].values()
    self.assertGreater(min(one.values()), 0.0)

  @parameterized.parameters(
    (['--randaugment=-1'], 'at least one image'),
    (['--randaugment=4', '--image=8x8x2'], 'of 1 or 3 channels'),
    (['--randaugment=4', '--steps=3'], '--randaugment ignores --steps'),
  )
  def test_wrong_options(self, words, message):
    with self.assertRaisesRegex(errors.UserError, message):
      bench.main(words)


if __name__ == '__main__':
  absltest.main()
