"""NS-F2: updates of a 1-D decision boundary by positive and negative labels.

NS3L's Figure 2; the paper does not state the numbers, which are ours. Points
are uniform on [-1, 1]; the true boundary is w* = 0, with label 1 on its left
and label 0 on its right. The few labeled points are biased: label 1 from
[-1, -.1], label 0 from [.5, 1]. A logistic model

    mu = P(label 1 | x) = 1 / (1 + exp(-s (w - x))),  boundary w, slope s > 0

fitted to them (with a weak penalty, as they are separable) has its boundary
w_hat right of w*. From there w takes gradient steps, with s fixed and without
the labeled points, on the mean over the unlabeled points right of w with
P(label 0 | x) > .95, which are selected again at each step. The rules:

    positive, as printed   w <- w + rate * (1 - mu) x
    NS3L, as printed       w <- w - rate * mu x

The first two use the paper's gradients, -(1 - mu) x and mu x. They are
derivatives by the weight v of sigmoid(v x), a model whose boundary is at 0 for
any v; the paper treats its weight as the position of the boundary, and so do
we. Four more rules use the gradient by w of a loss of this library: `label 1`,
`not 0`, `label 0` and `not 1`, with slope `s` instead of `x`.

With the printed formulas the positive label moves the boundary away from w*,
and NS3L moves it back. No formula depends on w*: the boundary passes it and
converges further from it than it started.

The figure does not show that negative labels can do what positive ones cannot.
With two classes `not 0` is the loss `label 1` and `not 1` is `label 0`, since
-log(1 - (1 - mu)) = -log mu (F-N14). The figure compares label 1 with `not 1`,
which are opposite statements; a pseudo-label for these points would be 0, and
NS3L's negative label 1: the same loss and the same step.
"""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import axes as axes_lib
from sklearn import linear_model

from nsl_jax import errors, losses
from nsl_jax.papers import rows
from nsl_jax.reports import style
from nsl_jax.training import workdir as workdir_lib
from nsl_jax.types import Array

OPTIMUM = 0.0  # w*
CONFIDENT = 0.95  # P(label 0) above which a point is used
RATE = 0.05
STEPS = 20_000
UNLABELED = 1000
LABELED = 10  # labeled points per class
_PENALTY = 100.0  # inverse strength; determines the slope of the fitted curve

Rule = Callable[[Array, Array, Array], Array]


def logits(w: Array, slope: Array, x: Array) -> Array:
  """f32[N, 2] logits of labels 0 and 1 at points f32[N]; mu is column 1."""
  score = slope * (w - x)
  return jnp.stack([jnp.zeros_like(score), score], axis=-1)


def _probability(w: Array, slope: Array, x: Array) -> Array:
  return jax.nn.softmax(logits(w, slope, x))[:, 1]


def positive_printed(w: Array, slope: Array, x: Array) -> Array:
  """f32[N], the paper's gradient of a positive label: -(1 - mu) x."""
  return -(1.0 - _probability(w, slope, x)) * x


def ns3l_printed(w: Array, slope: Array, x: Array) -> Array:
  """f32[N], the paper's gradient of NS3L, mu x, which is that of `not 1`; the
  loss `not 0` has -(1 - mu) x (F-N14).
  """
  return _probability(w, slope, x) * x


def _by_boundary(loss: Callable[[Array], Array]) -> Rule:
  """The gradient by w, per point, of `f32[N, 2] logits -> f32[N]`."""
  one = lambda w, slope, x: loss(logits(w, slope, x[None]))[0]
  return jax.vmap(jax.grad(one), in_axes=(None, None, 0))


def label(label: int) -> Rule:
  """Cross-entropy of the label."""
  return _by_boundary(
    lambda z: losses.cross_entropy(z, jnp.full(len(z), label))
  )


def negative_sampling_loss(label: int) -> Rule:
  """NS3L's loss with the label as the only negative one."""
  return _by_boundary(
    lambda z: losses.negative_sampling_loss(
      z, jnp.broadcast_to(jnp.arange(2)[None] == label, z.shape)
    )
  )


RULES: dict[str, Rule] = {
  'positive, as printed': positive_printed,
  'NS3L, as printed': ns3l_printed,
  'label 1': label(1),
  'not 0': negative_sampling_loss(0),
  'label 0': label(0),
  'not 1': negative_sampling_loss(1),
}


@functools.partial(jax.jit, static_argnames=('rule', 'steps'))
def gradient_step(
  rule: Rule, w: Array, slope: Array, x: Array, *, steps: int
) -> Array:
  """Steps along the mean gradient over the confident points.

  Args:
    rule: gradient by the boundary, per point.
    w: f32[], the boundary before the first step.
    slope: f32[].
    x: f32[N], unlabeled points.
    steps: number of steps.

  Returns:
    f32[steps + 1], the boundary before, between and after the steps. It does
    not change if no point is confident.
  """

  def step(w: Array, _: None) -> tuple[Array, Array]:
    confident = 1.0 - _probability(w, slope, x) > CONFIDENT
    total = jnp.where(confident, rule(w, slope, x), 0.0).sum()
    after = w - RATE * total / jnp.maximum(confident.sum(), 1)
    return after, after

  _, path = jax.lax.scan(step, w, None, length=steps)
  return jnp.concatenate([w[None], path])


def draw_points(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Unlabeled points f32[1000]; labeled ones f32[20], labels i32[20]."""
  rng = np.random.default_rng(seed)
  ones = rng.uniform(-1.0, -0.1, LABELED)
  zeros = rng.uniform(0.5, 1.0, LABELED)
  x = np.concatenate([ones, zeros]).astype(np.float32)
  y = np.repeat(np.array([1, 0], np.int32), LABELED)
  return rng.uniform(-1.0, 1.0, UNLABELED).astype(np.float32), x, y


def fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
  """Boundary w_hat and slope of logistic regression; label 1 is on the left."""
  model = linear_model.LogisticRegression(C=_PENALTY).fit(x[:, None], y)
  weight, bias = float(model.coef_[0, 0]), float(model.intercept_[0])
  return -bias / weight, -weight


def describe(path: np.ndarray) -> dict[str, Any]:
  """Summary of a boundary's path: columns of the CSV file after the rule."""
  distance = np.abs(path - OPTIMUM)
  nearest = int(distance.argmin())
  passed = np.flatnonzero(np.sign(path - OPTIMUM) != np.sign(path[0] - OPTIMUM))
  return {
    'start': float(path[0]),
    'first_move': float(path[1] - path[0]),
    'first_move_towards_optimum': bool(distance[1] < distance[0]),
    'nearest_distance': float(distance[nearest]),
    'nearest_step': nearest,
    'passes_optimum_at_step': int(passed[0]) if len(passed) else None,
    'end': float(path[-1]),
    'ends_nearer_than_it_began': bool(distance[-1] < distance[0]),
  }


def run(seed: int, steps: int) -> tuple[dict[str, np.ndarray], float]:
  """Every rule's path from the boundary fitted for a seed, and the slope."""
  unlabeled, x, y = draw_points(seed)
  w_hat, slope = (jnp.float32(value) for value in fit(x, y))
  paths = {
    name: np.asarray(gradient_step(rule, w_hat, slope, unlabeled, steps=steps))
    for name, rule in RULES.items()
  }
  return paths, float(slope)


_COLOURS = {
  'positive, as printed': style.ORANGE,
  'NS3L, as printed': style.BLUE,
}


def _draw_line(
  panel: axes_lib.Axes, path: dict[str, np.ndarray], slope: float
) -> None:
  unlabeled, x, y = draw_points(0)
  w_hat = float(next(iter(path.values()))[0])
  grid = np.linspace(-1.0, 1.0, 401)
  panel.plot(
    grid,
    1 / (1 + np.exp(-slope * (w_hat - grid))),
    color=style.GRAY,
    label='fitted P(label 1)',
  )
  right = w_hat + np.log(CONFIDENT / (1 - CONFIDENT)) / slope
  panel.axvspan(
    right, 1.0, color=style.GRAY, alpha=0.15, label='confident: label 0'
  )
  panel.plot(
    unlabeled[:200],
    np.full(200, -0.07),
    '|',
    color=style.GRAY,
    alpha=0.4,
    label='unlabeled (200 of them)',
  )
  panel.plot(x, y, 'ko', markersize=4, label='labeled')
  panel.axvline(OPTIMUM, color=style.GREEN, label='optimum w*')
  panel.axvline(w_hat, color='black', linestyle=':', label='fitted ŵ')
  for name, color in _COLOURS.items():
    panel.axvline(
      float(path[name][-1]),
      color=color,
      linestyle='--',
      label=f'{name}: after all steps',
    )
  panel.set(xlabel='x', ylabel='label', xlim=(-1.02, 1.02), yticks=[0, 1])
  panel.set_title('From biased labels, seed 0')
  style.legend_below(panel)


def _draw_paths(
  panel: axes_lib.Axes, paths_of_seeds: list[dict[str, np.ndarray]]
) -> None:
  pairs = [('label 1', 'not 0', style.ORANGE), ('label 0', 'not 1', style.BLUE)]
  for seed, paths in enumerate(paths_of_seeds):
    name = lambda text: None if seed else text  # one entry in the legend
    steps = np.arange(len(next(iter(paths.values()))))
    for rule, color in _COLOURS.items():
      panel.plot(steps, paths[rule], color=color, label=name(rule))
    for one, same, color in pairs:
      panel.plot(
        steps,
        paths[one],
        color=color,
        alpha=0.4,
        linewidth=3,
        label=name(f'{one}, gradient by w'),
      )
      panel.plot(
        steps,
        paths[same],
        color='black',
        linewidth=0.7,
        linestyle=':',
        label=name(f'{same}, gradient by w'),
      )
  panel.axhline(OPTIMUM, color=style.GREEN, label='optimum w*')
  panel.set_xscale('symlog', linthresh=1)
  panel.set(
    xlabel='step', ylabel='boundary w', xlim=(0, None), ylim=(-1.0, 1.0)
  )
  panel.set_title('The boundary, step by step')
  style.legend_below(panel)


def _picture(every: list[dict[str, np.ndarray]], slope: float) -> bytes:
  figure, (left, right) = style.new(2, 10.0, 4.8)
  _draw_line(left, every[0], slope)
  _draw_paths(right, every)
  return style.png(figure)


def draw(
  row: rows.Row, *, seeds: int, reduced: int, workdir: pathlib.Path
) -> style.Drawing:
  """Draws the row from seeds 0, 1, …; writes nothing to `workdir`.

  Raises:
    errors.UserError: if there is no seed, or `reduced` exceeds all steps.
  """
  if seeds < 1:
    raise errors.UserError(f'--seeds={seeds}: must be >= 1')
  if not 0 <= reduced <= STEPS:
    raise errors.UserError(
      f'--reduced={reduced}: {row.id} has {STEPS} steps in all'
    )
  begun = time.perf_counter()
  steps = reduced or STEPS
  paths_of_seeds = [run(seed, steps) for seed in range(seeds)]
  lines = [
    {'seed': seed, 'rule': rule, 'slope': slope, **describe(path)}
    for seed, (paths, slope) in enumerate(paths_of_seeds)
    for rule, path in paths.items()
  ]
  provenance = workdir_lib.provenance(1)
  content = {
    'seeds': list(range(seeds)),
    'steps': steps,
    'full_steps': STEPS,
    'reduced': steps < STEPS,
    'config': {
      'optimum': OPTIMUM,
      'confident': CONFIDENT,
      'rate': RATE,
      'unlabeled': UNLABELED,
      'labeled_per_class': LABELED,
      'penalty': _PENALTY,
    },
    'cells': lines,
    'data_note': '',
    **provenance,
    'versions': provenance['versions'] | style.version(),
    'wall_time_s': round(time.perf_counter() - begun, 3),
  }
  picture = _picture(
    [paths for paths, _ in paths_of_seeds], paths_of_seeds[0][1]
  )
  return style.Drawing(picture, lines, content)
