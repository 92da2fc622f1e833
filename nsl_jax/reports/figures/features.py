"""DN-F5: t-SNE of the features of test images in the last hidden layer.

Shows the same MNIST images in two networks trained with the same 20 labels, by
DNLL and by the labels alone. t-SNE preserves neighborhoods only; the silhouette
score of the true classes in the feature space (mean over images, -1 to 1)
measures their separation.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import sklearn
from sklearn import manifold, metrics

from nsl_jax import models
from nsl_jax.compose import combinators
from nsl_jax.papers import rows
from nsl_jax.reports import style
from nsl_jax.reports.figures import cells
from nsl_jax.training import assembly
from nsl_jax.types import Array, Outputs, State

IMAGES = 2000
_SEED = 0  # seed of the choice of images and of t-SNE
_BATCH = 500
PERPLEXITY = 30.0


class Panel(NamedTuple):
  """The images of a cell in two dimensions.

  Attributes:
    name: name of the cell.
    title: title of the panel.
    places: f32[N, 2].
    labels: i32[N], true classes.
    facts: content of the ledger file.
  """

  name: str
  title: str
  places: np.ndarray
  labels: np.ndarray
  facts: dict[str, Any]


def cells_of(row: rows.Row, *, seeds: int, reduced: int) -> list[cells.Cell]:
  """DNLL and labels alone, with the same splits, network and steps."""
  labels_alone = f'{row.labels} labels alone'
  return [
    cells.make(
      name, label, f'{row.config}:method={name}', seeds=seeds, reduced=reduced
    )
    for name, label in (('dnll', 'DNLL'), ('supervised', labels_alone))
  ]


def _network(state: State, name: str | None, averaged: bool) -> tuple[Any, Any]:
  """Parameters and statistics of a network, of two networks that of `name`."""
  params = state.slots[combinators.EMA] if averaged else state.params
  if name is None:
    return params, state.stats
  return params[name], state.stats[name]


def features(trained: cells.Trained) -> tuple[np.ndarray, np.ndarray, str]:
  """Features of some test images after the last step of the first seed.

  Returns:
    f32[N, D], true classes i32[N], and the name of the reported one of two
    networks, or ''.
  """
  config, report = trained.cell.config, trained.results['reports'][0]
  parts = assembly.prepare(config, trained.folder)
  state = cells.last_state(
    parts, report['seed'], trained.folder / f'seed_{report["seed"]}'
  )
  name = report['last'].get('submodel')
  params, stats = _network(state, name, bool(config.ema_decay))
  model = models.build(config.model.to_dict(), parts.source.num_classes)

  @jax.jit
  def hidden(params: Any, stats: Any, images: Array) -> Array:
    view = parts.normalize(parts.fitted, images)
    outputs: Outputs = model.apply(params, stats, view, train=False)[0]
    return outputs.features

  images, labels = parts.source.test
  chosen = np.random.default_rng(_SEED).permutation(len(images))[:IMAGES]
  cuts = [chosen[at : at + _BATCH] for at in range(0, len(chosen), _BATCH)]
  batches = [np.asarray(hidden(params, stats, images[cut])) for cut in cuts]
  return np.concatenate(batches), labels[chosen], name or ''


def panel_of(trained: cells.Trained) -> Panel:
  """t-SNE of a cell."""
  hidden, labels, submodel = features(trained)
  tsne = manifold.TSNE(
    n_components=2,
    perplexity=min(PERPLEXITY, (len(hidden) - 1) / 3),
    init='pca',
    random_state=_SEED,
  )
  places = tsne.fit_transform(hidden)
  silhouette = float(metrics.silhouette_score(hidden, labels))
  # Accuracy of the plotted network, not that of the protocol over seeds.
  accuracy = 100.0 - trained.results['reports'][0]['last']['test_error']
  facts = {
    'cell': trained.cell.name,
    'submodel': submodel,
    'accuracy_of_all_images': accuracy,
    'images': len(hidden),
    'dimensions': hidden.shape[1],
    'perplexity': tsne.perplexity,
    'kl_divergence': float(tsne.kl_divergence_),
    'silhouette': silhouette,
  }
  title = (
    f'{trained.cell.label}: accuracy {accuracy:.2f} %, '
    f'silhouette {silhouette:.2f}'
  )
  return Panel(trained.cell.name, title, places, labels, facts)


def picture(panels: list[Panel], title: str) -> bytes:
  """All panels, colored by true class."""
  figure, axes = style.new(len(panels), 5.0 * len(panels), 5.2)
  for axis, panel in zip(axes, panels):
    for label in np.unique(panel.labels):
      of_class = panel.places[panel.labels == label]
      axis.scatter(
        of_class[:, 0],
        of_class[:, 1],
        s=5,
        linewidths=0,
        label=str(label),
        color=f'C{label}',
      )
    axis.set_title(panel.title, fontsize=9)
    axis.set(xticks=[], yticks=[])
  figure.suptitle(title, fontsize=9)
  handles, names = axes[0].get_legend_handles_labels()
  figure.legend(
    handles,
    names,
    loc='outside lower center',
    ncols=10,
    markerscale=3,
    fontsize=8,
    frameon=False,
  )
  return style.png(figure)


def lines_of(panels: list[Panel]) -> list[dict[str, Any]]:
  """Lines of the CSV file, one per image and panel."""
  return [
    {
      'panel': panel.name,
      'x': round(float(x), 4),
      'y': round(float(y), 4),
      'label': int(label),
    }
    for panel in panels
    for (x, y), label in zip(panel.places, panel.labels)
  ]


def draw(
  row: rows.Row, *, seeds: int, reduced: int, workdir: pathlib.Path
) -> style.Drawing:
  """Trains unfinished cells, and draws the first seed.

  Raises:
    errors.UserError: for wrong input or missing data.
    errors.TrainingError: if a cell's loss is not finite.
  """
  trained = cells.train(cells_of(row, seeds=seeds, reduced=reduced), workdir)
  panels = [panel_of(cell_run) for cell_run in trained]
  return cells.drawing(
    row,
    trained,
    lines_of(panels),
    lambda title: picture(panels, title),
    facts={'panels': [panel.facts for panel in panels]},
    versions={'scikit-learn': sklearn.__version__},
  )
