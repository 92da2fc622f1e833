"""Views: whole images mirrored, moved by reflection, noisy; none when judged.
"""

import collections
import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nsl_jax import errors
from nsl_jax import models
from nsl_jax.data import augment
from nsl_jax.methods import supervised
from nsl_jax.types import Tools


def setUpModule():
  # Compiling takes most of the time of these tests.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def noise_images(count, side, channels, seed=0):
  """Images of which no two crops are alike."""
  rng = np.random.default_rng(seed)
  return rng.normal(size=(count, side, side, channels)).astype(np.float32)


def view(steps, images, seed=0):
  return np.asarray(jax.jit(augment.build(steps))(images, jax.random.key(seed)))


def reflected(image, pixels):
  """Reflect padding by a loop: the border itself is not repeated."""
  side = len(image)
  at = [abs(i) if i < side else 2 * (side - 1) - i
        for i in range(-pixels, side + pixels)]
  return image[at][:, at]


def find_crop(image, found, pixels):
  """The offsets at which `found` was cut out of the padded image, or None."""
  padded, side = reflected(image, pixels), len(image)
  for row in range(2 * pixels + 1):
    for column in range(2 * pixels + 1):
      if np.array_equal(padded[row:row + side, column:column + side], found):
        return row, column
  return None


class FlipTest(parameterized.TestCase):

  @parameterized.parameters((8, 1), (28, 1), (32, 3), (96, 3))
  def test_mirrors_whole_images(self, side, channels):
    images = noise_images(40, side, channels)
    mirrored = 0
    for before, after in zip(images, view('flip', images)):
      if not np.array_equal(before, after):
        np.testing.assert_array_equal(after, before[:, ::-1])
        mirrored += 1
    self.assertBetween(mirrored, 1, 39)

  def test_half_of_them_independently(self):
    images = noise_images(4000, 2, 1)
    changed = (view('flip', images) != images).any((1, 2, 3))
    self.assertAlmostEqual(changed.mean(), 0.5, delta=4.5 * 0.5 / 4000**0.5)
    together = (changed[1:] & changed[:-1]).mean()
    self.assertAlmostEqual(together, 0.25, delta=0.04)


class TranslateTest(parameterized.TestCase):

  @parameterized.parameters(
      (8, 1, 1), (8, 3, 7), (28, 1, 2), (32, 3, 2), (32, 3, 4), (96, 3, 12)
  )
  def test_equals_loop(self, side, channels, pixels):
    images = noise_images(6, side, channels)
    moved = view(f'translate:{pixels}', images)
    self.assertEqual(moved.dtype, np.float32)
    offsets = [find_crop(*pair, pixels) for pair in zip(images, moved)]
    self.assertNotIn(None, offsets)
    self.assertGreater(len(set(offsets)), 1)

  @parameterized.parameters(1, 2)
  def test_offsets_are_uniform(self, pixels):
    # An image that names its offset: its centre is known after any move.
    rows, columns = np.mgrid[:9, :9].astype(np.float32)
    images = np.broadcast_to(
        np.stack([rows, columns], -1), (5000, 9, 9, 2)
    )
    moves = view(f'translate:{pixels}', images)[:, 4, 4] - 4
    found = collections.Counter(map(tuple, moves.astype(int).tolist()))
    reach = range(-pixels, pixels + 1)
    cells = len(reach) ** 2
    self.assertEqual(set(found), {(r, c) for r in reach for c in reach})
    expected = 5000 / cells
    error = (expected * (1 - 1 / cells)) ** 0.5
    np.testing.assert_allclose(
        list(found.values()), expected, atol=4.5 * error
    )

  def test_by_nothing(self):
    images = noise_images(3, 8, 1)
    np.testing.assert_array_equal(view('translate:0', images), images)

  @parameterized.parameters(8, 40)
  def test_too_far(self, pixels):
    with self.assertRaisesRegex(errors.UserError, r'translate:\d+ is too far'):
      view(f'translate:{pixels}', noise_images(2, 8, 1))


class NoiseTest(parameterized.TestCase):

  @parameterized.parameters((0.15, 3), (2.0, 1))
  def test_moments(self, std, channels):
    images = noise_images(60, 32, channels)
    added = view(f'noise:{std}', images) - images
    error = std / added.size**0.5
    self.assertAlmostEqual(added.mean(), 0, delta=4.5 * error)
    self.assertAlmostEqual(added.std(), std, delta=4.5 * error)
    flat = added.reshape(60, -1)
    self.assertLess(np.abs(np.corrcoef(flat)[~np.eye(60, dtype=bool)]).max(),
                    6 / flat.shape[1]**0.5)

  def test_of_nothing(self):
    images = noise_images(3, 8, 1)
    np.testing.assert_array_equal(view('noise:0', images), images)


class BuildTest(parameterized.TestCase):

  @parameterized.parameters('', ' ', ',')
  def test_none(self, steps):
    images = noise_images(3, 8, 1)
    np.testing.assert_array_equal(view(steps, images), images)

  def test_order(self):
    # Noise that is moved repeats at the border; noise added later does not.
    blank = np.zeros((20, 8, 8, 1), np.float32)
    moved_last = view('noise:1,translate:3', blank)
    moved_first = view('translate:3,noise:1', blank)
    distinct = lambda image: len(np.unique(image))
    self.assertLess(min(map(distinct, moved_last)), 64)
    self.assertEqual(min(map(distinct, moved_first)), 64)

  def test_steps_draw_apart(self):
    # With one key for both, every image would be mirrored twice or never.
    images = noise_images(60, 8, 1)
    changed = (view('flip,flip', images) != images).any((1, 2, 3))
    self.assertBetween(changed.sum(), 10, 50)

  def test_key_decides(self):
    images = noise_images(8, 8, 3)
    steps = 'flip, translate:2, noise:0.15'
    one, same = view(steps, images), view(steps, images)
    np.testing.assert_array_equal(one, same)
    self.assertFalse(np.array_equal(one, view(steps, images, seed=1)))

  @parameterized.parameters(
      'fliip', 'flip:2', 'flip:', 'translate', 'translate:', 'translate:1.5',
      'translate:-1', 'noise', 'noise:x', 'noise:-0.1', 'noise:nan',
      'noise:inf', 'flip;noise:1',
  )
  def test_unknown(self, step):
    with self.assertRaisesRegex(
        errors.UserError, 'config.data.augment: .* is none of flip, '
    ) as e:
      augment.build(f'flip,{step}')
    self.assertIn(repr(step), str(e.exception))
    self.assertNotIn('\n', str(e.exception))


class InvariantTest(parameterized.TestCase):

  # Digits and house numbers are not what they are once mirrored.
  @parameterized.parameters(
      ('translate:1', 8, 1), ('translate:2', 32, 3), ('translate:4', 32, 3)
  )
  def test_never_mirrors(self, steps, side, channels):
    pixels = int(steps.partition(':')[2])
    images = noise_images(100, side, channels)
    for seed in range(3):
      for before, after in zip(images, view(steps, images, seed)):
        self.assertIsNotNone(find_crop(before, after, pixels))

  def test_evaluation_makes_no_view(self):
    def forbidden(images, key):
      raise AssertionError('a view was made')

    tools = Tools(
        model=models.build({'name': 'small_cnn', 'batch_norm': True}, 4),
        tx=optax.sgd(0.1), augment=forbidden, image_shape=(8, 8, 1),
    )
    method = supervised.build(tools, terms={})
    state = jax.jit(method.init)(jax.random.key(0))
    predict = jax.jit(functools.partial(method.predict, state))
    images = jnp.asarray(noise_images(5, 8, 1))
    np.testing.assert_array_equal(predict(images), predict(images))


if __name__ == '__main__':
  absltest.main()
