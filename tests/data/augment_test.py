"""Views: whole images mirrored, moved by reflection, noisy."""

import collections
import colorsys
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from PIL import Image, ImageEnhance

from nsl_jax import errors, models
from nsl_jax.data import augment, normalize
from nsl_jax.methods import supervised
from nsl_jax.types import Components


def noise_images(count, side, channels, seed=0):
  """Images of which no two crops are alike."""
  rng = np.random.default_rng(seed)
  return rng.normal(size=(count, side, side, channels)).astype(np.float32)


def view(steps, images, seed=0):
  return np.asarray(jax.jit(augment.build(steps))(images, jax.random.key(seed)))


def reflected(image, pixels):
  """Reflect padding by a loop: the border itself is not repeated."""
  side = len(image)
  at = [
    abs(i) if i < side else 2 * (side - 1) - i
    for i in range(-pixels, side + pixels)
  ]
  return image[at][:, at]


def find_crop(image, found, pixels):
  """The offsets at which `found` was cut out of the padded image, or None."""
  padded, side = reflected(image, pixels), len(image)
  for row in range(2 * pixels + 1):
    for column in range(2 * pixels + 1):
      if np.array_equal(
        padded[row : row + side, column : column + side], found
      ):
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
    # An image that names its offset: its center is known after any move.
    rows, columns = np.mgrid[:9, :9].astype(np.float32)
    images = np.broadcast_to(np.stack([rows, columns], -1), (5000, 9, 9, 2))
    moves = view(f'translate:{pixels}', images)[:, 4, 4] - 4
    found = collections.Counter(map(tuple, moves.astype(int).tolist()))
    reach = range(-pixels, pixels + 1)
    cells = len(reach) ** 2
    self.assertEqual(set(found), {(r, c) for r in reach for c in reach})
    expected = 5000 / cells
    error = (expected * (1 - 1 / cells)) ** 0.5
    np.testing.assert_allclose(list(found.values()), expected, atol=4.5 * error)

  def test_by_nothing(self):
    images = noise_images(3, 8, 1)
    np.testing.assert_array_equal(view('translate:0', images), images)

  @parameterized.parameters(8, 40)
  def test_too_far(self, pixels):
    with self.assertRaisesRegex(errors.UserError, r'translate:\d+ is too far'):
      view(f'translate:{pixels}', noise_images(2, 8, 1))


class TranslateXTest(parameterized.TestCase):
  @parameterized.parameters((32, 3, 4), (8, 1, 6))
  def test_moves_columns_only(self, side, channels, pixels):
    images = noise_images(300, side, channels)
    found = []
    for before, after in zip(images, view(f'translate_x:{pixels}', images)):
      padded = np.concatenate(
        [  # the border itself is not repeated
          before[:, pixels:0:-1],
          before,
          before[:, -2 : -2 - pixels : -1],
        ],
        1,
      )
      found += [
        at
        for at in range(2 * pixels + 1)
        if np.array_equal(padded[:, at : at + side], after)
      ]
    self.assertLen(found, 300)
    self.assertEqual(set(found), set(range(2 * pixels + 1)))
    expected = 300 / (2 * pixels + 1)
    counts = list(collections.Counter(found).values())
    np.testing.assert_allclose(counts, expected, atol=4.5 * expected**0.5)

  def test_only_the_width_limits_it(self):
    images = noise_images(4, 9, 2)[:, :3]
    self.assertEqual(view('translate_x:8', images).shape, (4, 3, 9, 2))
    with self.assertRaisesRegex(errors.UserError, 'translate_x:9 is too far'):
      view('translate_x:9', images)


def colors(count, side, seed=0):
  """Random RGB, with gray, black, white and primary pixels among them."""
  rng = np.random.default_rng(seed)
  images = rng.random((count, side, side, 3)).astype(np.float32)
  special = [
    [0.3] * 3,
    [0] * 3,
    [1] * 3,
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
    [0.6, 0.6, 0.1],
    [0.1, 0.6, 0.6],
    [0.6, 0.1, 0.6],
  ]
  images[:, 0, 0] = special[seed % len(special)]
  images.reshape(-1, 3)[1 : 1 + len(special)] = special
  return images


def by_pixel(image, which, amount):
  """One change of colors in float64, from its definition."""
  image = np.asarray(image, np.float64)
  luma = image @ [0.299, 0.587, 0.114]
  if which == 3:
    turned = np.empty_like(image)
    for at in np.ndindex(image.shape[:2]):
      hue, saturation, value = colorsys.rgb_to_hsv(*image[at])
      turned[at] = colorsys.hsv_to_rgb((hue + amount) % 1, saturation, value)
    return turned
  other = (0.0, luma.mean(), luma[..., None])[which]
  return np.clip(amount * image + (1 - amount) * other, 0, 1)


def recolor(images, amounts, order):
  return np.asarray(jax.jit(augment.recolor)(images, amounts, order))


class RecolorTest(parameterized.TestCase):
  def test_every_order(self):
    """Against colorsys, image by image, in all 24 orders."""
    orders = np.array(list(itertools.permutations(range(4))))
    images = colors(len(orders), 5)
    rng = np.random.default_rng(1)
    amounts = np.column_stack(
      [
        rng.uniform(0, 2.5, (len(orders), 3)),
        rng.uniform(-0.5, 0.5, len(orders)),
      ]
    ).astype(np.float32)
    found = recolor(images, amounts, orders)
    self.assertEqual(found.dtype, np.float32)
    for image, sizes, order, after in zip(images, amounts, orders, found):
      for which in order:
        image = by_pixel(image, which, sizes[which])
      np.testing.assert_allclose(after, image, atol=2e-5)

  @parameterized.parameters(
    (0, ImageEnhance.Brightness),
    (1, ImageEnhance.Contrast),
    (2, ImageEnhance.Color),
  )
  def test_as_pillow_in_bytes(self, which, enhance):
    images = colors(6, 8)
    for image, amount in zip(images, (0.0, 0.6, 0.95, 1.0, 1.4, 2.0)):
      whole = np.round(image * 255).astype(np.uint8)
      expected = enhance(Image.fromarray(whole)).enhance(amount)
      amounts = np.array([[1, 1, 1, 0]], np.float32)
      amounts[0, which] = amount
      found = recolor(
        whole[None] / np.float32(255), amounts, np.arange(4)[None]
      )
      # Pillow rounds gray levels, their mean and the outcome to bytes.
      np.testing.assert_allclose(
        found[0] * 255, np.asarray(expected, np.float32), atol=2.5
      )

  @parameterized.parameters(0.0, 0.1, -0.1, 0.5, -0.5, 1 / 3, 0.9)
  def test_hue(self, turns):
    image = colors(1, 12)
    found = jax.jit(augment.turn_hue)(image, jnp.full((1, 1, 1, 1), turns))
    expected = by_pixel(image[0], 3, turns)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)

  def test_a_third_of_the_circle_by_hand(self):
    red = jnp.array([1.0, 0.2, 0.2]).reshape(1, 1, 1, 3)
    turns = jnp.full((1, 1, 1, 1), 1 / 3)
    found = jax.jit(augment.turn_hue)(red, turns)
    np.testing.assert_allclose(found.ravel(), [0.2, 1.0, 0.2], atol=1e-6)

  def test_gradient_is_finite_without_color(self):
    gray = jnp.full((1, 2, 2, 3), 0.5).at[0, 0].set(0.0)
    amounts, order = jnp.array([[1.2, 0.8, 1.1, 0.1]]), jnp.arange(4)[None]
    total = lambda images: augment.recolor(images, amounts, order).sum()
    self.assertTrue(np.isfinite(jax.jit(jax.grad(total))(gray)).all())


class JitterTest(parameterized.TestCase):
  UNIT = augment.Pixels(lambda images: images, lambda images: images)

  def jitter(self, steps, images, seed, pixels=UNIT):
    view = jax.jit(augment.build(f'jitter:{steps}', pixels=lambda: pixels))
    return np.asarray(view(images, jax.random.key(seed)))

  def test_draws(self):
    strengths = (0.4, 0.2, 1.5, 0.1)
    amounts, order = augment.draw_jitter(jax.random.key(0), 24_000, strengths)
    for found, low, high in zip(
      amounts.T, (0.6, 0.8, 0.0, -0.1), (1.4, 1.2, 2.5, 0.1)
    ):
      self.assertBetween(found.min(), low, low + 1e-3 * (high - low) + 1e-6)
      self.assertBetween(found.max(), high - 1e-3 * (high - low), high + 1e-6)
      counts = np.histogram(found, bins=10, range=(low, high))[0]
      np.testing.assert_allclose(counts, 2400, atol=4.5 * 2400**0.5)
    self.assertLess(np.abs(np.corrcoef(amounts.T) - np.eye(4)).max(), 0.03)
    counts = collections.Counter(map(tuple, order.tolist()))
    self.assertEqual(set(counts), set(itertools.permutations(range(4))))
    np.testing.assert_allclose(
      list(counts.values()), 1000, atol=4.5 * 1000**0.5
    )

  def test_brightness_of_a_view(self):
    images = np.full((2000, 1, 1, 3), 0.5, np.float32)
    found = self.jitter('0.4:0:0:0', images, 3)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    self.assertBetween(found.min(), 0.3 - 1e-6, 0.302)
    self.assertBetween(found.max(), 0.698, 0.7 + 1e-6)
    self.assertAlmostEqual(found.mean(), 0.5, delta=4.5 * 0.2 / 6000**0.5)

  def test_nothing(self):
    images = colors(5, 4)
    found = self.jitter('0:0:0:0', images, 0)
    np.testing.assert_allclose(found, images, atol=1e-6)

  def test_stays_in_range_and_moves(self):
    images = colors(50, 6)
    found = self.jitter('0.4:0.4:0.4:0.1', images, 0)
    self.assertBetween(found.min(), 0.0, 0.01)
    self.assertBetween(found.max(), 0.99, 1.0)
    self.assertGreater(np.abs(found - images).mean((1, 2, 3)).min(), 0.003)

  @parameterized.parameters('unit', 'signed', 'standard')
  def test_normalized_images_go_to_colors_and_back(self, kind):
    whole = np.round(colors(20, 6) * 255).astype(np.uint8)
    fitted = normalize.fit(kind, whole)
    pixels = augment.Pixels(
      functools.partial(normalize.invert, kind, fitted),
      functools.partial(normalize.from_unit, kind, fitted),
    )
    steps = '0.4:0.4:0.4:0.1'
    found = self.jitter(steps, normalize.apply(kind, fitted, whole), 5, pixels)
    plain = self.jitter(steps, whole / np.float32(255), 5)
    np.testing.assert_allclose(
      found, normalize.from_unit(kind, fitted, plain), atol=1e-4
    )

  @parameterized.parameters(1, 4)
  def test_needs_colors(self, channels):
    steps = augment.build('jitter:0.4:0.4:0.4:0.1', pixels=lambda: self.UNIT)
    with self.assertRaisesRegex(
      errors.UserError, f'jitter needs images of 3 channels, not {channels}'
    ):
      steps(noise_images(2, 4, channels), jax.random.key(0))

  def test_needs_a_way_to_them(self):
    with self.assertRaisesRegex(
      errors.UserError, 'these images have none: leave it out'
    ):
      augment.build('jitter:0.1:0:0:0')

  def test_the_way_is_only_asked_for_where_it_is_needed(self):
    augment.build('flip,translate:2', pixels=lambda: self.fail('requested'))


class NoiseTest(parameterized.TestCase):
  @parameterized.parameters((0.15, 3), (2.0, 1))
  def test_moments(self, std, channels):
    images = noise_images(60, 32, channels)
    added = view(f'noise:{std}', images) - images
    error = std / added.size**0.5
    self.assertAlmostEqual(added.mean(), 0, delta=4.5 * error)
    self.assertAlmostEqual(added.std(), std, delta=4.5 * error)
    flat = added.reshape(60, -1)
    self.assertLess(
      np.abs(np.corrcoef(flat)[~np.eye(60, dtype=bool)]).max(),
      6 / flat.shape[1] ** 0.5,
    )

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
    'fliip',
    'flip:2',
    'flip:',
    'translate',
    'translate:',
    'translate:1.5',
    'translate:-1',
    'noise',
    'noise:x',
    'noise:-0.1',
    'noise:nan',
    'noise:inf',
    'flip;noise:1',
    'translate_x',
    'translate_x:-1',
    'translate_y:2',
    'jitter',
    'jitter:',
    'jitter:0.4',
    'jitter:1:1:1',
    'jitter:1:1:1:x',
    'jitter:1:1:1:0.6',
    'jitter:1:1:1:-0.1',
    'jitter:-1:1:1:0',
    'jitter:nan:1:1:0',
    'jitter:1:inf:1:0',
    'jitter:1:1:1:0:0',
    'jitters:1:1:1:0',
  )
  def test_unknown(self, step):
    with self.assertRaisesRegex(
      errors.UserError, 'config.data.augment: .* is none of flip, '
    ) as e:
      augment.build(f'flip,{step}')
    self.assertIn(repr(step), str(e.exception))
    self.assertNotIn('\n', str(e.exception))
    with self.assertRaisesRegex(errors.UserError, '^config.data.strong: '):
      augment.build(step, field='config.data.strong')


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

    components = Components(
      model=models.build({'name': 'small_cnn', 'batch_norm': True}, 4),
      tx=optax.sgd(0.1),
      augment=forbidden,
      image_shape=(8, 8, 1),
    )
    method = supervised.build(components, terms={})
    state = jax.jit(method.init)(jax.random.key(0))
    predict = jax.jit(functools.partial(method.predict, state))
    images = jnp.asarray(noise_images(5, 8, 1))
    self.assertEqual(predict(images).shape, (5, 4))


if __name__ == '__main__':
  absltest.main()
