"""Host memory and time of training on, and predicting, folders of N images."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures

import numpy as np

_SIDE = 64  # pixels
_CLASSES = 10
_LABELED = 20  # of each class
_STEPS = 60
_ON_DEVICE_MB = 32  # so that the images are streamed
_LOOK_S = 0.05


def write_images(folder: pathlib.Path, count: int) -> None:
  """Random smooth JPEG images, some of them with a label."""
  from PIL import Image

  places = [
    folder / 'labelled' / f'class{row % _CLASSES}'
    if row < _CLASSES * _LABELED
    else folder / 'unlabelled' / f'{row // 1000}'
    for row in range(count)
  ]
  for place in set(places):
    place.mkdir(parents=True, exist_ok=True)

  def write(row: int) -> None:
    small = np.random.default_rng(row).integers(0, 256, (8, 8, 3), np.uint8)
    picture = Image.fromarray(small).resize((_SIDE, _SIDE))
    picture.save(places[row] / f'{row}.jpg', quality=90)

  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for start in range(0, count, 1000):
      list(pool.map(write, range(start, min(start + 1000, count))))


def _own_memory(process: int) -> int:
  """Bytes of a process that no file stands for; 0 once it has ended."""
  try:
    text = pathlib.Path(f'/proc/{process}/status').read_text()
  except OSError:
    return 0
  matches = [line for line in text.splitlines() if line.startswith('RssAnon')]
  return int(matches[0].split()[1]) * 1024 if matches else 0


def run(words: Sequence[str], cache: str) -> dict[str, float]:
  """Runs `python -m nsl_jax` to its end.

  Returns:
    `seconds`, and `peak_mb`: its largest private memory. Pages of
    mapped files are not counted: the system takes them back when it needs them.

  Raises:
    RuntimeError: with what it printed, if it fails.
  """
  begun = time.perf_counter()
  with tempfile.TemporaryFile() as output:
    process = subprocess.Popen(
      [sys.executable, '-m', 'nsl_jax', *words],
      stdout=output,
      stderr=subprocess.STDOUT,
      env={**os.environ, 'NSL_JAX_CACHE': cache},
    )
    peak = 0
    ended = threading.Event()

    def look() -> None:
      nonlocal peak
      while not ended.wait(_LOOK_S):
        peak = max(peak, _own_memory(process.pid))

    looking = threading.Thread(target=look)
    looking.start()
    status = process.wait()
    ended.set()
    looking.join()
    if status:
      output.seek(0)
      raise RuntimeError(output.read().decode()[-2000:])
  return {
    'seconds': round(time.perf_counter() - begun, 1),
    'peak_mb': round(peak / 2**20),
  }


def measure(counts: Iterable[int]) -> dict[str, dict[str, dict[str, float]]]:
  """By number of images, what training, training with a filled cache of decoded
  images, and predicting them take.
  """
  measured = {}
  for count in counts:
    with tempfile.TemporaryDirectory() as root:
      photos = pathlib.Path(root, 'photos')
      write_images(photos, count)
      cache = os.path.join(root, 'cache')
      train = [
        'train',
        f'--config=configs/folder.py:dir={photos},steps={_STEPS},method=ns3l',
        f'--config.data.on_device_mb={_ON_DEVICE_MB}',
        '--config.model.name=small_cnn',
      ]
      first = run([*train, f'--workdir={root}/first'], cache)
      cached_run = run([*train, f'--workdir={root}/cached'], cache)
      predict = run(
        [
          'predict',
          f'--workdir={root}/cached',
          f'--images={photos}',
          f'--out={root}/labels.csv',
        ],
        cache,
      )
    measured[str(count)] = {
      'train, decoding': first,
      'train': cached_run,
      'predict': predict,
    }
    print(
      json.dumps({count: measured[str(count)]}), file=sys.stderr, flush=True
    )
  return measured


def table(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
  """A Markdown table, a row a number of images."""
  kinds = next(iter(measured.values()))
  head = ' | '.join(f'{kind} s | MB' for kind in kinds)
  lines = [f'| images | {head} |', '| --- ' * (1 + 2 * len(kinds)) + '|']
  for count, costs in measured.items():
    cells = ' | '.join(
      f'{v["seconds"]} | {v["peak_mb"]:g}' for v in costs.values()
    )
    lines.append(f'| {int(count):,} | {cells} |')
  return '\n'.join(lines)
