"""The classifier in the style of scikit-learn."""

import contextlib
import io
import json
import pathlib
import pickle
import signal
import sys
import tempfile
import warnings
from unittest import mock

import fresh_process
import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from classifier_inputs import blobs, hide_labels, tiny
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

import nsl_jax
from nsl_jax import SemiSupervisedClassifier
from nsl_jax.data.datasets import npz
from nsl_jax.training import config as config_lib, experiment, loop

# Checks of scikit-learn that fail, and why they must.
EXPECTED_FAILURES = {
  'check_classifiers_classes': 'it has a class -1, which is the label of '
  'unlabeled rows here'
}
# Checks that train, of which only some are run with every test.
_QUICK_ONES_THAT_TRAIN = (
  'check_dict_unchanged',
  'check_estimators_unfitted',
  'check_fit2d_predict1d',
  'check_n_features_in',
  'check_supervised_y_2d',
)
_WITHOUT_TRAINING = (
  'check_classifiers_one_label',
  'check_classifiers_regression_target',
  'check_complex_data',
  'check_do_not_raise_errors_in_init_or_set_params',
  'check_estimator_cloneable',
  'check_estimator_repr',
  'check_estimator_sparse_array',
  'check_estimator_tags_renamed',
  'check_estimators_empty_data_messages',
  'check_fit1d',
  'check_fit2d_1sample',
  'check_get_params_invariance',
  'check_mixin_order',
  'check_no_attributes_set_in_init',
  'check_parameters_default_constructible',
  'check_requires_y_none',
  'check_set_params',
  'check_supervised_y_no_nan',
  'check_valid_tag_types',
)


class FitTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.x, cls.y = blobs()
    cls.some = hide_labels(cls.y)
    cls.fitted = tiny('ns3l', steps=150, overrides=None).fit(cls.x, cls.some)

  def test_learns_and_scores(self):
    self.assertGreater(self.fitted.score(self.x, self.y), 0.9)
    probabilities = self.fitted.predict_proba(self.x)
    self.assertEqual(probabilities.shape, (60, 3))
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(
      self.fitted.predict(self.x), probabilities.argmax(1)
    )

  def test_attributes(self):
    np.testing.assert_array_equal(self.fitted.classes_, [0, 1, 2])
    self.assertEqual(self.fitted.classes_.dtype, self.some.dtype)
    self.assertEqual(self.fitted.n_features_in_, 4)
    self.assertEqual(self.fitted.predictor_.classes, ('0', '1', '2'))
    self.assertEqual(self.fitted.config_['method']['name'], 'ns3l')
    # A fifth of twelve labels would measure nothing.
    self.assertEqual(self.fitted.config_['data']['validation'], 0)
    self.assertEqual(self.fitted.results_['protocol'], 'last')
    self.assertIsNone(self.fitted.results_['score']['metric'])
    self.assertEqual(self.fitted.predictor_.weights, 'last')

  def test_unlabeled_rows_do_not_count(self):
    wrong = np.where(self.some < 0, -1, (self.fitted.predict(self.x) + 1) % 3)
    self.assertEqual(self.fitted.score(self.x, wrong), 0.0)
    right = np.where(self.some < 0, -1, self.fitted.predict(self.x))
    self.assertEqual(self.fitted.score(self.x, right), 1.0)
    with self.assertRaisesRegex(ValueError, 'give the same kind'):
      self.fitted.score(self.x, right.astype(str))
    with self.assertRaisesRegex(ValueError, 'inconsistent numbers of samples'):
      self.fitted.score(self.x, right[:9])
    weights = np.where(np.arange(60) % 2, 1.0, 0.0)
    mixed = np.where(np.arange(60) % 2, right, wrong)
    self.assertEqual(self.fitted.score(self.x, mixed, weights), 1.0)
    with self.assertRaisesRegex(ValueError, 'no labeled row'):
      self.fitted.score(self.x, np.full(60, -1))

  def test_is_pickled_as_arrays(self):
    content = pickle.dumps(self.fitted)
    self.assertLess(len(content), 2**20)
    loaded = pickle.loads(content)
    np.testing.assert_allclose(
      loaded.predict_proba(self.x), self.fitted.predict_proba(self.x), atol=1e-6
    )
    self.assertEqual(loaded.get_params(), self.fitted.get_params())
    self.assertEqual(loaded.predictor_.step, self.fitted.predictor_.step)

  def test_pickle_in_another_process(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    (folder / 'it').write_bytes(pickle.dumps(self.fitted))
    code = (
      'import pickle, sys, numpy as np\n'
      f'it = pickle.load(open({str(folder / "it")!r}, "rb"))\n'
      'print(it.predict(np.eye(3, 4, dtype="f") * 4.0).tolist())'
    )
    done = fresh_process.run('-c', code)
    self.assertEqual(done.stdout.strip(), '[0, 1, 2]', done.stderr)

  def test_other_inputs_are_refused(self):
    for inputs in (
      self.x[:, :3],
      np.zeros((2, 4, 4), np.uint8),
      np.full((2, 4), np.nan),
    ):
      with self.assertRaises(ValueError):
        self.fitted.predict(inputs)

  def test_is_silent(self):
    with (
      contextlib.redirect_stderr(io.StringIO()) as errors_of,
      contextlib.redirect_stdout(io.StringIO()) as printed,
      warnings.catch_warnings(),
    ):
      warnings.simplefilter('error')
      tiny().fit(self.x, self.some)
    self.assertEqual((errors_of.getvalue(), printed.getvalue()), ('', ''))

  def test_verbose_prints_what_the_command_prints(self):
    with contextlib.redirect_stderr(io.StringIO()) as printed:
      tiny(verbose=True).fit(self.x, self.some)
    self.assertRegex(printed.getvalue(), 'trains supervised, network mlp')
    self.assertRegex(
      printed.getvalue(), '3 classes with labeled examples .0 4, 1 4, 2 4., 48 '
    )
    self.assertRegex(printed.getvalue(), '4/4')

  def test_the_same_seed_gives_the_same_network(self):
    first, second, other = (
      tiny(random_state=seed).fit(self.x, self.some).predict_proba(self.x)
      for seed in (3, 3, np.random.RandomState(1))
    )
    np.testing.assert_array_equal(first, second)
    self.assertGreater(np.abs(first - other).max(), 1e-4)


class LabelsTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('numbers', lambda y: np.where(y < 0, -1, 10 * y + 5), -1, [5, 15, 25]),
    ('objects', lambda y: _objects(y, -1), -1, ['a', 'b', 'c']),
    ('empty', lambda y: _objects(y, '').astype(str), '', ['a', 'b', 'c']),
    ('word', lambda y: _objects(y, 'unknown'), 'unknown', ['a', 'b', 'c']),
    ('minus', lambda y: _objects(y, -1).astype(str), -1, ['a', 'b', 'c']),
    ('none', lambda y: _objects(y, None), None, ['a', 'b', 'c']),
    ('zero', lambda y: y + 1, 0, [1, 2, 3]),
  )
  def test_kinds(self, make, unlabeled, expected):
    x, y = blobs()
    labels = make(hide_labels(y))
    found = tiny(unlabeled=unlabeled).fit(x, labels)
    self.assertEqual(found.classes_.tolist(), expected)
    self.assertEqual(found.classes_.dtype, labels.dtype)
    self.assertEqual(found.predict(x).dtype, labels.dtype)
    self.assertEqual(
      found.results_['reports'][0]['labeled_by_class'], [4, 4, 4]
    )
    self.assertEqual(found.predictor_.classes, tuple(map(str, expected)))
    known = hide_labels(y) >= 0  # the others do not count
    right = found.predict(x)[known] == labels[known]
    self.assertAlmostEqual(found.score(x, labels), right.mean())

  def test_numbers_in_a_column_of_objects(self):
    x, y = blobs()
    y = hide_labels(y)
    labels = np.array([None if k < 0 else int(k) for k in y], object)
    found = tiny(unlabeled=None).fit(x, labels)
    self.assertEqual(found.classes_.dtype, np.int64)
    self.assertEqual(found.predict(x).dtype, np.int64)

  def test_rows_in_two_parts_are_told(self):
    x, y = blobs()
    twice = np.concatenate([x, x]), np.concatenate([y, y])
    with self.assertWarnsRegex(UserWarning, 'are also validation images'):
      tiny(validation=0.5).fit(*twice)

  def test_what_float32_loses_is_told(self):
    x, y = blobs()
    with self.assertWarnsRegex(UserWarning, 'columns 0, .* lose their diff'):
      tiny(steps=2).fit(x.astype(np.float64) + 1e9, y)

  def test_trains_beside_nan(self):
    x, y = blobs()
    some = np.where(hide_labels(y) < 0, np.nan, y)
    fitted = tiny('supervised', steps=2, unlabeled=np.nan).fit(x, some)
    np.testing.assert_array_equal(fitted.classes_, [0.0, 1.0, 2.0])

  def test_sorted_rows_are_no_collapse(self):
    """Rows from everywhere are looked at."""
    labels = np.repeat([-1, 0, 1], [3000, 10, 10])
    images = np.repeat([0, 1], [1500, 1520])[:, None, None, None]
    source = npz.of_arrays((images.reshape(-1, 1), labels))
    model = tiny()
    model.classes_ = np.array([0, 1])
    model.predictor_ = mock.Mock()
    model.predictor_.outputs = lambda x: np.eye(2)[x.ravel().astype(int)]
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      model._warn_of_collapse(source)

  def test_a_collapse_is_warned_of(self):
    x, y = blobs(300)
    constant = np.zeros_like(x)  # of which nothing can be told apart
    with self.assertWarnsRegex(UserWarning, 'the run has collapsed'):
      tiny().fit(constant, hide_labels(y))
    with warnings.catch_warnings():
      warnings.simplefilter('error', UserWarning)
      tiny(steps=60).fit(x, hide_labels(y))

  def test_order_of_many_classes(self):
    """10 comes after 2, as numbers do."""
    x, y = blobs(48, classes=12)
    found = tiny(steps=2).fit(x, y)
    self.assertEqual(found.classes_.tolist(), list(range(12)))

  def test_one_label_of_each_class(self):
    x, y = blobs()
    found = tiny('mixmatch').fit(x, hide_labels(y, each=1))
    self.assertEqual(found.config_['data']['validation'], 0)
    self.assertEqual(found.predictor_.weights, 'last')
    self.assertEqual(found.predictor_.step, 4)
    self.assertIsNone(found.results_['score']['mean'])

  def test_without_unlabeled_rows(self):
    x, y = blobs()
    found = tiny('auto').fit(x, y)
    self.assertEqual(found.config_['method']['name'], 'supervised')

  @parameterized.parameters(
    (np.arange(12) / 10, 'Unknown label type: continuous'),
    (np.array([0, 1.0, np.nan] * 4), 'NaN'),
    (np.array([1, 'a', -1] * 4, object), 'mixes'),
    (np.zeros(12, int), 'labels of 1 class:'),
    (np.full(12, -1), 'labels of 0 classes'),
    (np.zeros(11, int), 'labels of 1 class:'),
    (np.arange(11) % 2, 'one label for each'),
  )
  def test_wrong_labels(self, y, message):
    with self.assertRaisesRegex(ValueError, message):
      tiny().fit(blobs(12)[0], y)


def _objects(y, unlabeled):
  return np.array([unlabeled if k < 0 else 'abc'[k] for k in y], object)


class ParametersTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.x, y = blobs()
    cls.y = hide_labels(y)

  def config_of(self, labels=None, **values):
    """The config that is trained."""
    with (
      mock.patch.object(experiment, 'run', side_effect=KeyError) as run,
      contextlib.suppress(KeyError),
    ):
      SemiSupervisedClassifier(**values).fit(
        self.x, self.y if labels is None else labels
      )
    return run.call_args.args[0]

  def test_what_is_not_given_is_open(self):
    config = self.config_of()
    own = config_lib.load('configs/folder.py:dir=x.npz')
    with config.unlocked(), own.unlocked():
      config.data.name = config.data.dir = own.data.name = own.data.dir = ''
    self.assertEqual(config.to_dict(), own.to_dict())

  def test_values(self):
    config = self.config_of(
      method='mixmatch',
      network='mlp',
      steps=7,
      validation=0.25,
      batch_size=16,
      terms={'ns3l': {'weight': 2.0, 'threshold': 0.1}},
      overrides={'optimizer.lr': 0.5, 'model.dropout': 0.25},
      random_state=5,
    )
    self.assertEqual(config.method.name, 'mixmatch')
    self.assertEqual((config.model.name, config.model.dropout), ('mlp', 0.25))
    self.assertEqual((config.steps, config.seed), (7, 5))
    self.assertEqual(config.data.validation, 3)
    self.assertEqual(config.batch.to_dict(), {'labeled': 16, 'unlabeled': 16})
    self.assertEqual(config.method.terms.ns3l.weight, 2.0)
    self.assertEqual(config.method.terms.ns3l.threshold, 0.1)
    self.assertEqual(config.optimizer.lr, 0.5)

  @parameterized.parameters((['fairness'],), ({'fairness': {'weight': 0.5}},))
  def test_a_term_of_another_paper(self, terms):
    x, y = blobs()
    fitted = tiny('fixmatch', steps=2, terms=terms).fit(x, hide_labels(y))
    fields = fitted.config_['method']['terms']['fairness']
    self.assertEqual(
      fields['weight'], 0.5 if isinstance(terms, dict) else 0.001
    )

  @parameterized.parameters(('ns3l',), (['ns3l', 'vat'],))
  def test_terms(self, terms):
    """Their ramps follow from the steps, which are open."""
    config = self.config_of(terms=terms)
    names = {'ns3l'} if isinstance(terms, str) else set(terms)
    self.assertEqual(set(config.method.terms), names)
    self.assertNotIn('ramp_steps', config.method.terms.ns3l)  # as on its host
    if 'vat' in names:
      self.assertEqual(config.method.terms.vat.ramp_steps, -1)

  def test_no_unlabeled_rows_no_unlabeled_batch(self):
    config = self.config_of(np.abs(self.y), batch_size=16)
    self.assertEqual(config.batch.to_dict(), {'labeled': 16, 'unlabeled': -1})

  @parameterized.parameters((None, -1), (0, 0), (4, 4), (0.5, 6), (0.99, 9))
  def test_validation(self, validation, expected):
    """A share leaves one label of each of the three classes."""
    config = self.config_of(validation=validation)
    self.assertEqual(config.data.validation, expected)

  @parameterized.parameters(
    (dict(method='mixmach'), "did you mean 'mixmatch'"),
    (dict(network='small_cn'), "did you mean 'small_cnn'"),
    (dict(steps=0), 'at least 1'),
    (dict(validation=1.5), 'share'),
    (dict(validation=-1), 'at least 0'),
    (dict(validation=11), 'at most 9 of the 12 labeled rows'),
    (dict(terms='ns3'), "did you mean 'ns3l'"),
    (dict(overrides={'optimizer.rate': 1}), 'no such field'),
    (dict(overrides={'optimizer.lr': 'x'}), 'must be'),
    (dict(random_state=-1), 'random_state=-1: must be at least 0 and below'),
    (dict(random_state=2**32), 'random_state=4294967296: must be'),
    (dict(steps='10'), "steps='10': must be a whole number"),
    (dict(batch_size=-1), 'batch_size=-1: must be a whole number'),
    (dict(validation='0.2'), "validation='0.2': must be a number of rows"),
    (dict(validation=True), 'validation=True: must be a number of rows'),
    (dict(terms=5), 'terms=5: must be names'),
    (dict(terms={'ns3l': 3}), 'must be names, or a mapping'),
    (dict(overrides=[1]), r'overrides=\[1\]: must be values by field'),
    (dict(overrides={'seed': 7}), 'has seed, .* no effect: use random_state'),
    (dict(overrides={'data.name': 'mnist'}), 'data.name, .*: use X and y'),
  )
  def test_wrong_ones(self, values, message):
    with self.assertRaisesRegex(ValueError, message):
      SemiSupervisedClassifier(**values).fit(self.x, self.y)

  def test_clone_and_parameters(self):
    first = SemiSupervisedClassifier('vat', steps=3, terms=('ns3l',))
    copy = clone(first)
    self.assertEqual(copy.get_params(), first.get_params())
    self.assertEqual(copy.set_params(steps=9).steps, 9)
    with self.assertRaisesRegex(ValueError, 'Invalid parameter'):
      copy.set_params(step=9)

  def test_not_fitted(self):
    for name in ('predict', 'predict_proba'):
      with self.assertRaises(NotFittedError):
        getattr(tiny(), name)(self.x)
    with self.assertRaises(NotFittedError):
      tiny().score(self.x, self.y)

  def test_work_folder(self):
    """Is that of a run, which a second fit finds done."""
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    it = tiny(workdir=folder / 'run').fit(self.x, self.y)
    results = json.loads((folder / 'run' / 'results.json').read_text())
    self.assertEqual(results['score'], it.results_['score'])
    loaded = nsl_jax.load(folder / 'run')
    np.testing.assert_array_equal(
      loaded.predict_proba(self.x), it.predict_proba(self.x)
    )
    with mock.patch.object(loop, 'run', side_effect=AssertionError):
      it.fit(self.x, self.y)
    with self.assertRaisesRegex(ValueError, 'other images or labels'):
      it.fit(self.x + 1.0, self.y)

  def test_temporary_folder_is_removed(self):
    with tempfile.TemporaryDirectory() as folder:
      with mock.patch.object(tempfile, 'tempdir', folder):
        tiny().fit(self.x, self.y)
      self.assertEmpty(list(pathlib.Path(folder).iterdir()))

  def test_interrupt(self):
    """It is one of Python, and the settings of the process stay."""
    configs = sys.modules.get('configs')
    stop = loop.Interrupted(signal.SIGINT)
    with (
      mock.patch.object(loop, 'run', side_effect=stop),
      jax.default_matmul_precision('high'),
    ):
      before = getattr(jax.config, 'jax_default_matmul_precision')
      with self.assertRaises(KeyboardInterrupt):
        tiny().fit(self.x, self.y)
      self.assertEqual(
        getattr(jax.config, 'jax_default_matmul_precision'), before
      )
    self.assertIs(sys.modules.get('configs'), configs)


class ImagesTest(parameterized.TestCase):
  @parameterized.parameters(
    ((8, 8), 'mlp'), ((8, 8, 1), 'auto'), ((8, 8, 3), 'mlp')
  )
  def test_images(self, shape, network):
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    x = rng.integers(0, 100, (20, *shape)).astype(np.uint8)
    x[y == 1] += 150
    it = SemiSupervisedClassifier(
      'supervised', network=network, steps=8, batch_size=8
    )
    it.fit(x, hide_labels(y))
    chosen = 'small_cnn' if network == 'auto' else network
    self.assertEqual(it.config_['model']['name'], chosen)
    self.assertFalse(hasattr(it, 'n_features_in_'))
    self.assertEqual(it.predict(x).shape, (20,))
    with self.assertRaisesRegex(ValueError, 'inputs of shape'):
      it.predict(np.zeros((2, 4, 4), np.uint8))
    with self.assertRaisesRegex(ValueError, '64 features'):
      it.predict(np.zeros((2, 64)))

  def test_features_then_images(self):
    x, y = blobs(20)
    it = tiny().fit(x, y)
    it.fit(np.zeros((20, 8, 8), np.uint8), y)
    self.assertFalse(hasattr(it, 'n_features_in_'))

  def test_other_kinds_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'give images as uint8'):
      tiny().fit(np.zeros((4, 8, 8)), np.arange(4) % 2)


class ScikitLearnTest(parameterized.TestCase):
  def test_cross_validation(self):
    """Of folds with unlabeled rows, which do not count."""
    x, y = blobs()
    found = cross_val_score(
      tiny(steps=100, batch_size=16), x, hide_labels(y, each=8), cv=2
    )
    self.assertEqual(found.shape, (2,))
    self.assertGreater(found.min(), 0.5)

  def test_search_in_a_pipeline(self):
    x, y = blobs()
    search = GridSearchCV(
      make_pipeline(StandardScaler(), tiny()),
      {'semisupervisedclassifier__steps': [1, 4]},
      cv=2,
      error_score='raise',
    ).fit(x, hide_labels(y, each=8))
    self.assertTrue(np.isfinite(search.cv_results_['mean_test_score']).all())
    self.assertIn(search.best_estimator_[-1].steps, (1, 4))
    self.assertEqual(search.predict(x).shape, (60,))

  def checks(self, names=None):
    it = tiny(
      steps=40,
      validation=0,
      overrides={'optimizer.lr': 3e-3, 'model.hidden': 32},
    )
    known = set()
    for one, check in estimator_checks.estimator_checks_generator(
      it, expected_failed_checks=EXPECTED_FAILURES, mark='skip'
    ):
      name = getattr(check, 'func', check).__name__
      known.add(name)
      if names is None or name in names:
        with self.subTest(name), warnings.catch_warnings():
          warnings.simplefilter('ignore')
          with contextlib.suppress(absltest.SkipTest):
            check(one)
    return known

  def test_checks_of_scikit_learn(self):
    names = {*_WITHOUT_TRAINING, *_QUICK_ONES_THAT_TRAIN}
    self.assertContainsSubset(names, self.checks(names))

  @pytest.mark.slow
  def test_all_checks_of_scikit_learn(self):
    self.assertGreater(len(self.checks()), 40)

  def test_no_class_is_the_label_of_unlabeled_rows(self):
    """Why the checks in `EXPECTED_FAILURES` fail."""
    x, y = blobs(classes=2)
    with self.assertRaisesRegex(ValueError, 'labels of 1 class'):
      tiny().fit(x, np.where(y, 1, -1))


class LazyNamesTest(absltest.TestCase):
  def test_unknown_name(self):
    with self.assertRaisesRegex(AttributeError, "no attribute 'laod'"):
      getattr(nsl_jax, 'laod')


if __name__ == '__main__':
  absltest.main()
