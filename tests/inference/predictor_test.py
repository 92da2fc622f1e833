"""What a run has learned, used from its work folder alone."""

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import tempfile
from unittest import mock

import folders
import fresh_process
import jax
import numpy as np
from absl.testing import absltest, parameterized
from photo_run import BY_VALIDATION, SMALL, train
from PIL import Image, ImageSequence

from nsl_jax import errors
from nsl_jax.commands import evaluate
from nsl_jax.data import on_demand, resize, sources, split_file
from nsl_jax.inference import export, loading, predictor, tables
from nsl_jax.models import weights
from nsl_jax.training import (
  assembly,
  automatic,
  config as config_lib,
  experiment,
  origin,
  pipeline,
  run_warnings,
)


class RunTest(parameterized.TestCase):
  """One run, used in all ways."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    photos = folders.make(cls.root / 'photos', labeled=8, test=8)
    cls.results = train(
      photos,
      cls.root / 'run',
      'method=mean_teacher,validation=6',
      BY_VALIDATION,
    )
    # Nothing that follows may need the data.
    cls.photos = cls.root / 'moved'
    photos.rename(cls.photos)
    shutil.rmtree(cls.root / 'cache', ignore_errors=True)
    cls.network = loading.load(cls.root / 'run')
    cls.files = sorted(map(str, (cls.photos / 'test').glob('*/*.png')))
    cls.true = [pathlib.Path(path).parent.name for path in cls.files]

  def error_of(self, network):
    wrong = network.predict(self.files) != np.array(self.true)
    return 100.0 * wrong.mean()

  def test_the_results_have_what_was_read(self):
    self.assertIn('3 classes', self.results['data_report'][0])

  def test_predictions_have_the_test_error_of_the_run(self):
    report = self.results['reports'][0]
    for which, name in (('best', 'best_validation'), ('last', 'last')):
      network = loading.load(self.root / 'run', weights=which)
      self.assertEqual(network.step, report[name]['step'])
      self.assertAlmostEqual(
        self.error_of(network), report[name]['test_error'], places=4
      )
    self.assertEqual(self.network.weights, 'best')

  def test_all_kinds_of_inputs_agree(self):
    pictures = [Image.open(path) for path in self.files]
    arrays = np.stack([np.asarray(one) for one in pictures])
    wanted = self.network.predict_proba(self.files)
    np.testing.assert_allclose(wanted.sum(1), 1.0, atol=1e-5)
    for inputs in (pictures, arrays, list(map(pathlib.Path, self.files))):
      np.testing.assert_allclose(
        self.network.predict_proba(inputs), wanted, atol=1e-6
      )
    read = np.stack([one.outputs for one in self.network.read(self.files)])
    np.testing.assert_allclose(read, wanted, atol=1e-6)
    one = self.network.predict(self.files[0])
    self.assertEqual(
      one.tolist(), self.network.predict(self.files)[:1].tolist()
    )
    self.assertEqual(self.network.predict_proba([]).shape, (0, 3))

  def test_other_holders_of_pictures(self):
    wanted = self.network.predict_proba(self.files)
    some = self.photos / 'test'
    for inputs in (np.array(self.files), (path for path in self.files)):
      np.testing.assert_allclose(
        self.network.predict_proba(inputs), wanted, atol=1e-6
      )
    self.assertLen(self.network.predict(some.glob('*/*.png')), len(self.files))
    with Image.open(self.files[0]) as picture:
      np.testing.assert_allclose(
        self.network.predict_proba(picture), wanted[:1], atol=1e-6
      )

  def test_pictures_of_the_caller_stay(self):
    large = self.root / 'large.jpg'
    with Image.open(self.files[0]) as picture:
      picture.convert('RGB').resize((160, 120)).save(large)
    with Image.open(large) as picture:
      whole = self.network.predict_proba([picture])
      self.assertEqual(picture.size, (160, 120))
      self.assertEqual(picture.copy().size, (160, 120))
    np.testing.assert_allclose(
      whole, self.network.predict_proba([large]), atol=0.2
    )

  def test_the_frame_that_a_picture_is_at(self):
    frames = [Image.open(path).convert('RGB') for path in self.files[::5]]
    animation = self.root / 'frames.tiff'
    frames[0].save(animation, save_all=True, append_images=frames[1:])
    with Image.open(animation) as picture:
      found = [
        self.network.predict_proba([frame])[0]
        for frame in ImageSequence.Iterator(picture)
      ]
    np.testing.assert_allclose(
      found, self.network.predict_proba(frames), atol=1e-6
    )

  def test_half_a_picture(self):
    half = self.root / 'half.png'
    half.write_bytes(pathlib.Path(self.files[0]).read_bytes()[:-60])
    with Image.open(half) as picture:
      with self.assertRaisesRegex(errors.UserError, 'input 0 .* be read'):
        self.network.predict([picture])

  def test_few_programs_for_many_numbers_of_inputs(self):
    images = np.random.default_rng(0).integers(
      0, 256, (40, 12, 12, 3), np.uint8
    )
    network = loading.load(self.root / 'run')
    whole = network.predict_proba(images)
    for count in range(1, 41):
      np.testing.assert_allclose(
        network.predict_proba(images[:count]), whole[:count], atol=1e-5
      )
    self.assertLessEqual(network._compiled._cache_size(), 7)

  def test_a_damaged_file_does_not_stop_the_others(self):
    bad = self.root / 'bad.png'
    bad.write_bytes(b'junk')
    paths = [self.files[0], str(bad), self.files[1]]
    found = list(self.network.read(paths))
    self.assertEqual([one.path for one in found], paths)
    self.assertIsNone(found[1].outputs)
    self.assertIn('no image of a known format', found[1].error)
    np.testing.assert_allclose(
      found[2].outputs, self.network.predict_proba(paths[2:])[0], atol=1e-6
    )
    with mock.patch.object(resize, 'read', side_effect=MemoryError):
      (large,) = self.network.read(paths[:1])
    self.assertEqual(large.error, 'too large for the memory')

  @parameterized.parameters(
    (np.zeros((2, 12, 12, 1), np.uint8), '12x12x1, but the network'),
    (np.zeros((2, 5), np.float32), '5 features, but the network'),
    (['gone.png'], 'input 0 (gone.png) cannot be read'),
    (5, 'inputs=5 are neither arrays, nor paths'),
  )
  def test_wrong_inputs(self, inputs, words):
    with self.assertRaises(errors.UserError) as caught:
      self.network.predict(inputs)
    self.assertIn(words, str(caught.exception))

  def test_table(self):
    bad = self.root / 'bad.png'
    bad.write_bytes(b'junk')
    out = self.root / 'out.csv'
    total, damaged, notes = tables.write(
      out, self.network.read([*self.files, str(bad)]), self.network.classes, 3
    )
    self.assertEqual((total, damaged, notes), (len(self.files) + 1, 1, []))
    lines = tables.read(out)
    self.assertEqual(
      list(lines[0]),
      ['path', 'class', 'probability', 'p(cat)', 'p(dog)', 'p(owl)', 'error'],
    )
    self.assertEqual(
      [line['class'] for line in lines[:-1]],
      self.network.predict(self.files).tolist(),
    )
    self.assertEqual(lines[-1]['class'], '')
    self.assertIn('no image', lines[-1]['error'])
    for line in lines[:-1]:
      total = sum(float(line[f'p({name})']) for name in folders.CLASSES)
      self.assertAlmostEqual(total, 1.0, places=5)
      self.assertEqual(line['probability'], line[f'p({line["class"]})'])

  def test_names_that_are_not_utf8(self):
    name = os.fsdecode(b'caf\xe9.png')
    out = self.root / 'names.csv'
    read = [predictor.Read(name, np.array([0.2, 0.5, 0.3], np.float32))]
    tables.write(out, read, ('a', 'b', 'c'), 3)
    self.assertIn(b'caf\xe9.png,b,', out.read_bytes())
    self.assertEqual(tables.read(out)[0]['path'], name)

  def test_where_a_table_can_be_written(self):
    there = self.root / 'there.csv'
    there.write_text('kept')
    tables.check_target(there, True)
    tables.check_target(self.root / 'new' / 'x.csv', False)
    for path, words in (
      (there, 'add --overwrite'),
      (self.root, 'is a folder'),
      (there / 'x.csv', 'cannot write'),
    ):
      with self.assertRaisesRegex(errors.UserError, words):
        tables.check_target(path, False)
    self.assertEqual(there.read_text(), 'kept')

  def test_export_is_read_without_the_library(self):
    folder = self.root / 'model'
    folder.mkdir()
    (folder / export.ONNX).write_bytes(b'of another network')
    content = export.write(self.network, folder)
    self.assertFalse((folder / export.ONNX).exists())
    self.assertEqual(content['classes'], list(folders.CLASSES))
    self.assertEqual(json.loads((folder / 'model.json').read_text()), content)
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), np.uint8)
    np.save(self.root / 'images.npy', images)
    code = (
      'import jax, numpy as np, sys\n'
      'folder, images, out = sys.argv[1:]\n'
      'content = open(f"{folder}/program.bin", "rb").read()\n'
      'program = jax.export.deserialize(content)\n'
      'images = np.load(images)\n'
      'found = [np.asarray(program.call(images[:n])) for n in (1, 5)]\n'
      'np.save(out, found[1])\n'
      'assert np.allclose(found[0], found[1][:1], atol=1e-6)\n'
      'bad = [m for m in sys.modules if m.split(".")[0] in\n'
      '       ("nsl_jax", "flax", "optax", "orbax")]\n'
      'assert not bad, bad\n'
      'print(sorted(program.platforms))\n'
    )
    out = self.root / 'found.npy'
    done = fresh_process.run('-c', code, folder, self.root / 'images.npy', out)
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn("['cpu', 'cuda', 'tpu']", done.stdout)
    np.testing.assert_allclose(
      np.load(out), self.network.predict_proba(images), atol=1e-6
    )

  def test_a_run_that_starts_from_exported_weights(self):
    """It knows which images they were trained on, and of which classes."""
    codes = split_file.load_codes(self.root / 'run' / 'seed_0' / 'split.npz')
    self.assertLen(codes['labeled'], 18)
    export.write(self.network, self.root / 'start', labeled=codes['labeled'])
    path = self.root / 'start' / 'weights.safetensors'
    checkpoint = next((self.root / 'run' / 'seed_0' / 'best').glob('[0-9]*'))
    self.assertEqual(origin.of(str(path)), origin.of(str(checkpoint)))
    source = sources.load('folder', str(self.photos))
    config = config_lib.load(
      f'configs/folder.py:dir={self.photos},steps=8,validation=6,'
      'method=supervised',
      [*SMALL, ('seed', '1'), ('model.init_from', str(path))],
    )
    config, _ = automatic.resolve(config, source)
    split = pipeline.split_of(config, source, 1)
    labeled = source.train._replace(
      images=source.train.images[split.validation],
      labels=source.train.labels[split.validation],
    )
    warning, of_test = origin.of_evaluated(
      config, source._replace(test=labeled), split
    )
    known = [
      on_demand.code(image) in codes['labeled']
      for image in source.train.images[split.validation]
    ]
    self.assertBetween(sum(known), 1, 6)
    self.assertIn(f'{sum(known)} of the 6 validation images were', warning)
    self.assertIn(f'{sum(known)} of the 6 test images were', of_test)
    # A run that starts from these weights has seen the images of both.
    experiment.run(config, self.root / 'second')
    second = self.root / 'second' / 'seed_1' / 'split.npz'
    self.assertLen(split_file.load_codes(second)['labeled'], 18)
    self.assertContainsSubset(
      codes['labeled'] | split_file.load_codes(second)['labeled'],
      split_file.load_trained_on(second),
    )
    self.assertEmpty(origin.of_classes(config, source.class_names))
    renamed = source._replace(classes=('dog', 'kitten', 'owl'))
    (warning,) = run_warnings.of_initial_weights(config, renamed)
    self.assertIn('is of the classes cat, dog, owl, and this run of', warning)
    head = 'Dense_2'
    start = lambda source: (
      assembly.prepare(config, source=source)
      .method.init(jax.random.key(0))
      .params
    )
    kept, anew = start(source), start(renamed)
    for name in kept:
      same = np.array_equal(kept[name]['kernel'], anew[name]['kernel'])
      self.assertEqual(same, name != head)
    with self.assertRaisesRegex(errors.UserError, 'classes cat, dog, owl, and'):
      experiment.run(
        loading.read_config(self.root / 'run'), self.root / 'run', renamed
      )

  def test_evaluation_of_images_that_were_trained_on(self):
    words = [f'--workdir={self.root}/run', f'--out={self.root}/evaluation']
    with contextlib.redirect_stderr(io.StringIO()) as printed:
      evaluate.main([*words, f'--images={self.photos}/labelled'])
    note = '18 of the 24 images were trained on with their label and 6 held out'
    self.assertIn(note, printed.getvalue())
    report = json.loads((self.root / 'evaluation/evaluation.json').read_text())
    self.assertIn(note, report['notes'][0])

  def test_onnx(self):
    if not importlib.util.find_spec('jax2onnx'):
      with self.assertRaisesRegex(errors.UserError, r'nsl_jax\[onnx\]'):
        export.onnx_program(self.network)
      self.skipTest('jax2onnx is not installed')
    self.assertNotEmpty(export.onnx_program(self.network))

  def test_exported_weights_are_those_that_predict(self):
    export.write(self.network, self.root / 'exported')
    params, _ = weights.read(self.root / 'exported' / 'weights.safetensors')
    # An average of the weights is evaluated, which is kept beside them.
    student = jax.tree.leaves(self.network.state.params)
    found = jax.tree.leaves(params)
    self.assertLen(found, len(student))
    self.assertFalse(all(np.array_equal(a, b) for a, b in zip(student, found)))
    loaded = loading.load(self.root / 'run')
    params, stats = loaded.network()
    outputs, _ = loaded._components.model.apply(
      params,
      stats,
      (loaded.images_of(self.files[:3]) / 255.0 - loaded.facts.arrays['mean'])
      / loaded.facts.arrays['std'],
      train=False,
    )
    np.testing.assert_allclose(
      jax.nn.softmax(outputs.logits),
      loaded.predict_proba(self.files[:3]),
      atol=1e-5,
    )

  def test_where_a_model_can_be_written(self):
    folder = self.root / 'full'
    folder.mkdir()
    (folder / 'x').write_text('')
    with self.assertRaisesRegex(errors.UserError, 'add --overwrite'):
      export.check_folder(folder, False)
    export.check_folder(folder, True)
    with self.assertRaisesRegex(errors.UserError, 'is a file'):
      export.check_folder(folder / 'x', False)

  @parameterized.parameters(
    (dict(weights='bset'), "did you mean 'best'"),
    (dict(seed=3), 'has no seed 3; it has 0'),
  )
  def test_what_cannot_be_loaded(self, options, words):
    with self.assertRaises(errors.UserError) as caught:
      loading.load(self.root / 'run', **options)
    self.assertIn(words, str(caught.exception))

  def test_folders_that_are_no_run(self):
    for folder, words in (
      (self.root / 'gone', 'is not a folder'),
      (self.photos, 'no config.json'),
    ):
      with self.assertRaisesRegex(errors.UserError, words):
        loading.load(folder)

  def test_a_run_that_has_not_ended(self):
    folder = self.root / 'begun'
    shutil.copytree(self.root / 'run', folder)
    shutil.rmtree(folder / 'seed_0' / 'final')
    with self.assertRaisesRegex(errors.UserError, 'has not ended'):
      loading.load(folder)
    (folder / 'seed_0' / 'network.json').unlink()
    with self.assertRaisesRegex(errors.UserError, 'use a new --workdir'):
      loading.load(folder)

  def test_a_run_without_its_metrics(self):
    folder = self.root / 'unmeasured'
    shutil.copytree(self.root / 'run', folder)
    (folder / 'seed_0' / 'metrics.jsonl').write_text('')
    with self.assertRaisesRegex(errors.UserError, 'use --weights=last'):
      loading.load(folder, weights='best')
    loading.load(folder, weights='last')

  def test_damaged_facts(self):
    folder = self.root / 'damaged'
    shutil.copytree(self.root / 'run', folder)
    (folder / 'seed_0' / 'normalization.npz').write_bytes(b'junk')
    with self.assertRaisesRegex(errors.UserError, 'is damaged'):
      loading.load(folder)


if __name__ == '__main__':
  absltest.main()
