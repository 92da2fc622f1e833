"""Folders of pictures for the tests of a user's own images."""

import pathlib

import numpy as np
from PIL import Image

CLASSES = ('cat', 'dog', 'owl')


def picture(k, seed, size=(12, 12)):
  """A noisy picture whose brightest third is the upper, middle or lower one."""
  width, height = size
  rng = np.random.default_rng(seed)
  values = rng.integers(0, 80, (height, width, 3))
  third = height // 3
  values[k * third : (k + 1) * third] += 150
  return Image.fromarray(values.astype(np.uint8))


def save(image, path):
  """Writes a picture, with the folders that it is in."""
  path.parent.mkdir(parents=True, exist_ok=True)
  image.save(path)
  return path


def make(
  folder, *, labeled=4, unlabeled=9, test=2, validation=0, size=(12, 12)
):
  """A folder with so many images of each class, PNG files.

  Returns:
    The folder.
  """
  folder = pathlib.Path(folder)
  seed = 0
  parts = {'labelled': labeled, 'test': test, 'validation': validation}
  for part, number in parts.items():
    for k, name in enumerate(CLASSES):
      for i in range(number):
        seed += 1
        save(picture(k, seed, size), folder / part / name / f'{i}.png')
  for i in range(unlabeled):
    seed += 1
    save(picture(i % 3, seed, size), folder / 'unlabelled' / f'{i}.png')
  return folder
