"""MNIST digits drawn at random places and sizes, with known points."""

import numpy as np

SIDE = 44  # side of the canvas, the smallest input of the landmark network
# MNIST scales a digit's ink to 20x20 and centers its center of mass in 28x28.
# The points belong to the middle 20x20, beyond which the ink may reach.
_FRAME, _BOX = 28, 20
_SCALES = (0.6, 1.2)
_MARGIN = 4.0  # around the box, so that a shift by 4 pixels does not cut it
# Offsets from the center of the box in half sides: upper left, upper right
# (their distance is the unit of errors), center, lower left, lower right.
_PLACES = np.array([[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]])


def scatter(images: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws each image of MNIST once, with bilinear resampling, on a canvas.

  The points belong to a 20x20 box around a digit's center of mass, not to its
  ink, since the width of a narrow digit is too small a unit for errors.

  Args:
    images: u8[N, 28, 28, 1].
    seed: seed of places and sizes.

  Returns:
    u8[N, 44, 44, 1], and f32[N, 10] with x and y of the five points in pixels.
  """
  from PIL import Image

  rng = np.random.default_rng(seed)
  scale = rng.uniform(*_SCALES, len(images))
  half = scale * _BOX / 2
  free = (SIDE - 2 * (half + _MARGIN))[:, None]
  center = (half + _MARGIN)[:, None] + free * rng.random((len(images), 2))
  corner = center - scale[:, None] * _FRAME / 2
  images_out = np.empty((len(images), SIDE, SIDE, 1), np.uint8)
  for row, image in enumerate(images[..., 0]):
    step, (x, y) = 1 / scale[row], -corner[row] / scale[row]
    images_out[row, ..., 0] = np.asarray(
      Image.fromarray(image).transform(
        (SIDE, SIDE),
        Image.Transform.AFFINE,
        (step, 0, x, 0, step, y),
        resample=Image.Resampling.BILINEAR,
      )
    )
  points = center[:, None] + half[:, None, None] * _PLACES[None]
  return images_out, points.reshape(len(images), -1).astype(np.float32)
