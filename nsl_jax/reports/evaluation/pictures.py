"""Pictures of an evaluation: confusion, calibration, learning curves."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import axes as axes_lib, colors, figure as figure_lib, ticker

from nsl_jax.reports import style

_WITH_COUNTS = 20  # with more classes the cells have no room for a number
_WITH_NAMES = 100  # with more, every second or third class is named
_NAME_LENGTH = 24
_PALE = '#E9ECEF'


def _name(text: str) -> str:
  """A class name that fits, without what no font draws."""
  text = ''.join(c if c.isprintable() else '?' for c in text)
  if len(text) > _NAME_LENGTH:
    text = text[: _NAME_LENGTH - 1] + '…'
  return text


def _png(figure: figure_lib.Figure) -> bytes:
  with warnings.catch_warnings():
    # A letter that the font lacks becomes a box.
    warnings.filterwarnings('ignore', message='Glyph .* missing')
    return style.png(figure)


def _write_counts(
  panel: axes_lib.Axes, counts: np.ndarray, shares: Any
) -> None:
  size = 8 if counts.max() < 1000 else 6
  for row, column in np.ndindex(*counts.shape):
    color = 'white' if shares[row, column] > 0.3 else 'black'
    panel.text(
      column,
      row,
      str(counts[row, column]),
      ha='center',
      va='center',
      fontsize=size,
      color=color if counts[row, column] else style.GRAY,
    )


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
  """A PNG of the confusion matrix, normalized by row.

  Up to 20 classes have the counts in their cells; of more than 100 classes not
  every one is named. The row of a class without an image is gray.

  Args:
    counts: K rows of K, a row for each true class.
    classes: K names.
  """
  matrix = np.array(counts)
  size = len(matrix)
  sums = matrix.sum(1, keepdims=True)
  shares = np.ma.masked_array(
    matrix / np.maximum(sums, 1), np.broadcast_to(sums == 0, matrix.shape)
  )
  cell = 0.42 if size <= _WITH_COUNTS else 0.135
  side = max(2.4, cell * min(size, 1.3 * _WITH_NAMES))
  names = [_name(text) for text in classes]
  font = 8 if size <= _WITH_COUNTS else 6
  room = 0.008 * font * max(len(name) for name in names) + 0.6
  figure, (panel,) = style.new(1, side + room + 0.8, side + room)
  panel.set_facecolor(_PALE)
  # The root shows the few mistakes beside the many right predictions.
  scale = colors.PowerNorm(0.5, vmin=0.0, vmax=1.0)
  image = panel.imshow(shares, cmap='Blues', norm=scale)
  ticks = range(0, size, math.ceil(size / _WITH_NAMES))
  tick_labels = [names[index] for index in ticks]
  upright = size > 6 or max(len(name) for name in names) > 5
  look: dict[str, Any] = {'fontsize': font, 'parse_math': False}
  panel.set_xticks(ticks, tick_labels, rotation=90 if upright else 0, **look)
  panel.set_yticks(ticks, tick_labels, **look)
  panel.set(xlabel='predicted class', ylabel='true class')
  if size <= _WITH_COUNTS:
    _write_counts(panel, matrix, shares.filled(0.0))
  bar = figure.colorbar(
    image,
    ax=panel,
    fraction=0.04,
    pad=0.02,
    shrink=0.6,
    ticks=[0.0, 0.05, 0.2, 0.5, 1.0],
    format=ticker.PercentFormatter(1.0),
    label='of the images of the true class',
  )
  bar.ax.tick_params(labelsize=7)
  return _png(figure)


def reliability(calibration: Mapping[str, Any]) -> bytes:
  """A PNG of accuracy against confidence, and of how many images have which.

  Args:
    calibration: as `calibration.of` returns it.
  """
  curve = calibration['reliability']
  confidences, accuracies, counts, lows, highs = (
    np.array([entry[name] for entry in curve])
    for name in ('confidence', 'accuracy', 'count', 'low', 'high')
  )
  figure, (above, below) = style.new(1, 4.8, 5.6, rows=2)
  grid = above.get_gridspec()
  if grid is not None:
    grid.set_height_ratios([3, 1])
  above.plot(
    [0, 1], [0, 1], '--', color=style.GRAY, lw=1, label='perfect calibration'
  )
  above.plot(
    confidences, accuracies, 'o-', color=style.BLUE, ms=4, label='this network'
  )
  above.set(ylim=(-0.02, 1.02), ylabel='accuracy')
  above.set_title(f'ECE {100.0 * calibration["ece"]:.1f} %', fontsize=10)
  above.legend(fontsize=8, frameon=False, loc='best')
  below.bar(
    lows,
    counts,
    highs - lows,
    align='edge',
    color=style.BLUE,
    edgecolor='white',
  )
  below.set(xlabel='confidence (largest probability)', ylabel='images')
  below.yaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
  for panel in (above, below):
    panel.set_xlim(-0.02, 1.02)
    panel.grid(alpha=0.3)
    panel.set_axisbelow(True)
  return _png(figure)


def _series(
  lines: Sequence[Mapping[str, Any]], kind: str, name: str
) -> list[tuple[int, float]]:
  """(step, value) where it was measured."""
  return [
    (line['step'], line[name])
    for line in lines
    if line['kind'] == kind
    and line.get(name) is not None
    and math.isfinite(line[name])
  ]


def best(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
  """The earliest `step` of the lowest `validation_error`, in %, with that.

  None where no validation error was measured.
  """
  points = _series(lines, 'eval', 'validation_error')
  if not points:
    return None
  step, error = min(points, key=lambda point: point[1])
  return {'step': step, 'validation_error': error}


def curves(lines: Sequence[Mapping[str, Any]]) -> bytes | None:
  """A PNG of training loss and validation error with the best step marked.

  Args:
    lines: of a run of one seed, as `metrics_log.read` returns them.

  Returns:
    None where neither was measured.
  """
  measured = [
    (label, color, points)
    for kind, name, label, color in (
      ('train', 'loss', 'training loss', style.BLUE),
      ('eval', 'validation_error', 'validation error %', style.ORANGE),
    )
    if (points := _series(lines, kind, name))
  ]
  if not measured:
    return None
  lowest = best(lines)
  figure, panels = style.new(1, 5.6, 2.5 * len(measured), rows=len(measured))
  for panel, (label, color, points) in zip(panels, measured):
    if panel is not panels[0]:
      panel.sharex(panels[0])
    mark = '.-' if len(points) < 30 else '-'
    panel.plot(*zip(*points), mark, color=color)
    panel.set_ylabel(label)
    panel.set_ylim(bottom=min(0.0, *(value for _, value in points)))
    panel.grid(alpha=0.3)
    if lowest is not None:
      panel.axvline(lowest['step'], color=style.GRAY, ls=':')
  panels[-1].set_xlabel('step')
  if lowest is not None:
    step, error = lowest['step'], lowest['validation_error']
    panels[-1].plot(step, error, 'o', color=style.GREEN, zorder=3)
    panels[-1].set_title(f'lowest: {error:.1f} % at step {step:,}', fontsize=9)
  return _png(figure)
