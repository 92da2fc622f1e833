"""Small folders in the layouts that faces are distributed in."""

import pathlib

import numpy as np
import scipy.io
from PIL import Image
from sklearn import datasets

_PLACES = np.array([[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]])


def write(
  folder: pathlib.Path, counts: dict[str, int], *, seed: int = 0
) -> dict[str, list[np.ndarray]]:
  """Writes pictures and the lists of them.

  A picture shows one of scikit-learn's digits on gray, which is 40 to 80
  pixels wide and high, somewhere on 90 to 150 pixels; its points are the
  corners and the center of the digit. Every other one is a JPEG file.

  Args:
    folder: is made.
    counts: name of a list -> number of its lines.
    seed: of sizes and places.

  Returns:
    Name of a list -> f64[5, 2] of every picture, in fractions of its sides.
  """
  rng = np.random.default_rng(seed)
  digits = datasets.load_digits().images * (255 / 16)
  found: dict[str, list[np.ndarray]] = {}
  for name, count in counts.items():
    pictures = folder / name.removesuffix('.txt')
    pictures.mkdir(parents=True)
    lines = []
    found[name] = []
    for row in range(count):
      size = rng.integers(90, 151, 2)
      side = rng.integers(40, 81)
      center = side / 2 + rng.random(2) * (size - side)
      points = (center + side / 2 * _PLACES).clip(0, size)
      picture = Image.new('RGB', tuple(size.tolist()), (90, 90, 90))
      digit = Image.fromarray(digits[row].astype(np.uint8)).resize((side, side))
      picture.paste(digit, tuple((center - side / 2).round().astype(int)))
      file = f'picture {row}.{"jpg" if row % 2 else "png"}'
      picture.save(pictures / file)
      numbers = ' '.join(f'{value:.6f}' for value in points.T.ravel())
      lines.append(f' {pictures.name}\\{file} {numbers} 1 2 2 3')
      found[name].append(points / size)
    (folder / name).write_text('\n'.join(lines) + '\n')
  return found


def as_release(folder: pathlib.Path) -> None:
  """Turns what `write` wrote into the layout of Jakab et al."""
  (folder / 'output').mkdir()
  for split, name in (('train', 'training.txt'), ('test', 'testing.txt')):
    lines = (folder / name).read_text().splitlines()
    names, points, sizes = [], [], []
    for line in lines:
      path, *numbers = line.strip().replace('\\', '/').rsplit(maxsplit=14)
      with Image.open(folder / path) as picture:
        sizes.append(picture.size[::-1])
      names.append(f'{split} {pathlib.Path(path).name}')
      (folder / path).rename(folder / 'output' / names[-1])
      places = np.reshape([float(n) for n in numbers[:10]], (2, 5))
      points.append(places[::-1].T)
    (folder / name).unlink()
    (folder / f'aflw_{split}_images.txt').write_text('\n'.join(names) + '\n')
    scipy.io.savemat(
      folder / f'aflw_{split}_keypoints.mat', dict(gt=points, hw=sizes)
    )
