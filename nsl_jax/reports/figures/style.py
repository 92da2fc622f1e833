"""What all figures look like, and what drawing one gives.

Figures are made without pyplot: no window, no backend to choose, no state that
one figure leaves to the next.
"""

import io
from typing import Any, NamedTuple

import matplotlib
from matplotlib import axes as axes_lib, figure as figure_lib

# Told apart also without colors (Okabe and Ito's palette).
BLUE, ORANGE, GREEN, PINK = '#0072B2', '#D55E00', '#009E73', '#CC79A7'
GRAY = '#767676'


class Drawing(NamedTuple):
  """A figure with the numbers in it.

  Attributes:
    png: the picture.
    lines: the numbers, a mapping per line of the CSV file.
    content: what the ledger's JSON file says besides `row`, `kind` and
      `files`: `seeds`, `steps`, `full_steps`, `reduced`, the fields of
      `workdir.provenance` and whatever describes the figure.
  """

  png: bytes
  lines: list[dict[str, Any]]
  content: dict[str, Any]


def new(
  columns: int, width: float, height: float, *, rows: int = 1
) -> tuple[figure_lib.Figure, list[axes_lib.Axes]]:
  """A figure of so many panels, row by row; sizes in inches."""
  figure = figure_lib.Figure(
    figsize=(width, height), dpi=150, layout='constrained'
  )
  panels = figure.subplots(rows, columns, squeeze=False)
  return figure, list(panels.flat)


def legend_below(panel: axes_lib.Axes) -> None:
  """A legend under the panel, where it hides nothing."""
  panel.legend(
    fontsize=7,
    ncols=2,
    loc='upper center',
    bbox_to_anchor=(0.5, -0.13),
    frameon=False,
  )


def png(figure: figure_lib.Figure) -> bytes:
  """The picture as a file holds it."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png')
  return buffer.getvalue()


def version() -> dict[str, str]:
  """The library that drew it, for the ledger."""
  return {'matplotlib': matplotlib.__version__}
