"""NS-F3: how the error depends on NS3L's threshold T and weight lambda1.

NS3L's Figure 3, one panel per row: NS3L and VAT + NS3L on CIFAR-10 with 4,000
labels, MixMatch + NS3L on SVHN with 250. The paper shows 4 x 3 cells and does
not state all values; ours are below. Every cell is a complete run of the
panel's config with these two fields changed, so a full panel takes twelve times
as long as its row in Table 1 or 4. The frame marks the cell with the lowest
validation error, which a search would choose.
"""

import math
import pathlib
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from matplotlib import axes as axes_lib, patches

from nsl_jax.papers import rows
from nsl_jax.reports import style
from nsl_jax.reports.figures import cells as cells_lib
from nsl_jax.training import (
  config as config_lib,
  results as results_lib,
  search,
  summary,
)

_THRESHOLDS = (0.02, 0.04, 0.06, 0.08)


class Panel(NamedTuple):
  """The section of a config with the fields of NS3L, and its weights."""

  section: str
  weights: tuple[float, ...]

  def axes(self) -> list[search.Axis]:
    """T, then lambda1."""
    return [
      search.Axis(f'{self.section}.threshold', _THRESHOLDS),
      search.Axis(f'{self.section}.weight', self.weights),
    ]


PANELS = {
  'NS-F3-L': Panel('method', (0.5, 1.0, 2.0)),
  'NS-F3-M': Panel('method.terms.ns3l', (0.1, 0.3, 1.0)),
  'NS-F3-R': Panel('method.terms.ns3l', (1.0, 2.0, 5.0)),
}


def _test_score(outcome: search.Outcome) -> dict[str, Any]:
  return outcome.results.get('score') or {'mean': None, 'std': None}


def lines_of(
  outcomes: list[search.Outcome], config: ml_collections.ConfigDict
) -> list[dict[str, Any]]:
  """Lines of the CSV file, one per cell; errors in %, empty if it failed."""
  lines = []
  for outcome in outcomes:
    threshold, weight = outcome.cell.values()
    test = _test_score(outcome)
    lines.append(
      {
        'T': threshold,
        'lambda1': weight,
        'validation_error': (outcome.validation or {'mean': None})['mean'],
        'test_error': test['mean'],
        'test_std': test['std'],
        'seeds': config.seeds,
        'steps': config.steps,
        'failure': outcome.failure,
      }
    )
  return lines


def _annotate(
  panel: axes_lib.Axes, lines: list[dict[str, Any]], at: list[tuple[int, int]]
) -> None:
  """Writes every error into its cell, in a color that contrasts with it."""
  errors = [line['test_error'] for line in lines if not line['failure']]
  middle = (min(errors) + max(errors)) / 2
  for line, (i, j) in zip(lines, at):
    mean, std = line['test_error'], line['test_std']
    text = summary.plus_minus(mean, std).replace(' ± ', '\n± ') or 'failed'
    dark = mean is not None and mean > middle
    panel.text(
      i,
      j,
      text,
      ha='center',
      va='center',
      fontsize=8,
      color='white' if dark else 'black',
    )


def picture(
  lines: list[dict[str, Any]], chosen: dict[str, Any], title: str
) -> bytes:
  """The heat map of test errors.

  Args:
    lines: result of `lines_of`, for every combination of T and lambda1.
    chosen: the line whose cell is framed.
    title: title of the panel.
  """
  thresholds = sorted({line['T'] for line in lines})
  weights = sorted({line['lambda1'] for line in lines})
  place = lambda line: (
    thresholds.index(line['T']),
    weights.index(line['lambda1']),
  )
  values = np.full((len(weights), len(thresholds)), np.nan)
  for line in lines:
    i, j = place(line)
    values[j, i] = math.nan if line['failure'] else line['test_error']
  figure, (panel,) = style.new(1, 6.0, 4.0)
  image = panel.imshow(values, cmap='viridis_r', origin='lower', aspect='auto')
  _annotate(panel, lines, [place(line) for line in lines])
  i, j = place(chosen)
  panel.add_patch(
    patches.Rectangle(
      (i - 0.5, j - 0.5),
      1,
      1,
      fill=False,
      edgecolor=style.ORANGE,
      linewidth=3,
      clip_on=False,
      label='lowest validation error',
    )
  )
  panel.set_xticks(range(len(thresholds)), [f'{t:g}' for t in thresholds])
  panel.set_yticks(range(len(weights)), [f'{w:g}' for w in weights])
  panel.set(xlabel='threshold T', ylabel='weight λ1')
  panel.set_title(title, fontsize=9)
  style.legend_below(panel)
  figure.colorbar(image, ax=panel, label='test error, %')
  return style.png(figure)


def _content(
  outcomes: list[search.Outcome],
  lines: list[dict[str, Any]],
  chosen: dict[str, Any],
  config: ml_collections.ConfigDict,
) -> dict[str, Any]:
  trained = [outcome.results for outcome in outcomes if outcome.results]
  shared = {
    name: trained[-1][name]
    for name in (
      'protocol',
      'seeds',
      'steps',
      'full_steps',
      'reduced',
      'data_note',
      'split_sha256',
    )
  }
  shared |= results_lib.joined_provenance(trained)
  shared['versions'] = shared['versions'] | style.version()
  cells = []
  for outcome, line in zip(outcomes, lines):
    cells.append(
      {
        **line,
        'fields': outcome.cell,
        'validation': outcome.validation,
        'test': outcome.results.get('score'),
        'reports': outcome.results.get('reports', []),
        'wall_time_s': outcome.results.get('wall_time_s'),
      }
    )
  seconds = math.fsum(results['wall_time_s'] for results in trained)
  return {
    **shared,
    'wall_time_s': round(seconds, 3),
    'chosen': {name: chosen[name] for name in ('T', 'lambda1')},
    'cells': cells,
    'config': config.to_dict(),
  }


def draw(
  row: rows.Row, *, seeds: int, reduced: int, workdir: pathlib.Path
) -> style.Drawing:
  """Trains unfinished cells, one after another, and draws.

  Raises:
    errors.UserError: for wrong input or missing data.
    errors.TrainingError: if every cell failed; single failed cells are blank.
  """
  config = config_lib.load(row.config, seeds=seeds, reduced=reduced)
  with config.unlocked():
    config.row = row.id
  cells = search.cells_of(PANELS[row.id].axes())
  outcomes = search.train(config, cells, workdir)
  lines = lines_of(outcomes, config)
  chosen = lines[outcomes.index(search.ranked(outcomes)[0])]
  content = _content(outcomes, lines, chosen, config)
  return style.Drawing(
    picture(lines, chosen, cells_lib.title(row, content)), lines, content
  )
