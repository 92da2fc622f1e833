"""Initial weights: files, what fits a network, and a run from them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
import temporary
from absl.testing import absltest, parameterized
from model_helpers import TINY, noisy, shapes, values

from nsl_jax import errors, models
from nsl_jax.models import weights
from nsl_jax.training import (
  assembly,
  config as config_lib,
  experiment,
  feed,
  pipeline,
  train_step,
)

SHAPE = (1, 1, 5)
MLP = {'name': 'mlp', 'hidden': 4, 'layers': 1}
NORMS = {'name': 'small_cnn', 'batch_norm': True}


def assert_equal(found, wanted):
  """Both are the same trees of the same values."""
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def random(model, shape=SHAPE):
  """Parameters and statistics that no initializer gives."""
  params, stats = values(model, shape)
  return noisy(params, 1), noisy(stats, 2, 0, 1)


class Folder(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    self.path = self.folder / 'w.safetensors'

  def from_file(self, config, classes=3, **fields):
    return models.build(
      {**config, 'init_from': str(self.path), **fields}, classes
    )

  def assert_refused(self, message, call):
    with self.assertRaises(errors.UserError) as caught:
      call()
    self.assertNotIn('\n', str(caught.exception))
    self.assertStartsWith(
      str(caught.exception).replace(str(self.folder) + '/', ''), message
    )


class FileTest(Folder):
  def test_round_trip(self):
    params, stats = random(models.build(NORMS, 3), (4, 4, 1))
    weights.write(self.path, params, stats, {'data': 'digits'})
    self.assertEqual(
      [path.name for path in self.folder.iterdir()], ['w.safetensors']
    )
    found = weights.read(self.path)
    assert_equal(found, (params, stats))
    self.assertEqual(
      jax.tree.structure(found), jax.tree.structure((params, stats))
    )
    with safetensors.safe_open(self.path, 'np') as file:
      self.assertEqual(file.metadata(), {'data': 'digits'})
      self.assertContainsSubset(
        {'params/Conv_0/kernel', 'batch_stats/BatchNorm_0/count'}, file.keys()
      )

  def test_arrays_of_the_device_and_of_any_layout(self):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3).T
    params = {'a': {'kernel': kernel, 'bias': jnp.float32(2)}}
    weights.write(self.path, params, {})
    assert_equal(weights.read(self.path), (params, {}))

  @parameterized.parameters(
    (('params/a/b', 'batch_stats/c'), {'a': {'b': 0.0}}, {'c': 1.0}),
    (('params.a.b', 'batch_stats.c'), {'a': {'b': 0.0}}, {'c': 1.0}),
    (('a/b', 'c'), {'a': {'b': 0.0}, 'c': 1.0}, {}),
    (('a.b', 'c'), {'a': {'b': 0.0}, 'c': 1.0}, {}),
    (('a.b/c', 'd'), {'a.b': {'c': 0.0}, 'd': 1.0}, {}),
  )
  def test_names(self, names, params, stats):
    arrays = {n: np.full((), i, np.float32) for i, n in enumerate(names)}
    self.path.write_bytes(safetensors.numpy.save(arrays))
    self.assertEqual(weights.read(self.path), (params, stats))

  @parameterized.parameters('float16', 'bfloat16', 'float64')
  def test_dtypes(self, dtype):
    """They are kept, and the network makes its own of them."""
    params, _ = random(models.build(MLP, 3))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    weights.write(self.path, params, {})
    found, _ = weights.read(self.path)
    self.assertEqual(found['Dense_0']['bias'].dtype, dtype)
    started, _ = self.from_file(MLP).init(jax.random.key(0), SHAPE)
    for leaf in jax.tree.leaves(started):
      self.assertEqual(leaf.dtype, jnp.float32)
    assert_equal(started, jax.tree.map(lambda leaf: leaf.astype('f4'), params))

  @parameterized.parameters(
    ({'a': np.zeros(2, np.int32)}, 'a is of type I32; the known ones are F64'),
    (
      {'params/a': np.zeros(2), 'b': np.zeros(2)},
      'b is neither one of the params nor of the batch_stats',
    ),
    ({'a/b': np.zeros(2), 'a': np.zeros(2)}, 'a is beside a/b'),
  )
  def test_contents_that_are_refused(self, arrays, message):
    self.path.write_bytes(safetensors.numpy.save(arrays))
    self.assert_refused(
      f'w.safetensors: {message}', lambda: weights.read(self.path)
    )

  def test_what_is_no_file_of_weights(self):
    weights.write(self.path, {'a': np.zeros(3)}, {})
    whole = self.path.read_bytes()
    for content in (b'', b'some other file\n', whole[:-1]):
      self.path.write_bytes(content)
      self.assert_refused(
        'w.safetensors: is not a safetensors file (',
        lambda: weights.read(self.path),
      )
    (self.folder / 'empty').mkdir()
    for name, message in (
      ('x.safetensors', 'does not exist; name a file written by'),
      ('empty', 'is not the folder of a checkpoint; name one such as'),
      ('w.safetensors/x', 'cannot be read (Not a directory)'),
    ):
      self.assert_refused(
        f'{name}: {message}', lambda n=name: weights.read(self.folder / n)
      )

  def test_a_folder_that_cannot_be_written(self):
    with self.assertRaisesRegex(errors.UserError, 'x.*No such file'):
      weights.write(self.folder / 'no' / 'x', {'a': np.zeros(3)}, {})


class StartTest(Folder):
  def test_init_returns_them(self):
    params, stats = random(models.build(NORMS, 3), (4, 4, 1))
    weights.write(self.path, params, stats)
    model = self.from_file(NORMS)
    self.assertEqual(model.notes((4, 4, 1)), [])
    init = lambda key: model.init(key, (4, 4, 1))
    key = jax.random.key(0)
    for start in init, jax.jit(init):
      found = start(key)
      assert_equal(found, (params, stats))
      # Nobody else has these buffers.
      zero = jax.jit(
        lambda tree: jax.tree.map(lambda leaf: leaf * 0, tree), donate_argnums=0
      )
      zero(found)
      assert_equal(start(key), (params, stats))
    twice = jax.jit(lambda key: (init(key), init(key)))(key)
    zero(twice)
    assert_equal(init(key), (params, stats))

  def test_read_at_the_first_use_only(self):
    model = self.from_file(MLP)  # there is no file yet
    plain = models.build(MLP, 3)
    params, _ = random(plain)
    x = np.ones((2, *SHAPE), np.float32)
    found, expected = (
      one.apply(params, {}, x, train=False)[0].logits for one in (model, plain)
    )
    np.testing.assert_array_equal(found, expected)
    weights.write(self.path, params, {})
    model.notes(SHAPE)
    self.path.unlink()
    assert_equal(model.init(jax.random.key(0), SHAPE)[0], params)

  @parameterized.parameters(
    (
      {'hidden': 6},
      SHAPE,
      'params/Dense_0/bias is 4 there and 6 in the network, '
      'params/Dense_0/kernel is 5x4 there and 5x6 in the network, '
      'params/Dense_1/kernel is 4x3 there and 6x3 in the network',
    ),
    (
      {'layers': 2},
      SHAPE,
      'params/Dense_1/bias is 3 there and 4 in the network, '
      'params/Dense_1/kernel is 4x3 there and 4x4 in the network, '
      'params/Dense_2/bias is not there, params/Dense_2/kernel is not there',
    ),
    (
      {},
      (1, 1, 7),
      'params/Dense_0/kernel is 5x4 there and 7x4 in the network',
    ),
    (
      TINY['oliver'],
      (8, 8, 1),
      'params/BatchNorm_0/bias is not there, params/BatchNorm_0/scale is not '
      'there, params/BatchNorm_1/bias is not there, params/BatchNorm_1/scale '
      'is not there and 22 more',
    ),
  )
  def test_another_network_is_refused(self, fields, shape, message):
    weights.write(self.path, random(models.build(MLP, 3))[0], {})
    model = self.from_file(fields if 'name' in fields else MLP | fields)
    for call in (
      lambda: model.notes(shape),
      lambda: shapes(model, shape),
      lambda: model.init(jax.random.key(0), shape),
    ):
      self.assert_refused(
        f'config.model.init_from=w.safetensors: {message}', call
      )

  def test_more_than_the_network_has_is_refused(self):
    params, _ = random(models.build(MLP, 3))
    params['Dense_9'] = {'bias': np.zeros(3, np.float32)}
    weights.write(self.path, params, {'BatchNorm_0': {'mean': np.zeros(2)}})
    self.assert_refused(
      'config.model.init_from=w.safetensors: batch_stats/BatchNorm_0/mean is '
      'not in the network, params/Dense_9/bias is not in the network',
      lambda: self.from_file(MLP).notes(SHAPE),
    )

  def test_statistics_in_part_are_refused(self):
    params, stats = random(models.build(NORMS, 3), (4, 4, 1))
    del stats['BatchNorm_1']['count']
    weights.write(self.path, params, stats)
    self.assert_refused(
      'config.model.init_from=w.safetensors: batch_stats/BatchNorm_1/count is '
      'not there',
      lambda: self.from_file(NORMS).notes((4, 4, 1)),
    )

  def test_without_statistics_they_start_anew(self):
    base = models.build(NORMS, 3)
    params, _ = random(base, (4, 4, 1))
    weights.write(self.path, params, {})
    model = self.from_file(NORMS)
    (line,) = model.notes((4, 4, 1))
    self.assertEndsWith(
      line, 'w.safetensors has no batch_stats: those of the network start anew'
    )
    found = model.init(jax.random.key(0), (4, 4, 1))
    assert_equal(found[0], params)
    for layer in found[1].values():
      np.testing.assert_array_equal(layer['mean'], 0)
      np.testing.assert_array_equal(layer['var'], 1)
      self.assertEqual(layer['count'], 0)

  def test_another_number_of_classes_starts_the_head_anew(self):
    params, _ = random(models.build(MLP, 7))
    weights.write(self.path, params, {})
    model, key = self.from_file(MLP), jax.random.key(3)
    (line,) = model.notes(SHAPE)
    self.assertEqual(
      line,
      f'config.model.init_from={self.path} has another number of classes '
      '(params/Dense_1/kernel is 4x7 there and 4x3 in the network): '
      'params/Dense_1/bias, params/Dense_1/kernel start anew',
    )
    found, _ = jax.jit(lambda key: model.init(key, SHAPE))(key)
    fresh, _ = models.build(MLP, 3).init(key, SHAPE)
    assert_equal(found['Dense_0'], params['Dense_0'])
    assert_equal(found['Dense_1'], fresh['Dense_1'])
    # The same number of classes is the same head, however many features.
    weights.write(
      self.path,
      {
        **params,
        'Dense_1': {
          'kernel': np.zeros((6, 7), np.float32),
          'bias': np.zeros(7, np.float32),
        },
      },
      {},
    )
    self.assert_refused(
      'config.model.init_from=w.safetensors: params/Dense_1/kernel is 6x7 '
      'there and 4x3 in the network',
      lambda: self.from_file(MLP).notes(SHAPE),
    )

  def test_the_head_has_its_norm_and_its_copy(self):
    for variant, names in (
      ('l2i', ('batch_stats/BatchNorm_9/count', 'params/BatchNorm_9/scale')),
      ('dual_student', ('params/WeightNormDense_1/v',)),
    ):
      config = TINY[variant]
      variables = random(models.build(config, 7), (12, 12, 3))
      weights.write(self.path, *variables)
      (line,) = self.from_file(config).notes((12, 12, 3))
      for name in names:
        self.assertIn(f' {name}', line)
      self.assertNotIn('Conv', line)

  def test_a_network_that_is_not_told_its_head_needs_all(self):
    weights.write(self.path, random(models.build(MLP, 7))[0], {})
    model = weights.start_from(models.build(MLP, 3), str(self.path))
    with self.assertRaisesRegex(errors.UserError, '4x7 there and 4x3'):
      model.notes(SHAPE)

  def test_no_weights_no_notes(self):
    self.assertEqual(models.build(MLP, 3).notes(SHAPE), [])
    self.assertEqual(models.build(MLP | {'init_from': ''}, 3).notes(SHAPE), [])
    with self.assertRaisesRegex(errors.UserError, 'init_from=3: must be a wo'):
      models.build(MLP | {'init_from': 3}, 3)


class RunTest(Folder):
  """On the digits, whose ten classes the network of `MLP` is for."""

  def config(self, path, name='digits_supervised', **changes):
    overrides = [
      ('model.name', 'mlp'),
      ('model.hidden', '8'),
      ('model.init_from', str(path)),
      *changes.items(),
    ]
    config = config_lib.load(f'configs/{name}.py', overrides, reduced=3)
    with config.unlocked():
      config.devices = 1
    return config

  def write(self, classes=10):
    model = models.build({'name': 'mlp', 'hidden': 8}, classes)
    params, _ = random(model, (8, 8, 1))
    weights.write(self.path, params, {})
    return params

  def test_starts_from_a_file_and_another_from_its_checkpoint(self):
    """The second run of the first file has a head of four classes there."""
    params = self.write()
    config = self.config(self.path, ema_decay='0.5')
    parts = assembly.prepare(config)
    start = lambda: train_step.initial_state(parts.method, 0, parts.mesh)
    state = start()
    self.assertEqual(int(state.step), 0)
    assert_equal(state.params, params)
    assert_equal(state.slots['ema'], params)
    split = pipeline.split_of(config, parts.source, 0)
    data = assembly.data_of(parts, split)
    streams = pipeline.index_iterators(config, split, 0)
    for step in range(2):
      rows = feed.rows_at(streams, range(step, step + 1), parts.mesh)
      state, _ = parts.chunk(state, data, rows)  # which is donated
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, params)
    self.assertGreater(min(jax.tree.leaves(moved)), 0)
    assert_equal(start().params, params)

    self.write(classes=4)
    results = experiment.run(config, self.folder / 'run')
    (line,) = [one for one in results['warnings'] if 'init_from' in one]
    self.assertIn('params/Dense_2/kernel is 8x4 there and 8x10 in', line)
    self.assertEqual(results['config']['model']['init_from'], str(self.path))
    best = results['reports'][0]['best_validation']
    folder = self.folder / 'run' / 'seed_0' / best['weights']
    averaged, stats = weights.read(folder)
    self.assertEqual(stats, {})
    model = models.build({'name': 'mlp', 'hidden': 8}, 10)
    images, labels = parts.source.test
    view = parts.normalize(parts.fitted, images)
    logits = model.apply(averaged, {}, view, train=False)[0].logits
    error = 100 * np.mean(np.argmax(logits, -1) != labels)
    self.assertAlmostEqual(error, best['test_error'], places=3)

    second = assembly.prepare(self.config(folder))
    state = train_step.initial_state(second.method, 5, second.mesh)
    assert_equal(state.params, averaged)
    for name in ('run', 'run/seed_0', 'run/seed_0/best'):
      self.assert_refused(
        f'{name}: is not the folder of a checkpoint; did you mean ',
        lambda n=name: weights.read(self.folder / n),
      )
    with self.subTest('other weights at a later start'):
      path = self.folder / 'run' / 'config.json'
      stored = json.loads(path.read_text())
      self.assertEqual(stored['init_from_sha256'], weights.sha256(self.path))
      self.assertNotEqual(weights.sha256(folder), weights.sha256(self.path))
      experiment.run(config, self.folder / 'run')  # nothing has changed
      model = models.build({'name': 'mlp', 'hidden': 8}, 4)
      others, _ = random(model, (8, 8, 1))
      others = jax.tree.map(lambda leaf: leaf + 1, others)
      weights.write(self.path, others, {})
      self.assert_refused(
        'run was begun from other weights than',
        lambda: experiment.run(config, self.folder / 'run'),
      )
      del stored['init_from_sha256']  # as of a version before this one
      path.write_text(json.dumps(stored))
      experiment.run(config, self.folder / 'run')
    (folder / 'state' / '_METADATA').write_text('{')
    self.assert_refused(
      f'run/seed_0/{best["weights"]}: cannot be read (',
      lambda: weights.read(folder),
    )

  def test_a_run_of_two_networks(self):
    params = self.write()
    config = self.config(
      self.path, 'digits_ns3l', **{'method.name': 'dual_student'}
    )
    method = assembly.build_method(config, 10, (8, 8, 1))
    state = method.init(jax.random.key(0))
    assert_equal(state.params, {'a': params, 'b': params})

  def test_wrong_weights_make_no_folder(self):
    for path, message in (
      (self.folder / 'x', 'init_from=.*/x: does not exist'),
      (self.folder, 'is not the folder of a checkpoint'),
    ):
      with self.assertRaisesRegex(errors.UserError, message):
        experiment.run(self.config(path), self.folder / 'run')
      self.assertFalse((self.folder / 'run').exists())


class MetadataTest(temporary.FolderTestCase):
  def test_words_are_kept(self):
    path = self.folder / 'x.safetensors'
    weights.write(path, {'a': np.zeros(3)}, {}, {'data': 'digits'})
    self.assertEqual(weights.read_metadata(path), {'data': 'digits'})
    for content in (b'', b'\xff' * 100, b'\x10' + bytes(7) + b'{"__meta'):
      path.write_bytes(content)  # `read` says what is wrong
      self.assertEqual(weights.read_metadata(path), {})


if __name__ == '__main__':
  absltest.main()
