"""Semi-supervised training as a classifier in the style of scikit-learn."""

import numbers
import os
import pathlib
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import jax
import ml_collections
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
  check_consistent_length,
  check_is_fitted,
  validate_data,
)

from nsl_jax import errors
from nsl_jax.data import duplicates, examples
from nsl_jax.data.datasets import npz
from nsl_jax.inference import labels as labels_lib, loading
from nsl_jax.training import checkpoint, config as config_lib, experiment, loop

_CONFIG = 'configs/folder.py'
_NAME = 'arrays'
_SEEDS = 2**31 - 1
# Fields of the config that only a parameter sets.
_SET_BY = {
  'seed': 'random_state',
  'seeds': 'one classifier for each random_state',
  'data.name': 'X and y',
  'data.dir': 'X and y',
}
_LOOKED_AT, _LEAST = 1000, 50  # unlabeled rows that are predicted after a fit
_NEARLY_ALL = 0.9


class SemiSupervisedClassifier(ClassifierMixin, BaseEstimator):
  """A network trained on labeled and unlabeled rows.

  It trains as `python -m nsl_jax train --config=configs/folder.py` does. What
  is left open follows from the data.

  Args:
    method: `auto` (mixmatch for images, mean_teacher for features, supervised
      without unlabeled rows), or a method
      such as `supervised`, `ns3l`, `mean_teacher`, `vat`, `mixmatch`, or a
      function that builds one, see `methods.find`.
    network: `auto` (by the shape of the inputs), or a network, or what makes
      one, see `models.find`.
    steps: number of training steps; None to follow from the number of rows.
    validation: number of labeled rows held out, or their share as a float in
      (0, 1); None for a fifth where that is 10 rows or more, else none; 0 for
      none. Each class keeps a labeled row to train on. From 100 rows on they
      choose among the weights of the run; fewer measure its error, and the
      weights of the last step are used.
    batch_size: labeled rows of a step, and as many unlabeled ones; None for
      the default.
    terms: names of losses on the unlabeled rows to add to the method (`ns3l`,
      `pseudo_label`, `entropy`, `pi`, `vat`, `dnll`, `fairness`), or a mapping
      from each name to its options; `module` of a term of your own is the
      function that builds it, see `terms.find`.
    overrides: fields of the config by dotted name, such as `{'optimizer.lr':
      1e-3, 'data.augment': 'noise:0.1'}`.
    unlabeled: the label of rows without one; None, NaN and pandas' NA are all
      of them. Where `y` are strings, -1 stands for '-1', too.
    random_state: seed of the split, the first weights and the batches; an int
      for the same result every time.
    workdir: folder of the run, which a second `fit` on the same data resumes;
      None for a temporary one. A search over parameters needs None; fits of
      equal parameters to as many rows share what is compiled.
    verbose: whether to print what is chosen, warnings and progress to stderr.

  Attributes:
    classes_: K labels in order, of the kind of `y`.
    n_features_in_: D, where the rows are features.
    feature_names_in_: their names, where they are columns of a data frame.
    predictor_: the network as an `nsl_jax.inference.predictor.Predictor`.
    results_: what the run's `results.json` holds, warnings among it.
    config_: the config of the run, complete.

  >>> from nsl_jax import SemiSupervisedClassifier
  >>> SemiSupervisedClassifier('ns3l', steps=500)
  SemiSupervisedClassifier(method='ns3l', steps=500)
  """

  def __init__(
    self,
    method: str | Callable[..., Any] = 'auto',
    *,
    network: str | Callable[..., Any] = 'auto',
    steps: int | None = None,
    validation: int | float | None = None,
    batch_size: int | None = None,
    terms: Sequence[str] | Mapping[str, Mapping[str, Any]] = (),
    overrides: Mapping[str, Any] | None = None,
    unlabeled: Any = -1,
    random_state: Any = 0,
    workdir: str | os.PathLike | None = None,
    verbose: bool = False,
  ):
    self.method = method
    self.network = network
    self.steps = steps
    self.validation = validation
    self.batch_size = batch_size
    self.terms = terms
    self.overrides = overrides
    self.unlabeled = unlabeled
    self.random_state = random_state
    self.workdir = workdir
    self.verbose = verbose

  def fit(self, X: Any, y: Any) -> Self:
    """Trains on all rows.

    Args:
      X: images u8[N, H, W] or u8[N, H, W, C] with 1 or 3 channels, or features
        as numbers [N, D].
      y: labels [N], whole numbers or strings, `unlabeled` where there is none.
        What encodes labels before it fits makes a class of `unlabeled`, such as
        scikit-learn's VotingClassifier, StackingClassifier,
        CalibratedClassifierCV, and cross_val_predict of probabilities.

    Raises:
      ValueError: for wrong data or parameters.
      errors.TrainingError: if the loss is not finite.
    """
    if y is None:
      raise ValueError(
        f'{type(self).__name__} requires y to be passed, but the target y is '
        'None'
      )
    images = self._images(X, reset=True)
    y, labeled = labels_lib.read(y, self.unlabeled)
    self.classes_, codes = labels_lib.classes(y, labeled)
    labels = np.full(len(y), -1)
    labels[labeled] = codes
    with _user_errors(), _interrupts(), _settings_kept():
      source = npz.of_arrays(
        (images, labels), name=_NAME, names=tuple(map(str, self.classes_))
      )
      config = self._config(labels)
      if self.workdir is not None:
        self._run(config, pathlib.Path(self.workdir).expanduser(), source)
        return self
      with tempfile.TemporaryDirectory(
        prefix='nsl_jax_', ignore_cleanup_errors=True
      ) as folder:
        self._run(config, pathlib.Path(folder), source)
    return self

  def _run(
    self,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    source: examples.Source,
  ) -> None:
    self.results_ = experiment.run(
      config, workdir, source, verbose=self.verbose
    )
    self.config_ = self.results_['config']
    self.predictor_ = loading.load(workdir)
    for line in self.results_['warnings']:
      if duplicates.IN_BOTH in line and not self.verbose:
        warnings.warn(line, stacklevel=3)
    self._warn_of_collapse(source)

  def _warn_of_collapse(self, source: examples.Source) -> None:
    """Warns where one class is nearly all that is predicted of unlabeled rows,
    and the labels are not like that.
    """
    labels = source.train.labels
    rows = np.flatnonzero(labels < 0)
    rows = rows[:: -(-len(rows) // _LOOKED_AT) or 1]  # they may be sorted
    if len(rows) < _LEAST:
      return
    predicted = self.predictor_.outputs(source.train.images[rows]).argmax(1)
    counts = np.bincount(predicted, minlength=source.num_classes)
    share = counts.max() / len(rows)
    if share > _NEARLY_ALL and share > 1.2 * np.mean(
      labels[labels >= 0] == counts.argmax()
    ):
      warnings.warn(
        f'class {self.classes_[counts.argmax()]!s} is {100 * share:.0f} % of '
        'the predictions of unlabeled rows: the run has collapsed. Label more '
        'rows, or try another method, such as mean_teacher or supervised',
        stacklevel=3,
      )

  def _config(self, labels: np.ndarray) -> ml_collections.ConfigDict:
    """The config of the run; what is open stays open."""
    self._check_parameters()
    terms = [self.terms] if isinstance(self.terms, str) else list(self.terms)
    if isinstance(self.terms, Mapping):  # those of other packages stay out
      terms = [name for name in terms if 'module' not in self.terms[name]]
    pairs: dict[str, Any] = {
      'method.name': self.method,
      'model.name': self.network,
    }
    if self.batch_size is not None:
      pairs['batch.labeled'] = self.batch_size
      if (labels < 0).any():
        pairs['batch.unlabeled'] = self.batch_size
    if isinstance(self.terms, Mapping):
      for term, options in self.terms.items():
        pairs |= {f'method.terms.{term}.{k}': v for k, v in options.items()}
    pairs |= self.overrides or {}
    config = config_lib.load(
      _CONFIG,
      pairs,
      dir=f'{_NAME}.npz',
      steps=self.steps or 0,
      validation=self._held_out(labels),
      terms='+'.join(terms),
    )
    with config.unlocked():
      config.seed = _seed(self.random_state)
    return config

  def _check_parameters(self) -> None:
    for name in ('steps', 'batch_size'):
      value = getattr(self, name)
      if value is not None and not _is_whole(value, least=1):
        raise errors.UserError(
          f'{name}={value!r}: must be a whole number of at least 1, or None'
        )
    number = isinstance(self.validation, numbers.Real)
    if self.validation is not None and (
      not number or isinstance(self.validation, bool)
    ):
      raise errors.UserError(
        f'validation={self.validation!r}: must be a number of rows, a share, '
        'or None'
      )
    options: Any = self.terms
    if isinstance(options, Mapping):
      options = list(options.values())
      wrong = not all(isinstance(one, Mapping) for one in options)
    else:
      wrong = not isinstance(options, Sequence)
    if wrong:
      raise errors.UserError(
        f'terms={self.terms!r}: must be names, or a mapping from each name to '
        'its options'
      )
    if self.overrides is not None and not isinstance(self.overrides, Mapping):
      raise errors.UserError(
        f'overrides={self.overrides!r}: must be values by field'
      )
    for field in self.overrides or {}:
      if field in _SET_BY:
        raise errors.UserError(
          f'overrides has {field}, which would have no effect: use '
          f'{_SET_BY[field]}'
        )

  def _held_out(self, labels: np.ndarray) -> int:
    """Number of validation rows; -1 leaves it open."""
    value = self.validation
    if value is None:
      return -1
    counts = np.bincount(labels[labels >= 0])
    most = int(np.maximum(counts - 1, 0).sum())
    if isinstance(value, (float, np.floating)):
      if not 0 < value < 1:
        raise errors.UserError(
          f'validation={value}: a share must be in (0, 1); give a number of '
          'rows as an int'
        )
      return min(round(value * counts.sum()), most)
    if not 0 <= value <= most:
      raise errors.UserError(
        f'validation={value}: must be at least 0, and at most {most} of the '
        f'{counts.sum()} labeled rows, since each class keeps one to train on'
      )
    return int(value)

  def predict_proba(self, X: Any) -> np.ndarray:
    """Probabilities f32[N, K] of the classes in the order of `classes_`.

    Args:
      X: as in `fit`.

    Raises:
      sklearn.exceptions.NotFittedError: before `fit`.
      ValueError: for inputs unlike those of `fit`.
    """
    check_is_fitted(self)
    images = self._images(X, reset=False)
    with _user_errors():
      return self.predictor_.outputs(self.predictor_.images_of(images))

  def predict(self, X: Any) -> np.ndarray:
    """The most probable class of each row, of `classes_`; see
    `predict_proba`."""
    probabilities = self.predict_proba(X)
    return self.classes_[probabilities.argmax(1)]

  def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
    """Accuracy on the rows that have a label.

    Scorers of scikit-learn by name, such as 'accuracy', count each unlabeled
    row as an error; leave `scoring` at None in `cross_val_score` and the like.

    Args:
      X: as in `fit`.
      y: labels [N]; rows with the label `unlabeled` are left out.
      sample_weight: f[N], or None.

    Raises:
      ValueError: if no row has a label.
    """
    check_is_fitted(self)
    y, labeled = labels_lib.read(y, self.unlabeled)
    check_consistent_length(X, y, sample_weight)
    if not labeled.any():
      raise ValueError('y has no labeled row, so there is no accuracy')
    if sample_weight is not None:
      sample_weight = np.asarray(sample_weight)[labeled]
    true = np.array(y[labeled].tolist())
    words = [array.dtype.kind in 'OUS' for array in (true, self.classes_)]
    if words[0] != words[1]:
      raise ValueError(
        f'y has labels such as {true[0]!r}, and the classes of the fit are '
        f'such as {self.classes_[0]!r}: give the same kind'
      )
    right = self.predict(X)[labeled] == true
    return float(np.average(right, weights=sample_weight))

  def _images(self, X: Any, *, reset: bool) -> np.ndarray:
    """X as u8[N, H, W, C] or f32[N, D], checked."""
    dimensions = X.ndim if hasattr(X, 'ndim') else np.asarray(X).ndim
    if dimensions <= 2 or np.asarray(X).dtype.kind in 'OUS':
      rows = validate_data(
        self, X, reset=reset, dtype=np.float32, ensure_min_samples=1
      )
      if reset:
        for line in npz.lost_in_float32(np.asarray(X), 'X'):
          warnings.warn(line, stacklevel=3)
      return rows
    if reset:  # of an earlier fit to features
      for name in ('n_features_in_', 'feature_names_in_'):
        self.__dict__.pop(name, None)
    with _user_errors():
      return npz.as_images(X, 'X')

  def __sklearn_is_fitted__(self) -> bool:
    """Whether there is a network."""
    return hasattr(self, 'predictor_')

  def __sklearn_tags__(self) -> Any:
    """Features or images, of two classes or more."""
    tags = super().__sklearn_tags__()
    tags.input_tags.three_d_array = True
    return tags


def _is_whole(value: Any, least: int) -> bool:
  whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  return whole and value >= least


def _seed(random_state: Any) -> int:
  if isinstance(random_state, (int, np.integer)):
    if not 0 <= random_state < 2**32:
      raise errors.UserError(
        f'random_state={random_state}: must be at least 0 and below 2^32'
      )
    return int(random_state)
  return int(check_random_state(random_state).randint(_SEEDS))


@contextmanager
def _user_errors() -> Iterator[None]:
  """Raises scikit-learn's ValueError in place of the package's own."""
  try:
    yield
  except errors.UserError as error:
    raise ValueError(str(error)) from error


@contextmanager
def _interrupts() -> Iterator[None]:
  """Ctrl-C is a KeyboardInterrupt, as everywhere in Python."""
  try:
    yield
  except loop.Interrupted as stop:
    if stop.signal == signal.SIGINT:
      raise KeyboardInterrupt from stop
    raise


@contextmanager
def _settings_kept() -> Iterator[None]:
  """What a run sets for its process is the caller's again after it: the
  precision of products, and which modules are named `configs`. Checkpoints
  are written without log messages meanwhile."""
  precision = getattr(jax.config, 'jax_default_matmul_precision')
  is_configs = lambda name: name.partition('.')[0] == 'configs'
  modules = {k: v for k, v in sys.modules.items() if is_configs(k)}
  try:
    with checkpoint.without_log():
      yield
  finally:
    jax.config.update('jax_default_matmul_precision', precision)
    for name in [n for n in sys.modules if is_configs(n)]:
      del sys.modules[name]
    sys.modules.update(modules)
