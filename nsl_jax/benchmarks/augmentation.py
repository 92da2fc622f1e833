"""Images per second of RandAugment, compiled, beside a loop over Pillow."""

import functools
import math
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from nsl_jax.data import randaugment

_ROUNDS = 20
_OPERATIONS = 2
Result = Mapping[str, float]


def with_pillow(image: np.ndarray, name: str, amount: float) -> np.ndarray:
  """One operation of `randaugment` on an image u8[H, W, C], by Pillow.

  Args:
    image: gray or RGB.
    name: the operation.
    amount: its magnitude.
  """
  from PIL import Image, ImageEnhance, ImageOps

  picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
  width, height = picture.size
  affine = lambda *matrix: picture.transform(
    picture.size, Image.Transform.AFFINE, matrix
  )
  levels_out = {
    'autocontrast': lambda: ImageOps.autocontrast(picture),
    'brightness': lambda: ImageEnhance.Brightness(picture).enhance(amount),
    'color': lambda: ImageEnhance.Color(picture).enhance(amount),
    'contrast': lambda: ImageEnhance.Contrast(picture).enhance(amount),
    'equalize': lambda: ImageOps.equalize(picture),
    'identity': lambda: picture,
    'posterize': lambda: ImageOps.posterize(picture, int(amount)),
    'rotate': lambda: picture.rotate(amount),
    'sharpness': lambda: ImageEnhance.Sharpness(picture).enhance(amount),
    'shear_x': lambda: affine(1, amount, 0, 0, 1, 0),
    'shear_y': lambda: affine(1, 0, 0, amount, 1, 0),
    'solarize': lambda: ImageOps.solarize(picture, math.ceil(amount)),
    'translate_x': lambda: affine(1, 0, amount * width, 0, 1, 0),
    'translate_y': lambda: affine(1, 0, 0, 0, 1, amount * height),
  }[name]()
  return np.asarray(levels_out).reshape(image.shape)


def _by_pillow(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  results = []
  for image in images:
    for _ in range(_OPERATIONS):
      name = randaugment.NAMES[rng.integers(len(randaugment.NAMES))]
      image = with_pillow(image, name, rng.uniform(*randaugment.RANGES[name]))
    results.append(image)
  return np.stack(results)


def measure(batch: int, shape: tuple[int, int, int]) -> Result:
  """Times both alternately, with operations drawn anew in every round.

  Args:
    batch: images per call of the compiled function.
    shape: (H, W, C).

  Returns:
    `images_per_s` and `pillow_images_per_s`, medians over rounds by the clock;
    `cpu_images_per_s` and `pillow_cpu_images_per_s` by the processor time of
    all threads, that is per core; `ratio` and `cpu_ratio`, medians over rounds.
  """
  rng = np.random.default_rng(0)
  levels = rng.integers(0, 256, (batch, *shape), np.uint8)
  on_device = jnp.asarray(levels)
  view = jax.jit(
    functools.partial(randaugment.randaugment, operations=_OPERATIONS)
  )
  keys = iter(jax.random.split(jax.random.key(0), _ROUNDS + 1))
  jax.block_until_ready(view(on_device, next(keys)))
  rows = []
  for _ in range(_ROUNDS):
    key = next(keys)
    seconds = []
    for call in (
      lambda: jax.block_until_ready(view(on_device, key)),
      lambda: _by_pillow(levels, rng),
    ):
      clock, processor = time.perf_counter(), time.process_time()
      call()
      seconds += [time.perf_counter() - clock, time.process_time() - processor]
    rows.append(seconds)
  ours, ours_cpu, pillow, pillow_cpu = np.array(rows).T
  rate = lambda seconds: float(batch / np.median(seconds))
  return {
    'images_per_s': rate(ours),
    'cpu_images_per_s': rate(ours_cpu),
    'pillow_images_per_s': rate(pillow),
    'pillow_cpu_images_per_s': rate(pillow_cpu),
    'ratio': float(np.median(pillow / ours)),
    'cpu_ratio': float(np.median(pillow_cpu / ours_cpu)),
  }


def table(measured: Mapping[str, Result]) -> str:
  """A Markdown table, a row per size of images."""
  lines = [
    '| images | images/s | Pillow | ratio | of a core | Pillow | ratio |',
    '| --- ' * 7 + '|',
  ]
  for name, rates in measured.items():
    lines.append(
      f'| {name} | {rates["images_per_s"]:,.0f} | '
      f'{rates["pillow_images_per_s"]:,.0f} | {rates["ratio"]:.2f} | '
      f'{rates["cpu_images_per_s"]:,.0f} | '
      f'{rates["pillow_cpu_images_per_s"]:,.0f} | {rates["cpu_ratio"]:.2f} |'
    )
  return '\n'.join(lines)
