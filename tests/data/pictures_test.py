"""Every mode of Pillow's as uint8 pixels, against values found by hand."""

import io
import struct
import zlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from nsl_jax.data import pictures

# Pillow's luma of (r, g, b): (19595 r + 38470 g + 7471 b + 32768) >> 16.
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
LUMA = [76, 150, 29]


def row(mode, values, **info):
  """A picture of one row of pixels."""
  picture = Image.new(mode, (len(values), 1))
  picture.putdata(values)
  picture.info.update(info)
  return picture


def palette(indices, mode='P', **info):
  """The same of red, green, blue and black."""
  picture = row('P', indices, **info)
  picture.putpalette([*RED, *GREEN, *BLUE, 0, 0, 0])
  return picture.convert(mode) if mode != 'P' else picture


def file_of(picture, kind='png', **options):
  file = io.BytesIO()
  picture.save(file, format=kind, **options)
  return file.getvalue()


def deep_colors(values, kind):
  """A PNG file of one row of pixels with 16 bits; kind 2 is RGB, 6 RGBA."""

  def chunk(name, content):
    code = zlib.crc32(name + content)
    return (
      struct.pack('>I', len(content)) + name + content + struct.pack('>I', code)
    )

  header = struct.pack('>IIBBBBB', len(values), 1, 16, kind, 0, 0, 0)
  content = b'\0' + np.array(values, '>u2').tobytes()
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n',
      chunk(b'IHDR', header),
      chunk(b'IDAT', zlib.compress(content)),
      chunk(b'IEND', b''),
    ]
  )


def deep(values, mode):
  """Gray numbers in a mode of more than 8 bits."""
  kinds = {'I;16': '<u2', 'I;16B': '>u2', 'I': '<i4', 'F': '<f4'}
  content = np.array(values, kinds[mode]).tobytes()
  return Image.frombytes(mode, (len(values), 1), content)


class ModeTest(parameterized.TestCase):
  def assert_pixels(self, picture, gray, color, facts=()):
    for channels, expected in ((1, gray), (3, color)):
      found = pictures.pixels(picture, channels)
      self.assertEqual(found.values.shape, (1, len(expected), channels))
      self.assertEqual(found.values.dtype, np.uint8)
      np.testing.assert_array_equal(
        found.values[0], np.reshape(expected, (-1, channels))
      )
      self.assertEqual(found.facts, facts)

  def test_1(self):
    self.assert_pixels(
      row('1', [0, 255]), [0, 255], [(0, 0, 0), (255, 255, 255)]
    )

  def test_l(self):
    self.assert_pixels(
      row('L', [0, 7, 255]), [0, 7, 255], [(0,) * 3, (7,) * 3, (255,) * 3]
    )

  def test_rgb(self):
    colors = [RED, GREEN, BLUE]
    self.assert_pixels(row('RGB', colors), LUMA, colors)

  def test_p(self):
    self.assert_pixels(palette([0, 1, 2]), LUMA, [RED, GREEN, BLUE])

  def test_cmyk(self):
    """Each ink takes its share of what black leaves of white."""
    colors = [(0, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 155)]
    self.assert_pixels(
      row('CMYK', colors), [255, 76, 100], [(255,) * 3, RED, (100,) * 3]
    )

  def test_ycbcr(self):
    """Gray is Y; with Cr 133 red is 1.402 * 5 more, green 0.714 * 5 less."""
    picture = row('YCbCr', [(90, 128, 128), (100, 128, 133)])
    self.assert_pixels(picture, [90, 100], [(90,) * 3, (107, 96, 100)])

  # 0.2 * 60 + 0.8 * 255 = 216 at alpha 51; of 255 at any alpha 255.
  def test_la(self):
    picture = row('LA', [(60, 255), (60, 51), (60, 0), (255, 10)])
    gray = [60, 216, 255, 255]
    self.assert_pixels(picture, gray, [(v,) * 3 for v in gray], ('composited',))

  def test_rgba(self):
    """At alpha 51, red is (255, 204, 204): luma 219.2."""
    picture = row('RGBA', [(*RED, 255), (*RED, 51), (*BLUE, 0)])
    self.assert_pixels(
      picture,
      [76, 219, 255],
      [RED, (255, 204, 204), (255,) * 3],
      ('composited',),
    )

  def test_opaque_is_not_counted(self):
    self.assert_pixels(row('RGBA', [(*RED, 255)]), [76], [RED])
    self.assert_pixels(row('LA', [(9, 255)]), [9], [(9,) * 3])
    self.assert_pixels(palette([0, 1], transparency=3), LUMA[:2], [RED, GREEN])

  def test_p_with_transparency(self):
    white = (255, 255, 255)
    self.assert_pixels(
      palette([0, 1, 2], transparency=1),
      [76, 255, 29],
      [RED, white, BLUE],
      ('composited',),
    )
    alphas = bytes([255, 0, 51])  # of the entries of the palette
    self.assert_pixels(
      palette([0, 1, 2], transparency=alphas),
      [76, 255, 210],
      [RED, white, (204, 204, 255)],
      ('composited',),
    )

  def test_pa(self):
    picture = palette([0, 1], 'PA')
    picture.putalpha(row('L', [255, 51]))
    self.assertEqual(picture.mode, 'PA')
    # Green: (204, 255, 204), luma 233.9.
    self.assert_pixels(
      picture, [76, 234], [RED, (204, 255, 204)], ('composited',)
    )

  @parameterized.parameters(
    ('1', 0, 255, 0), ('L', 7, 9, 7), ('RGB', RED, BLUE, RED)
  )
  def test_one_transparent_value(self, mode, hidden, shown, key):
    picture = row(mode, [hidden, shown], transparency=key)
    values = pictures.pixels(picture, 3)
    np.testing.assert_array_equal(values.values[0, 0], 255)
    np.testing.assert_array_equal(values.values[0, 1], shown)
    self.assertEqual(values.facts, ('composited',))

  @parameterized.parameters('I;16', 'I;16B', 'I')
  def test_16_bits(self, mode):
    # 128 / 257 is below a half, 129 / 257 above; 51400 is 200 * 257.
    picture = deep([0, 128, 129, 257, 51400, 65535], mode)
    gray = [0, 0, 1, 1, 200, 255]
    self.assert_pixels(picture, gray, [(v,) * 3 for v in gray], ('scaled',))

  def test_16_bits_of_which_few_are_used(self):
    facts = [
      pictures.pixels(deep([0, high], 'I;16'), 1).facts
      for high in (0, 4095, 4096)
    ]
    self.assertEqual(facts, [('scaled',), ('scaled', 'dark'), ('scaled',)])

  def test_16_bits_with_a_transparent_value(self):
    picture = deep([300, 51400], 'I;16')
    picture.info['transparency'] = 300
    self.assert_pixels(
      picture, [255, 200], [(255,) * 3, (200,) * 3], ('composited', 'scaled')
    )

  @parameterized.parameters(
    ([0, 65536], r'\[0, 65536\]'), ([-1, 5], r'\[-1, 5\]')
  )
  def test_other_32_bits(self, values, what):
    with self.assertRaisesRegex(ValueError, rf'lie in {what} \(mode I\)'):
      pictures.pixels(deep(values, 'I'), 1)

  def test_f(self):
    with self.assertRaisesRegex(ValueError, r'numbers \(mode F\).* 8 or 16'):
      pictures.pixels(deep([0.0, 0.5], 'F'), 1)


class FileTest(parameterized.TestCase):
  def test_16_bit_png(self):
    picture = Image.fromarray(np.array([[0, 257, 25700, 65535]], np.uint16))
    found = pictures.decode(file_of(picture), 1)
    np.testing.assert_array_equal(found.values[0, :, 0], [0, 1, 100, 255])
    self.assertEqual(found.facts, ('scaled',))

  def test_colors_of_16_bits(self):
    """Pillow keeps the upper 8 bits; 51 of 255 shows a fifth."""
    content = deep_colors([(25700, 0, 65535)], 2)
    found = pictures.decode(content, 3)
    np.testing.assert_array_equal(found.values, [[[100, 0, 255]]])
    self.assertEqual(found.facts, ('scaled',))
    content = deep_colors([(25700, 0, 65535, 51 * 257)], 6)
    found = pictures.decode(content, 3)
    np.testing.assert_array_equal(found.values, [[[224, 204, 255]]])
    self.assertEqual(found.facts, ('composited', 'scaled'))

  @parameterized.parameters(
    (row('L', [7, 9]), 7),
    (row('1', [0, 255]), 0),
    (palette([1, 0]), 1),
    (row('RGB', [GREEN, RED]), GREEN),
    (Image.fromarray(np.array([[300, 51400]], np.uint16)), 300),
  )
  def test_png_with_a_transparent_value(self, picture, hidden):
    found = pictures.decode(file_of(picture, transparency=hidden), 1)
    self.assertEqual(found.values[0, 0, 0], 255)
    self.assertEqual(found.facts[0], 'composited')
    plain = pictures.decode(file_of(picture), 1)
    self.assertNotIn('composited', plain.facts)
    self.assertEqual(found.values[0, 1, 0], plain.values[0, 1, 0])

  def test_a_picture_beyond_the_limit_of_pillow_is_not_called_damaged(self):
    self.enterContext(mock.patch.object(Image, 'MAX_IMAGE_PIXELS', 10**6))
    content = file_of(Image.new('1', (1500, 1500)))
    message = '^more than 2 megapixels: make it smaller$'
    with self.assertRaisesRegex(ValueError, message):
      pictures.decode(content, 1)

  def test_unknown_format_has_no_address(self):
    with self.assertRaises(ValueError) as caught:
      pictures.decode(b'hello', 1)
    self.assertEqual(str(caught.exception), 'no image of a known format')

  def test_no_damage_raises_another_error(self):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    for kind in ('png', 'jpeg', 'gif'):
      whole = file_of(Image.fromarray(pixels), kind)
      with self.assertRaises(ValueError):
        pictures.decode(whole[: len(whole) // 2], 3)
      for _ in range(60):
        content = bytearray(whole)
        content[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        try:
          pictures.decode(bytes(content), 3)
        except ValueError as error:
          self.assertNotRegex(str(error), 'object at|\n')

  def test_words_for_counts(self):
    counts = {'composited': 1200, 'scaled': 1}
    self.assertEqual(
      pictures.counted(counts),
      [
        '1,200 images with transparency composited on white',
        '1 image of 16 bits scaled to 8',
      ],
    )
    self.assertEqual(pictures.counted({'composited': 0}), [])


if __name__ == '__main__':
  absltest.main()
