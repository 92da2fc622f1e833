"""Digits at a random place and size: the points are where the digit is."""

import pathlib
import tempfile

import numpy as np
import tfds_fixtures
from absl.testing import absltest, parameterized

from nsl_jax.data import sources
from nsl_jax.data.datasets import points


def boxes(count):
  """Images of which the middle 20x20 is white."""
  images = np.zeros((count, 28, 28, 1), np.uint8)
  images[:, 4:24, 4:24] = 255
  return images


class ScatterTest(parameterized.TestCase):
  def test_the_box_is_between_its_points(self):
    drawn, found = points.scatter(boxes(40), seed=3)
    self.assertEqual((drawn.shape, drawn.dtype), ((40, 44, 44, 1), np.uint8))
    self.assertEqual((found.shape, found.dtype), ((40, 10), np.float32))
    for image, (x0, y0, x1, y1, x2, y2, x3, y3, x4, y4) in zip(drawn, found):
      columns = np.flatnonzero(image[..., 0].max(0) > 127)
      rows = np.flatnonzero(image[..., 0].max(1) > 127)
      # Pixel i reaches from i to i + 1.
      np.testing.assert_allclose(
        [columns[0], columns[-1] + 1, rows[0], rows[-1] + 1],
        [x0, x1, y0, y3],
        atol=0.51,
      )
      np.testing.assert_allclose([x3, x4, y1, y4], [x0, x1, y0, y3], rtol=1e-5)
      np.testing.assert_allclose(
        [x2, y2], [(x0 + x1) / 2, (y0 + y3) / 2], rtol=1e-5
      )
      np.testing.assert_allclose(x1 - x0, y3 - y0, rtol=1e-4)

  def test_sizes_and_places_vary_within_the_canvas(self):
    _, found = points.scatter(boxes(500), seed=0)
    side = found[:, 2] - found[:, 0]
    self.assertBetween(side.min(), 12.0, 12.2)
    self.assertBetween(side.max(), 23.8, 24.0)
    self.assertGreaterEqual(found.min(), 4.0 - 1e-4)
    self.assertLessEqual(found.max(), 40.0 + 1e-4)
    self.assertLess(np.abs(np.corrcoef(found[:, 4], found[:, 5])[0, 1]), 0.15)

  def test_the_seed_decides(self):
    first, second_pass, other = (
      points.scatter(boxes(5), seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first[0], second_pass[0])
    np.testing.assert_array_equal(first[1], second_pass[1])
    self.assertGreater(np.abs(first[1] - other[1]).max(), 1.0)


class SourceTest(absltest.TestCase):
  def test_made_of_mnist(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    pairs = {
      name: tfds_fixtures.random_split(count, (28, 28, 1), 10, seed=count)
      for name, count in (('train', 9), ('test', 4))
    }
    tfds_fixtures.write(folder / 'data', 'mnist', pairs, 10)
    found = sources.load(
      'mnist_points', folder / 'data', cache_dir=folder / 'cache'
    )
    self.assertEqual(
      (found.name, found.num_classes, found.outputs), ('mnist_points', 0, 10)
    )
    for arrays, count in ((found.train, 9), (found.test, 4)):
      self.assertEqual(arrays.images.shape, (count, 44, 44, 1))
      self.assertEqual(arrays.labels.shape, (count, 10))
    drawn, _ = points.scatter(pairs['train'][0], seed=0)
    np.testing.assert_array_equal(found.train.images, drawn)


if __name__ == '__main__':
  absltest.main()
