"""Accuracy at few labels: our classifier beside those of scikit-learn.

Nothing is chosen by test accuracy: ours run with their defaults, where a fifth
of the labels is held out, scikit-learn's with theirs and what `SETTINGS`
states. Labels are drawn anew for each seed, as many of every class, and are the
same for all classifiers.
"""

import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from nsl_jax import errors, files
from nsl_jax.data import sources
from nsl_jax.inference.classifier import SemiSupervisedClassifier
from nsl_jax.training import workdir as workdir_lib

LABELS = (5, 10, 50)  # of every class
_COMPONENTS = 50
_ROWS = 10_000  # of Fashion-MNIST
_METHODS = ('supervised', 'ns3l', 'mean_teacher', 'mixmatch')
SETTINGS = {
  'labels': 'drawn for each seed, as many of every class; the other training '
  'rows are unlabeled',
  'digits': 'scikit-learn, 1,437 training and 360 test images of 8x8 pixels; '
  'for scikit-learn their 64 pixels in [0, 1]',
  'fashion_mnist_pca50': '50 principal components fitted to all 60,000 '
  'training images without labels; 10,000 random training rows, labeled and '
  'unlabeled ones together; all 10,000 test rows',
  'ours': 'SemiSupervisedClassifier(method, random_state=seed), all else at '
  'its default: a fifth of the labels, if 10 or more, is held out, and chooses '
  'the weights if 100 or more',
  'LogisticRegression': 'on the labeled rows alone, standardized; '
  'max_iter=1000',
  'SelfTraining': 'SelfTrainingClassifier(LogisticRegression(max_iter=1000)) '
  'on all rows, standardized',
  'LabelSpreading': "kernel='knn', n_neighbors=7, not standardized; "
  'max_iter=100',
  'fit_s': 'seconds of one fit; ours include what is not compiled yet',
}


class Table(NamedTuple):
  """Training and test rows.

  Attributes:
    images: of both, as our classifier takes them.
    features: of both, f32[N, D], as scikit-learn's take them.
    labels: of both, i32[N].
  """

  images: tuple[np.ndarray, np.ndarray]
  features: tuple[np.ndarray, np.ndarray]
  labels: tuple[np.ndarray, np.ndarray]


def digits() -> Table:
  """Images of scikit-learn's digits, and their pixels."""
  source = sources.load('digits')
  train, test = (part.images for part in (source.train, source.test))
  pixels = tuple(_pixels(images) for images in (train, test))
  return Table(
    (train, test),
    (pixels[0], pixels[1]),
    (source.train.labels, source.test.labels),
  )


def fashion_mnist() -> Table:
  """Principal components of Fashion-MNIST."""
  source = sources.load('fashion_mnist')
  pixels = _pixels(source.train.images)
  pca = PCA(_COMPONENTS, svd_solver='covariance_eigh').fit(pixels)
  rows = np.random.default_rng(0).permutation(len(pixels))[:_ROWS]
  train = pca.transform(pixels[rows]).astype(np.float32)
  test = pca.transform(_pixels(source.test.images)).astype(np.float32)
  labels = source.train.labels[rows], source.test.labels
  return Table((train, test), (train, test), labels)


def _pixels(images: np.ndarray) -> np.ndarray:
  return images.reshape(len(images), -1).astype(np.float32) / 255.0


DATA: Mapping[str, Callable[[], Table]] = {
  'digits': digits,
  'fashion_mnist_pca50': fashion_mnist,
}


class LabeledOnly(LogisticRegression):
  """Logistic regression that leaves unlabeled rows out."""

  def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
    """Fits to the rows whose label is not -1."""
    labeled = np.asarray(y) != -1
    return super().fit(X[labeled], y[labeled], sample_weight)


def classifiers(seed: int) -> dict[str, Any]:
  """Those that are compared, by name; 'ours: ' begins the names of ours."""
  ours = {
    f'ours: {method}': SemiSupervisedClassifier(method, random_state=seed)
    for method in _METHODS
  }
  regression = LogisticRegression(max_iter=1000)
  return ours | {
    'LogisticRegression': make_pipeline(
      StandardScaler(), LabeledOnly(max_iter=1000)
    ),
    'SelfTraining': make_pipeline(
      StandardScaler(), SelfTrainingClassifier(regression)
    ),
    'LabelSpreading': LabelSpreading(kernel='knn', n_neighbors=7, max_iter=100),
  }


def hide(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
  """Labels i32[N] of which `per_class` of every class are left, others -1."""
  order = np.random.default_rng([seed, per_class]).permutation(len(labels))
  visible = np.full_like(labels, -1)
  for label in np.unique(labels):
    rows = order[labels[order] == label][:per_class]
    visible[rows] = label
  return visible


def fit(
  name: str, classifier: Any, table: Table, labels: np.ndarray
) -> dict[str, Any]:
  """Accuracy of one classifier, in %, and the seconds that it took.

  Args:
    name: of the classifier.
    classifier: not fitted.
    table: the rows.
    labels: of the training rows, -1 for those that it must not see.
  """
  ours = name.startswith('ours')
  train, test = table.images if ours else table.features
  begun = time.perf_counter()
  classifier.fit(train, labels)
  seconds = time.perf_counter() - begun
  predicted = classifier.predict(test)
  result = {
    'accuracy': 100.0 * float(np.mean(predicted == table.labels[1])),
    'fit_s': round(seconds, 3),
  }
  if ours:
    results = classifier.results_
    result['validation_error'] = results['score']['mean']
    result['steps'] = results['steps']
  return result


def measure(
  path: pathlib.Path | None,
  seeds: Iterable[int],
  *,
  data: Mapping[str, Callable[[], Table]] = DATA,
  labels: Sequence[int] = LABELS,
  make: Callable[[int], Mapping[str, Any]] = classifiers,
) -> list[dict[str, Any]]:
  """Fits all classifiers to all data, skipping what the file has.

  Args:
    path: a JSON file, written after every fit; None for none.
    seeds: of the labels, and of classifiers that have one.
    data: what loads them, by name.
    labels: numbers of labels of every class.
    make: `seed -> {name: classifier}`.

  Returns:
    A dict a fit: `data`, `labels`, `classifier`, `seed`, and what `fit` gives.

  Raises:
    errors.UserError: if the file is of another version or machine.
  """
  provenance = workdir_lib.provenance(1)
  content = _read(path, provenance)
  cells: list[dict[str, Any]] = content['cells']
  keys = ('data', 'labels', 'classifier', 'seed')
  done = {tuple(cell[key] for key in keys) for cell in cells}
  tables = {name: functools.cache(load) for name, load in data.items()}
  for seed in seeds:
    for name, load in tables.items():
      for per_class in labels:
        for model, classifier in make(seed).items():
          key = (name, per_class, model, seed)
          if key in done:
            continue
          begun = time.perf_counter()
          visible = hide(load().labels[0], per_class, seed)
          cell = fit(model, classifier, load(), visible)
          cells.append(dict(zip(keys, key)) | cell)
          content['seeds'] = sorted({cell['seed'] for cell in cells})
          content['wall_time_s'] += time.perf_counter() - begun
          _write(path, content)
          print(
            f'{name}, {per_class} labels a class, seed {seed}, {model}: '
            f'{cell["accuracy"]:.2f} % in {cell["fit_s"]:.1f} s',
            file=sys.stderr,
          )
  return cells


def _read(
  path: pathlib.Path | None, provenance: dict[str, Any]
) -> dict[str, Any]:
  if path is None or not path.exists():
    return {
      'kind': 'classifiers',
      **provenance,
      'settings': SETTINGS,
      'seeds': [],
      'wall_time_s': 0.0,
      'cells': [],
    }
  content = workdir_lib.read_json(path)
  for name, value in provenance.items():
    if content.get(name) != value:
      raise errors.UserError(
        f'{path} has {name} {content.get(name)}, and here it is {value}: '
        'remove it, or name another --json'
      )
  return content


def _write(path: pathlib.Path | None, content: Mapping[str, Any]) -> None:
  if path is not None:
    files.write(path, (json.dumps(content, indent=1) + '\n').encode())


def table(cells: Sequence[Mapping[str, Any]]) -> str:
  """A Markdown table, a row a data set and classifier, test accuracy in % as
  mean ± standard deviation over seeds and mean seconds to fit."""
  counts = sorted({cell['labels'] for cell in cells})
  heads = [f'{n} labels a class | s' for n in counts]
  lines = [
    f'| data | classifier | {" | ".join(heads)} |',
    '| --- | --- |' + ' --- | --- |' * len(counts),
  ]
  rows = dict.fromkeys((cell['data'], cell['classifier']) for cell in cells)
  for data, model in rows:
    words = []
    for count in counts:
      accuracies = [
        cell
        for cell in cells
        if (cell['data'], cell['classifier'], cell['labels'])
        == (data, model, count)
      ]
      words += _words(accuracies)
    lines.append(f'| {data} | {model} | {" | ".join(words)} |')
  return '\n'.join(lines)


def _words(cells: Sequence[Mapping[str, Any]]) -> list[str]:
  """Accuracy and seconds of one classifier at one number of labels."""
  if not cells:
    return ['', '']
  values = [cell['accuracy'] for cell in cells]
  text = f'{statistics.fmean(values):.1f}'
  if len(values) > 1:
    text += f' ± {statistics.stdev(values):.1f}'
  return [text, f'{statistics.fmean(c["fit_s"] for c in cells):.1f}']
