"""The benchmark beside scikit-learn measures each cell once."""

import contextlib
import io
import json
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest
from classifier_inputs import blobs, hide_labels, tiny
from sklearn.linear_model import LogisticRegression

from nsl_jax import errors
from nsl_jax.benchmarks import classifiers
from nsl_jax.commands import bench
from nsl_jax.reports import tables


class BenchmarkTest(absltest.TestCase):
  def table(self):
    x, y = blobs()
    return classifiers.Table((x, x), (x, x), (y.astype(np.int32),) * 2)

  def models(self, seed):
    return {
      'ours: tiny': tiny(random_state=seed),
      'labeled only': classifiers.LabeledOnly(),
    }

  def test_measures_once(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    (folder / 'bench').mkdir()
    path = folder / 'bench' / 'few.json'
    measure = lambda seeds: classifiers.measure(
      path, seeds, data={'blobs': self.table}, labels=(2,), make=self.models
    )
    with contextlib.redirect_stderr(io.StringIO()) as printed:
      measure([0])
      cells = measure([0, 1])
    self.assertLen(printed.getvalue().splitlines(), 4)
    content = json.loads(path.read_text())
    self.assertEqual(content['cells'], cells)
    self.assertEqual(content['seeds'], [0, 1])
    self.assertContainsSubset(
      {'kind', 'device', 'versions', 'commit', 'wall_time_s'}, content
    )
    text = tables.times(folder, 'few')
    self.assertEqual(text, classifiers.table(cells))
    self.assertRegex(text, r'(?m)^\| blobs \| labeled only \| 100.0 ± 0.0 \| 0')
    path.write_text(json.dumps(content | {'commit': 'another'}))
    with self.assertRaisesRegex(errors.UserError, 'has commit another'):
      measure([0])

  def test_labels_that_are_left(self):
    y = np.arange(60) % 3
    left = classifiers.hide(y, 4, seed=1)
    self.assertEqual(np.bincount(left[left >= 0]).tolist(), [4, 4, 4])
    np.testing.assert_array_equal(left[left >= 0], y[left >= 0])

  def test_labeled_rows_alone(self):
    x, y = blobs()
    some = hide_labels(y)
    one = classifiers.LabeledOnly().fit(x, some)
    other = LogisticRegression().fit(x[some >= 0], some[some >= 0])
    np.testing.assert_array_equal(one.coef_, other.coef_)

  def test_words(self):
    for words, message in (
      (['--seeds=2'], '--seeds is for --classifiers'),
      (['--classifiers', '--seeds=0'], 'at least 1'),
      (['--classifiers', '--breakdown'], '--classifiers ignores --breakdown'),
    ):
      with self.assertRaisesRegex(errors.UserError, message):
        bench.main(words)


if __name__ == '__main__':
  absltest.main()
