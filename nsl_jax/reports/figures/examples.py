"""L2-F3: points predicted by Mean Teacher without and with V1 on test images.

The images are drawn at random, the same for both methods. The title of each
method has its error over all test images.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nsl_jax import losses
from nsl_jax.compose import tasks
from nsl_jax.data import split_file
from nsl_jax.papers import rows
from nsl_jax.reports import style
from nsl_jax.reports.figures import cells
from nsl_jax.training import assembly

SHOWN = 8
_SEED = 0  # seed of the choice of images
_CELLS = (
  ('mean_teacher', 'Mean Teacher', 'host=mt,variant=none'),
  ('v1', 'Mean Teacher + V1', 'host=mt,variant=v1'),
)


class Strip(NamedTuple):
  """Predictions of a cell for the images.

  Attributes:
    name: name of the cell.
    title: title next to its images.
    rows: i64[N], rows of the test images.
    images: u8[N, H, W, C].
    found: f32[N, P], predicted points in pixels: x, y, x, y, ...
    true: f32[N, P].
    errors: f32[N], in % of the distance of the first two true points.
  """

  name: str
  title: str
  rows: np.ndarray
  images: np.ndarray
  found: np.ndarray
  true: np.ndarray
  errors: np.ndarray


def cells_of(row: rows.Row, *, seeds: int, reduced: int) -> list[cells.Cell]:
  """The two runs, with the same splits, network and steps."""
  return [
    cells.make(
      name, label, f'{row.config}:{words}', seeds=seeds, reduced=reduced
    )
    for name, label, words in _CELLS
  ]


def strip_of(trained: cells.Trained) -> Strip:
  """Points after the last step of the first seed.

  Raises:
    errors.UserError: if its checkpoint is missing.
  """
  report = trained.results['reports'][0]
  folder = trained.folder / f'seed_{report["seed"]}'
  parts = assembly.prepare(trained.cell.config, trained.folder)
  state = cells.last_state(parts, report['seed'], folder)
  fitted = assembly.data_of(
    parts, split_file.load(folder / 'split.npz')
  ).normalization
  images, labels = parts.source.test
  chosen = np.random.default_rng(_SEED).permutation(len(images))[:SHOWN]
  view = parts.normalize(fitted, jnp.asarray(images[chosen]))
  outputs = jax.jit(parts.method.predict)(state, view)
  points = tasks.points_of(fitted, outputs)
  true = jnp.asarray(labels[chosen])
  error = 100.0 * losses.interocular_error(points, true)
  title = f'{trained.cell.label}\n{report["last"]["test_error"]:.2f} %'
  return Strip(
    trained.cell.name,
    title,
    chosen,
    images[chosen],
    np.asarray(points),
    labels[chosen],
    np.asarray(error),
  )


def lines_of(strips: Sequence[Strip]) -> list[dict[str, Any]]:
  """Lines of the CSV file, one per cell, image and point; pixels and %."""
  lines = []
  for strip in strips:
    for row, found, true, error in zip(
      strip.rows, strip.found, strip.true, strip.errors
    ):
      points = np.hstack([found.reshape(-1, 2), true.reshape(-1, 2)])
      for at, point in enumerate(points):
        places = zip(('x', 'y', 'true_x', 'true_y'), point)
        lines.append(
          {
            'cell': strip.name,
            'image': int(row),
            'point': at,
            **{name: round(float(value), 3) for name, value in places},
            'image_error': round(float(error), 3),
          }
        )
  return lines


def picture(strips: Sequence[Strip], title: str) -> bytes:
  """A row of images per method; true points are rings, predictions crosses."""
  count = len(strips[0].rows)
  figure, panels = style.new(
    count, 0.6 + 1.3 * count, 0.8 + 1.6 * len(strips), rows=len(strips)
  )
  for at, panel in enumerate(panels):
    strip, image = strips[at // count], at % count
    panel.imshow(strip.images[image], cmap='gray', vmin=0, vmax=255)
    for points, marker, color, label in (
      (strip.true, 'o', style.GREEN, 'true'),
      (strip.found, 'x', style.ORANGE, 'found'),
    ):
      x, y = points[image].reshape(-1, 2).T
      panel.plot(
        x, y, marker, color=color, fillstyle='none', markersize=5, label=label
      )
    panel.set(xticks=[], yticks=[])
    panel.set_title(f'{strip.errors[image]:.1f} %', fontsize=8)
    if image == 0:
      panel.set_ylabel(strip.title, fontsize=8)
  figure.suptitle(title, fontsize=9)
  handles, names = panels[0].get_legend_handles_labels()
  figure.legend(
    handles,
    names,
    loc='outside lower center',
    ncols=2,
    fontsize=8,
    frameon=False,
  )
  return style.png(figure)


def draw(
  row: rows.Row, *, seeds: int, reduced: int, workdir: pathlib.Path
) -> style.Drawing:
  """Trains unfinished cells, and draws the first seed.

  Raises:
    errors.UserError: for wrong input or missing data.
    errors.TrainingError: if a cell's loss is not finite.
  """
  trained = cells.train(cells_of(row, seeds=seeds, reduced=reduced), workdir)
  strips = [strip_of(cell_run) for cell_run in trained]
  return cells.drawing(
    row, trained, lines_of(strips), lambda title: picture(strips, title)
  )
