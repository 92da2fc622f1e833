"""Learning curves of runs: a line per run, with a band over its seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import axes as axes_lib, lines as lines_lib

from nsl_jax import errors, files
from nsl_jax.reports import style
from nsl_jax.training import metrics_log

# Panels: kind of log line, name of the value, label.
PANELS = (
  ('train', 'loss', 'training loss'),
  ('eval', 'validation_error', 'validation error %'),
  ('eval', 'test_error', 'test error %'),
)
_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.PINK, style.GRAY)

Curve = tuple[np.ndarray, np.ndarray]  # steps, f64[seeds, steps]


def curves(folder: files.Path) -> dict[str, Curve]:
  """The curves of a run by name, at the steps that all of its seeds have.

  Raises:
    errors.UserError: if the folder has no metrics at a common step.
  """
  logs = sorted(folder.glob('seed_*/metrics.jsonl'))
  if not logs:
    raise errors.UserError(
      f'{folder} has no seed_*/metrics.jsonl: name the folder of a run, such '
      'as runs/digits_ns3l'
    )
  lines = [metrics_log.read(path) for path in logs]
  curve_of = {}
  for kind, name, _ in PANELS:
    series = [
      {
        e['step']: e[name]
        for e in seed
        # None if not measured, as without validation images.
        if e['kind'] == kind and e.get(name) is not None
      }
      for seed in lines
    ]
    steps = sorted(set.intersection(*(set(by_step) for by_step in series)))
    if steps:
      try:
        values = np.array(
          [[by_step[step] for step in steps] for by_step in series], float
        )
      except (ValueError, TypeError) as error:
        raise errors.UserError(
          f'{folder}: {name} in a metrics.jsonl is not a number ({error}): '
          'restore the file'
        ) from error
      curve_of[name] = np.array(steps), values
  if not curve_of:
    raise errors.UserError(
      f'{folder} has nothing to draw: no loss or error at a step that every '
      'seed has reached'
    )
  return curve_of


def _draw(
  panel: axes_lib.Axes, curve: Curve, label: str, at: int
) -> lines_lib.Line2D:
  steps, values = curve
  kind = style.line(at, _COLORS)
  (line,) = panel.plot(
    steps,
    values.mean(0),
    label=label,
    **kind,
    marker='o' if len(steps) == 1 else '',
  )
  if len(values) > 1:
    panel.fill_between(
      steps,
      values.min(0),
      values.max(0),
      color=kind['color'],
      alpha=0.2,
      linewidth=0,
    )
  return line


def draw(folders: Sequence[files.Path]) -> bytes:
  """A PNG image with a panel for the loss and for each error.

  Args:
    folders: folders of runs; a line is the mean over seeds, the band spans the
      lowest to the highest.

  Raises:
    errors.UserError: if a folder is not that of a run.
  """
  runs: Mapping[str, dict[str, Curve]] = {
    str(folder): curves(folder) for folder in folders
  }
  panels = [
    entry for entry in PANELS if any(entry[1] in run for run in runs.values())
  ]
  figure, axes = style.new(len(panels), 4.2 * len(panels), 3.6)
  for axis, (_, name, label) in zip(axes, panels):
    lines = {
      run: _draw(axis, curve_of[name], run, at)
      for at, (run, curve_of) in enumerate(runs.items())
      if name in curve_of
    }
    axis.set_xlabel('step')
    axis.set_ylabel(label)
    if axis.dataLim.y0 >= 0.0:  # terms may be negative
      axis.set_ylim(bottom=0.0)
    style.legend_below(axis, lines)
  return style.png(figure)
