"""Common style of figures, and the result of drawing one.

Figures do not use pyplot, which has windows, backends and global state.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib import axes as axes_lib, figure as figure_lib

# Okabe and Ito's palette for color-blind readers.
BLUE, ORANGE, GREEN, PINK = '#0072B2', '#D55E00', '#009E73', '#CC79A7'
GRAY = '#767676'
_LINES = ('-', '--', ':')


class Drawing(NamedTuple):
  """A figure with the numbers in it.

  Attributes:
    png: the image.
    lines: the numbers, a mapping per line of the CSV file.
    content: content of the ledger file besides `row`, `kind` and `files`:
      `seeds`, `steps`, `full_steps`, `reduced`, the fields of
      `workdir.provenance` and those of the figure.
  """

  png: bytes
  lines: list[dict[str, Any]]
  content: dict[str, Any]


def new(
  columns: int, width: float, height: float, *, rows: int = 1
) -> tuple[figure_lib.Figure, list[axes_lib.Axes]]:
  """A figure and its panels, row by row; sizes in inches."""
  figure = figure_lib.Figure(
    figsize=(width, height), dpi=150, layout='constrained'
  )
  panels = figure.subplots(rows, columns, squeeze=False)
  return figure, list(panels.flat)


def line(at: int, colors: Sequence[str]) -> dict[str, Any]:
  """Color and line style of line `at`; a color returns in another style."""
  cycle, color = divmod(at, len(colors))
  return {'color': colors[color], 'linestyle': _LINES[cycle % len(_LINES)]}


def legend_below(
  panel: axes_lib.Axes, lines: Mapping[str, Any] | None = None
) -> None:
  """A legend below the panel.

  Args:
    panel: the panel.
    lines: by the text of the legend, which is not read as mathematics; None for
      the labels in the panel.
  """
  if lines is None:
    handles, texts = panel.get_legend_handles_labels()
  else:
    handles, texts = [*lines.values()], [*lines]
  legend = panel.legend(
    handles,
    texts,
    fontsize=7,
    ncols=2,
    loc='upper center',
    bbox_to_anchor=(0.5, -0.13),
    frameon=False,
  )
  for text in legend.get_texts() if lines is not None else ():
    text.set_parse_math(False)


def png(figure: figure_lib.Figure) -> bytes:
  """The PNG file of a figure."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png')
  return buffer.getvalue()


def version() -> dict[str, str]:
  """The version of the plotting library, for the ledger."""
  return {'matplotlib': matplotlib.__version__}
