"""Runs of every kind, loaded from their work folders."""

import json
import pathlib
import tempfile

import folders
import jax
import numpy as np
import tfds_fixtures
from absl.testing import absltest, parameterized
from photo_run import BY_VALIDATION, SMALL, train
from PIL import Image

from nsl_jax import errors
from nsl_jax.commands import evaluate
from nsl_jax.data import sources
from nsl_jax.data.datasets import npz
from nsl_jax.inference import export, loading, tables
from nsl_jax.reports.tables import of_runs as tables_of_runs
from nsl_jax.training import config as config_lib, experiment


def of_digits(steps):
  return config_lib.load('configs/digits_ns3l.py', [
    ('steps', str(steps)), ('eval.every_steps', '10'), ('log_every', '10'),
    ('data.limit', '200'), ('data.validation', '20'), ('devices', '1'),
    ('model.name', 'mlp'), ('model.hidden', '16'),
  ])  # fmt: skip


class OtherRunsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def test_streamed_images_give_the_same_numbers(self):
    photos = folders.make(self.root / 'photos', size=(300, 300), unlabeled=3)
    lines = {}
    for name, more in (
      ('device', ()),
      ('streamed', [('data.on_device_mb', '1')]),
    ):
      results = train(photos, self.root / name, 'size=224,method=ns3l', [
        ('batch.labeled', '2'), ('batch.unlabeled', '2'),
        ('eval.batch', '5'), ('model.name', 'mlp'), ('model.hidden', '8'),
        *more,
      ])  # fmt: skip
      seed = self.root / name / 'seed_0'
      lines[name] = [
        {k: v for k, v in json.loads(line).items() if k != 'seconds'}
        for line in (seed / 'metrics.jsonl').read_text().splitlines()
      ]
      self.assertEqual(results['steps'], 8)
    drop = lambda found: [
      {k: v for k, v in one.items() if 'time' not in k and k != 'second'}
      for one in found
    ]
    self.assertEqual(drop(lines['device']), drop(lines['streamed']))

  def test_no_test_and_no_validation_images(self):
    photos = folders.make(self.root / 'photos', labeled=1, test=0)
    results = train(photos, self.root / 'run', 'method=ns3l')
    self.assertIsNone(results['score']['mean'])
    self.assertIn('no error measured', tables_of_runs([self.root / 'run']))
    self.assertEqual(results['protocol'], 'last')
    network = loading.load(self.root / 'run')
    self.assertEqual(network.weights, 'last')
    with self.assertRaisesRegex(errors.UserError, '--weights=last'):
      loading.load(self.root / 'run', weights='best')

  def test_no_test_images(self):
    photos = folders.make(self.root / 'photos', test=0)
    results = train(photos, self.root / 'run', 'method=ns3l,validation=3')
    self.assertEqual(results['score']['metric'], 'validation_error')
    self.assertIn('no test images', ' '.join(results['data_report']))

  def test_two_networks(self):
    photos = folders.make(self.root / 'photos')
    results = train(
      photos,
      self.root / 'run',
      'method=dnll,validation=3',
      [('method.count', '1'), *BY_VALIDATION[1:]],
    )
    network = loading.load(self.root / 'run')
    report = results['reports'][0]['best_validation']
    self.assertEqual(network.submodel, report['submodel'])
    files = sorted(map(str, (photos / 'test').glob('*/*.png')))
    true = np.array([pathlib.Path(path).parent.name for path in files])
    wrong = 100.0 * (network.predict(files) != true).mean()
    self.assertAlmostEqual(wrong, report['test_error'], places=4)
    self.assertLen(jax.tree.leaves(network.network()[0]), 6)

  def test_two_networks_of_which_no_image_chooses_one(self):
    photos = folders.make(self.root / 'photos', test=0)
    results = train(
      photos,
      self.root / 'run',
      'method=dnll,validation=0',
      [('method.count', '1')],
    )
    self.assertIn(
      'dnll trains 2 networks, and without validation images the first (a) is '
      'the one that predicts',
      results['warnings'],
    )
    network = loading.load(self.root / 'run')
    self.assertEqual(network.submodel, 'a')
    files = sorted(map(str, photos.glob('labelled/*/*.png')))
    self.assertEqual(network.predict_proba(files).shape, (len(files), 3))
    for found, kept in zip(
      jax.tree.leaves(network.network()[0]),
      jax.tree.leaves(network.state.params['a']),
      strict=True,
    ):
      np.testing.assert_array_equal(found, kept)

  def test_features(self):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    x = rng.normal(size=(60, 4)) + 3 * y[:, None]
    known = np.where(np.arange(60) < 20, y, -1)
    np.savez(self.root / 'data.npz', x=x, y=known, x_test=x[40:], y_test=y[40:])
    config = config_lib.load(
      f'configs/folder.py:dir={self.root / "data.npz"},steps=30',
      [pair for pair in SMALL if not pair[0].startswith('model.')],
    )
    results = experiment.run(config, self.root / 'run')
    self.assertLess(results['score']['mean'], 20)
    network = loading.load(self.root / 'run')
    self.assertEqual(network.classes, ('0', '1'))
    wrong = 100.0 * (network.predict(x[40:]) != y[40:].astype(str)).mean()
    self.assertAlmostEqual(wrong, results['score']['mean'], places=4)
    with self.assertRaisesRegex(errors.UserError, 'for features'):
      network.predict(['a.png'])
    words = [f'--workdir={self.root}/run', f'--images={self.root}/data.npz']
    with self.assertRaisesRegex(errors.UserError, 'is for features: evaluate'):
      evaluate.main(words)
    export.write(network, self.root / 'model')

  def test_points_are_in_pixels_of_the_picture(self):
    digits = sources.load('digits').train
    images = np.pad(
      digits.images[:100].repeat(2, 1).repeat(2, 2),
      [(0, 0), (6, 6), (6, 6), (0, 0)],
    )
    pair = images, digits.labels[:100]
    tfds_fixtures.write(
      self.root / 'data', 'mnist', {'train': pair, 'test': pair}, 10
    )
    config = config_lib.load('configs/mnist_points.py:host=sl,variant=none', [
      ('steps', '2'), ('eval.every_steps', '2'), ('data.labeled', '50'),
      ('data.validation', '20'), ('devices', '1'), ('protocol', 'last'),
      ('batch.labeled', '8'), ('model.name', 'mlp'), ('model.hidden', '8'),
      ('data.dir', str(self.root / 'data')),
    ])  # fmt: skip
    image = sources.load('mnist_points', self.root / 'data').test.images[0]
    experiment.run(config, self.root / 'run')
    network = loading.load(self.root / 'run')
    self.assertEqual(network.classes, ())
    own = network.predict(image[None])[0].reshape(-1, 2)
    picture = Image.fromarray(image.squeeze())
    width, height = picture.size
    larger = Image.new(
      'L', (3 * width + 10, 3 * height)
    )  # cropped at the sides
    larger.paste(
      picture.resize((3 * width, 3 * height), Image.Resampling.NEAREST), (5, 0)
    )
    folders.save(larger, self.root / 'p' / 'large.png')
    (found,) = network.read([str(self.root / 'p' / 'large.png')])
    points = found.outputs.reshape(-1, 2)
    np.testing.assert_allclose(points, 3 * (own + 0.5) - 0.5 + [5, 0], atol=3)
    with self.assertRaisesRegex(errors.UserError, 'use predict'):
      network.predict_proba(image[None])
    out = self.root / 'points.csv'
    tables.write(out, [found], network.classes, network.facts.outputs)
    (line,) = tables.read(out)
    self.assertEqual(list(line)[:3], ['path', 'x1', 'y1'])
    self.assertAlmostEqual(float(line['x1']), points[0, 0], delta=0.01)

  def test_a_source_from_python(self):
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    y = np.where(np.arange(30) < 12, np.arange(30) % 2, -1)
    config = config_lib.load(
      'configs/folder.py:dir=unused,steps=8,method=ns3l', SMALL
    )
    results = experiment.run(config, self.root / 'run', npz.of_arrays((x, y)))
    self.assertEqual(results['steps'], 8)

  def test_a_run_made_longer_has_the_last_weights(self):
    config = of_digits(steps=20)
    experiment.run(config, self.root / 'run')
    with config.unlocked():
      config.steps = 40
    experiment.run(config, self.root / 'run')
    network = loading.load(self.root / 'run', weights='last')
    self.assertEqual(network.step, 40)

  def test_a_paper_run_predicts_pictures(self):
    experiment.run(of_digits(steps=10), self.root / 'run')
    network = loading.load(self.root / 'run')
    self.assertEqual(network.classes, tuple('0123456789'))
    test = sources.load('digits').test.images[:3]
    image = Image.fromarray(test[0, ..., 0])
    np.testing.assert_allclose(
      network.predict_proba([image]), network.predict_proba(test[:1]), atol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
