"""The report of an evaluation as a folder: a page, pictures, numbers."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from nsl_jax import errors, files
from nsl_jax.reports.evaluation import examples, pictures, scores, sections

PAGE, NUMBERS = 'report.html', 'evaluation.json'
SHOWN = 24  # images of a kind
PAIRS = 10  # of classes


def _describe(
  row: int,
  labels: np.ndarray,
  probabilities: np.ndarray,
  classes: Sequence[str],
  paths: Sequence[str],
) -> dict[str, Any]:
  """An image that is shown, as `evaluation.json` has it."""
  predicted = int(probabilities[row].argmax())
  return {
    'image': row,
    'path': str(paths[row]),
    'true': classes[labels[row]],
    'predicted': classes[predicted],
    'probability': float(probabilities[row, predicted]),
    'probability_of_true': float(probabilities[row, labels[row]]),
    'correct': predicted == int(labels[row]),
  }


def write(
  folder: files.Path,
  *,
  title: str,
  facts: Mapping[str, str],
  classes: Sequence[str],
  labels: np.ndarray,
  probabilities: np.ndarray,
  paths: Sequence[str],
  thumbnail: Callable[[int], Image.Image],
  metric_lines: Sequence[Mapping[str, Any]],
  notes: Sequence[str],
) -> dict[str, Any]:
  """Writes the report of an evaluation.

  `report.html` needs no other file and no network. Beside it stand
  `evaluation.json`, `confusion.png`, `reliability.png` and, if there is
  something to draw, `curves.png`. Nothing is written before everything is
  made, and each file is written whole or not at all.

  Args:
    folder: is made, with its parents, if it is not there.
    title: of the page.
    facts: what else a reader wants to know, by name: method, steps, labels,
      seed, network, date.
    classes: K names.
    labels: i32[N], from 0 to K - 1.
    probabilities: f32[N, K], rows that sum to 1 within 1e-3.
    paths: N, of the images, as the page shows them.
    thumbnail: from the row of an image to its picture; called for at most 48
      rows. What it raises, `write` raises.
    metric_lines: of the run's `metrics.jsonl`, as `metrics_log.read` returns
      them; may be empty.
    notes: what a reader has to be told, such as which files were skipped.

  Returns:
    What `evaluation.json` holds:

    * `title`, `facts`, `notes`: as given;
    * `scores`: as `scores.of` returns them;
    * `best`: as `pictures.best` returns it, of the metric lines;
    * `mistakes`, `least_sure`: the images shown, by image its row `image`,
      `path`, `true`, `predicted`, `probability`, `probability_of_true` and
      `correct`;
    * `confused`: as `examples.confused` returns them;
    * `files`: names of the files written.

  Raises:
    errors.UserError: for predictions that `scores.of` refuses, another number
      of paths than of images, or a folder that cannot be written to.
  """
  measures = scores.of(labels, probabilities, classes)
  labels, probabilities = scores.checked(labels, probabilities, classes)
  if len(paths) != len(labels):
    raise errors.UserError(
      f'{len(paths)} paths for {len(labels)} images: give one for each'
    )
  describe = lambda rows: [
    _describe(row, labels, probabilities, classes, paths) for row in rows
  ]
  best = pictures.best(metric_lines)
  curves = pictures.curves(metric_lines)
  figures = {
    'confusion.png': pictures.confusion(measures['confusion'], classes),
    'reliability.png': pictures.reliability(measures['calibration']),
    **({} if curves is None else {'curves.png': curves}),
  }
  content = {
    'title': title,
    'facts': dict(facts),
    'scores': measures,
    'best': best,
    'mistakes': describe(examples.mistakes(labels, probabilities, SHOWN)),
    'least_sure': describe(examples.least_sure(probabilities, SHOWN)),
    'confused': examples.confused(measures['confusion'], classes, PAIRS),
    'notes': list(notes),
    'files': [PAGE, NUMBERS, *figures],
  }
  content_of = {
    **figures,
    NUMBERS: json.dumps(content, indent=1, allow_nan=False).encode() + b'\n',
    PAGE: sections.document(content, figures, thumbnail),
  }
  files.make_folder(folder, '--out')
  for name, file_content in content_of.items():
    files.write(folder / name, file_content)
  return content
