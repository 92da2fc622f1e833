"""Pictures of every mode, size and orientation as images of one form."""

import functools
import io

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image, ImageOps

from nsl_jax.data import resize
from nsl_jax.data.resize import Form


def encoded(picture, kind, **options):
  file = io.BytesIO()
  picture.save(file, kind, **options)
  file.seek(0)
  return file


def gradient(width, height):
  """RGB: red grows to the right, green downwards."""
  values = np.zeros((height, width, 3), np.uint8)
  values[..., 0] = np.linspace(0, 255, width)[None]
  values[..., 1] = np.linspace(0, 255, height)[:, None]
  return Image.fromarray(values)


class FormTest(parameterized.TestCase):
  def test_the_same_size_is_kept_as_it_is(self):
    picture = gradient(8, 8)
    found = resize.read(encoded(picture, 'PNG'), Form(8, 8, 3))
    np.testing.assert_array_equal(found.values, np.asarray(picture))
    self.assertEqual(found.facts, ())
    self.assertEqual(found.placement, (1.0, 1.0, 0.0, 0.0))

  def test_crop_shows_the_middle(self):
    found = resize.read(encoded(gradient(40, 20), 'PNG'), Form(10, 10, 3))
    # The middle half of the row: from 0.25 to 0.75 of 255, in steps of 2 pixels
    # of the picture; the first pixel shows the mean of columns 10 and 11.
    row = found.values[5, :, 0]
    np.testing.assert_allclose(row[[0, -1]], [68.6, 186.3], atol=2)
    self.assertEqual(found.placement, (2.0, 2.0, 10.0, 0.0))

  def test_pad_shows_all(self):
    found = resize.read(
      encoded(gradient(40, 20), 'PNG'), Form(10, 10, 3, 'pad')
    )
    np.testing.assert_array_equal(found.values[:2], resize.PADDING)
    np.testing.assert_array_equal(found.values[7:], resize.PADDING)
    np.testing.assert_allclose(found.values[5, [0, -1], 0], [10, 245], atol=5)
    self.assertEqual(found.placement, (4.0, 4.0, 0.0, -8.0))

  @parameterized.parameters(28, 50, 100, 200, 224, 300)
  def test_no_size_rounds_out_of_the_picture(self, side):
    for width, height in ((600, 450), (723, 471), (450, 600), (471, 723)):
      for divided in (1, 3):
        values = np.zeros((height // divided, width // divided, 1), np.uint8)
        form = Form(side, side, 1)
        image, placement = resize._place(values, (width, height), form)
        self.assertEqual(image.shape, form.shape)
        self.assertEqual(min(placement.left, placement.top), 0.0)

  @parameterized.parameters((345, 266, 64), (95, 213, 128), (40, 21, 10))
  def test_as_by_the_functions_of_pillow(self, width, height, side):
    """By which the page on exported programs makes inputs."""
    picture = gradient(width, height)
    for fit, make in (
      ('crop', ImageOps.fit),
      ('pad', functools.partial(ImageOps.pad, color=(resize.PADDING,) * 3)),
    ):
      found = resize.fit(picture, Form(side, side, 3, fit))
      wanted = make(picture, (side, side), Image.Resampling.BICUBIC)
      np.testing.assert_array_equal(found.values, np.asarray(wanted))

  @parameterized.product(fit=resize.FITS, size=((40, 20), (13, 29)))
  def test_points_go_back_to_the_picture(self, fit, size):
    width, height = size
    values = np.zeros((height, width), np.uint8)
    x, y = width // 2 - 1, height // 2 + 2
    values[y - 1 : y + 2, x - 1 : x + 2] = 255
    found = resize.fit(Image.fromarray(values), Form(12, 12, 1, fit))
    seen = found.values[..., 0].astype(float)
    if fit == 'pad':
      seen = np.where(seen == resize.PADDING, 0, seen)
    total = seen.sum()
    column, row = (seen.sum(0), seen.sum(1))
    center = np.array([column @ np.arange(12), row @ np.arange(12)]) / total
    np.testing.assert_allclose(
      found.placement.to_picture(center), [x, y], atol=0.4
    )

  def test_smaller_pictures_are_enlarged_and_counted(self):
    found = resize.read(encoded(gradient(4, 4), 'PNG'), Form(8, 8, 3))
    self.assertEqual(found.values.shape, (8, 8, 3))
    self.assertEqual(found.facts, ('enlarged',))
    for fit, facts in ('crop', ('enlarged',)), ('pad', ()):
      flat = resize.read(encoded(gradient(16, 4), 'PNG'), Form(8, 8, 3, fit))
      self.assertEqual(flat.facts, facts)

  def test_thumbnails_keep_the_shape_and_the_modes(self):
    deep = np.linspace(0, 65535, 640 * 320).astype(np.uint16).reshape(320, 640)
    found = resize.thumbnail(encoded(Image.fromarray(deep), 'PNG'))
    self.assertEqual(found.size, (320, 160))
    self.assertEqual(found.mode, 'RGB')
    self.assertBetween(np.asarray(found).mean(), 120, 135)  # not clipped
    small = resize.thumbnail(encoded(gradient(8, 4), 'PNG'))
    np.testing.assert_array_equal(np.asarray(small), np.asarray(gradient(8, 4)))


class ModesTest(parameterized.TestCase):
  @parameterized.parameters(
    ('1', 'PNG'), ('L', 'PNG'), ('LA', 'PNG'), ('P', 'GIF'), ('RGB', 'BMP'),
    ('RGBA', 'WEBP'), ('CMYK', 'JPEG'), ('CMYK', 'TIFF'), ('RGB', 'TIFF'),
    ('L', 'JPEG'), ('RGB', 'PPM'),
  )  # fmt: skip
  def test_every_mode_is_read(self, mode, kind):
    value = 255 if mode == '1' else 200
    picture = Image.new('L', (16, 16), value).convert('RGB').convert(mode)
    for channels in (1, 3):
      found = resize.read(encoded(picture, kind), Form(8, 8, channels))
      self.assertEqual(found.values.shape, (8, 8, channels))
      np.testing.assert_allclose(found.values, value, atol=8)

  def test_16_bits_are_scaled_and_not_clipped(self):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    file = encoded(Image.fromarray(values), 'PNG')
    found = resize.read(file, Form(8, 8, 1))
    np.testing.assert_allclose(found.values[..., 0], values / 257, atol=0.51)
    self.assertEqual(found.facts, ('scaled',))

  def test_transparent_pixels_are_white(self):
    picture = Image.new('RGBA', (8, 8), (255, 0, 0, 0))
    found = resize.read(encoded(picture, 'PNG'), Form(8, 8, 3))
    np.testing.assert_array_equal(found.values, 255)
    self.assertEqual(found.facts, ('composited',))

  def test_color_becomes_gray_and_is_counted(self):
    found = resize.read(encoded(gradient(8, 8), 'PNG'), Form(8, 8, 1))
    self.assertEqual(found.facts, ('grayed',))

  @parameterized.parameters(range(1, 9))
  def test_exif_orientation(self, orientation):
    upright = gradient(24, 12)
    back = {
      2: [Image.Transpose.FLIP_LEFT_RIGHT],
      3: [Image.Transpose.ROTATE_180],
      4: [Image.Transpose.FLIP_TOP_BOTTOM],
      5: [Image.Transpose.TRANSPOSE],
      6: [Image.Transpose.ROTATE_90],
      7: [Image.Transpose.TRANSVERSE],
      8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in back.get(orientation, []):
      stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(stored, 'PNG', exif=exif.tobytes())
    found = resize.read(file, Form(12, 12, 3, 'pad'))
    plain = resize.read(encoded(upright, 'PNG'), Form(12, 12, 3, 'pad'))
    np.testing.assert_array_equal(found.values, plain.values)
    self.assertEqual(found.placement, plain.placement)

  @parameterized.parameters(*range(1, 9))
  def test_a_turned_tiff_is_as_a_turned_png(self, orientation):
    """Pillow itself turns a TIFF when it is read."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    form = Form(8, 6, 3)
    found, wanted = (
      resize.read(encoded(gradient(40, 20), kind, exif=exif), form)
      for kind in ('TIFF', 'PNG')
    )
    np.testing.assert_array_equal(found.values, wanted.values)
    self.assertEqual(found.placement, wanted.placement)

  def test_damaged_exif_is_no_orientation(self):
    file = encoded(gradient(8, 8), 'JPEG', exif=b'Exif\0\0junk')
    found = resize.read(file, Form(8, 8, 3))
    self.assertEqual(found.values.shape, (8, 8, 3))

  def test_an_animation_shows_its_first_frame(self):
    frames = [Image.new('L', (8, 8), value) for value in (50, 200)]
    file = encoded(frames[0], 'GIF', save_all=True, append_images=frames[1:])
    found = resize.read(file, Form(8, 8, 1))
    np.testing.assert_allclose(found.values, 50, atol=1)
    self.assertEqual(found.facts, ('first_frame',))

  def test_a_large_jpeg_is_near_its_whole_decoding(self):
    picture = gradient(900, 600)
    form = Form(32, 32, 3)
    draft = resize.read(encoded(picture, 'JPEG', quality=95), form)
    whole = resize.fit(picture, form)
    np.testing.assert_allclose(
      draft.values.astype(int), whole.values.astype(int), atol=6
    )
    self.assertEqual(draft.placement, whole.placement)


class DamageTest(parameterized.TestCase):
  @parameterized.parameters(
    (b'', 'no image'), (b'junk', 'no image of a known format')
  )
  def test_no_image(self, content, words):
    with self.assertRaisesRegex(ValueError, words):
      resize.read(io.BytesIO(content), Form(8, 8, 3))

  @parameterized.parameters('PNG', 'JPEG', 'GIF', 'TIFF')
  def test_half_a_file(self, kind):
    content = encoded(gradient(64, 64), kind).getvalue()
    with self.assertRaises(ValueError) as caught:
      resize.read(io.BytesIO(content[: len(content) // 2]), Form(8, 8, 3))
    self.assertNotIn('\n', str(caught.exception))

  def test_no_file(self):
    with self.assertRaisesRegex(ValueError, 'No such file'):
      resize.read('/gone/away.png', Form(8, 8, 3))

  def test_floats(self):
    file = encoded(Image.new('F', (8, 8)), 'TIFF')
    with self.assertRaisesRegex(ValueError, 'floating-point'):
      resize.read(file, Form(8, 8, 1))


if __name__ == '__main__':
  absltest.main()
