"""A whole run inside one process, on the digits that ship with a package."""

import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from digits_run import DigitsRunTestCase, make_config as _config

from nsl_jax import errors
from nsl_jax.data import normalize
from nsl_jax.training import (
  assembly,
  checkpoint,
  config as config_lib,
  config_options,
  evaluate,
  experiment,
  feed,
  metrics_log,
  pipeline,
  train_step,
  workdir as workdir_lib,
)


class VersionTest(absltest.TestCase):
  def test_a_jax_that_evaluates_wrongly_is_refused(self):
    with mock.patch.object(jax, '__version_info__', (0, 8, 2)):
      with self.assertRaisesRegex(
        errors.UserError, r'is too old: .* install jax>=0\.8\.3'
      ):
        assembly._check_version()
    requirements = pathlib.Path(__file__).parents[2] / 'setup.cfg'
    self.assertIn('jax>=0.8.3\n', requirements.read_text())


class ExperimentTest(DigitsRunTestCase):
  def test_two_seeds_have_their_own_split_and_one_compilation(self):
    parts = []
    prepare = assembly.prepare
    self.enterContext(
      absltest.mock.patch.object(
        assembly,
        'prepare',
        lambda *given: parts.append(prepare(*given)) or parts[-1],
      )
    )
    results = experiment.run(_config(words='seeds=2'), self.folder)
    self.assertEqual(results['seeds'], [0, 1])
    first, second = results['split_sha256']
    self.assertNotEqual(first, second)
    scores = results['score']['per_seed']
    self.assertAlmostEqual(results['score']['mean'], np.mean(scores))
    self.assertAlmostEqual(results['score']['std'], np.std(scores, ddof=1))
    self.assertEqual(parts[0].chunk._cache_size(), 1)
    for seed in (0, 1):
      with np.load(self.folder / f'seed_{seed}' / 'split.npz') as split:
        self.assertLen(split['labeled'], 50)
        self.assertLen(split['validation'], 180)

  def test_the_same_seed_is_the_same_run(self):
    runs = []
    experiment.run(_config(), self.folder)
    for folder in (self.once, self.folder):
      lines = metrics_log.read(folder / 'seed_0' / 'metrics.jsonl')
      runs.append(
        [{k: v for k, v in line.items() if k != 'seconds'} for line in lines]
      )
    self.assertEqual(*runs)

  def test_four_devices_agree_with_one(self):
    runs = []
    for devices in (1, 4):
      workdir = self.folder / str(devices)
      config = _config(devices=devices, log_every=1, steps=8)
      experiment.run(config, workdir)
      lines = metrics_log.read(workdir / 'seed_0' / 'metrics.jsonl')
      runs.append([line['loss'] for line in lines if line['kind'] == 'train'])
    self.assertLen(runs[0], 8)
    np.testing.assert_allclose(*runs, rtol=1e-5)

  def test_several_steps_a_call_agree_with_one(self):
    runs = []
    for steps in (1, 7):
      workdir = self.folder / str(steps)
      config = _config(steps_per_call=steps, log_every=1, steps=8)
      experiment.run(config, workdir)
      lines = metrics_log.read(workdir / 'seed_0' / 'metrics.jsonl')
      runs.append([line['loss'] for line in lines if line['kind'] == 'train'])
    np.testing.assert_allclose(*runs, rtol=1e-4)

  def test_without_validation_images(self):
    config = _config(**{'data.validation': 0, 'protocol': 'last'})
    results = experiment.run(config, self.folder)
    report = results['reports'][0]
    self.assertIsNone(report['best_validation'])
    self.assertIsNone(report['last']['validation_error'])
    self.assertEqual(
      results['score']['per_seed'], [report['last']['test_error']]
    )

  @parameterized.parameters((0.0,), (0.5,))
  def test_the_best_network_is_kept(self, ema_decay):
    """It is found again with the errors that are reported of it."""
    parts = []
    prepare = assembly.prepare
    self.enterContext(
      absltest.mock.patch.object(
        assembly,
        'prepare',
        lambda *given: parts.append(prepare(*given)) or parts[-1],
      )
    )
    config = _config(
      network={'name': 'small_cnn'},
      steps=24,
      ema_decay=ema_decay,
      **{
        # The last step undoes the training, so that the best comes earlier.
        'eval.every_steps': 4,
        'checkpoint.every': 7,
        'checkpoint.keep': 1,
        'optimizer.drop_steps': 14,
        'optimizer.drop_factor': 300.0,
      },
    )
    results = experiment.run(config, self.folder)
    best = results['reports'][0]['best_validation']
    self.assertLess(best['step'], 24)
    self.assertEqual(best['weights'], f'best/{best["step"]}')
    folder = self.folder / 'seed_0' / 'best'
    self.assertEqual([p.name for p in folder.iterdir()], [str(best['step'])])
    like = train_step.initial_state(parts[0].method, 0, parts[0].mesh)
    store = checkpoint.Checkpoints(folder, keep=None)
    state, position = store.restore(like.replace(opt=()))
    store.close()
    self.assertEqual(state.opt, ())
    self.assertEqual(int(state.step), best['step'])
    self.assertEqual(
      position, {'step': best['step'], 'error': best['validation_error']}
    )
    split = pipeline.split_of(config, parts[0].source, 0)
    data = assembly.data_of(parts[0], split)
    images, labels = (part[split.validation] for part in parts[0].source.train)
    held_out = evaluate.on_device(images, labels, 1000, parts[0].mesh)
    for name, batches in {
      'test_error': parts[0].test,
      'validation_error': held_out,
    }.items():
      found = parts[0].evaluate(state, data.normalization, batches)
      self.assertEqual(found['error'], best[name])

  def test_no_network_is_kept_where_nothing_is_held_out(self):
    config = _config(**{'data.validation': 0, 'protocol': 'last'})
    experiment.run(config, self.folder)
    self.assertFalse((self.folder / 'seed_0' / 'best').exists())

  def test_one_class_for_everything_is_told(self):
    """A rate at which nothing is learned but one class, from the first step."""
    with self.assertLogs('absl', 'WARNING') as logs:
      results = experiment.run(
        _config(words='seeds=1', steps=20, **{'optimizer.lr': 10.0}),
        self.folder,
      )
    told = [line for line in logs.output if 'predictions' in line]
    self.assertLen(told, 1)
    lines = [
      line for line in self.metrics(self.folder) if line['kind'] == 'eval'
    ]
    share = [max(line['by_class']['test_predicted']) / 360 for line in lines]
    self.assertGreater(max(share), 0.95)
    (warning,) = results['reports'][0]['warnings']
    self.assertRegex(warning, r'^at [12] of 2 evaluations one class is nearly')
    self.assertIn('of the labels', warning)

  def test_averaged_weights_are_evaluated(self):
    slow = experiment.run(_config(ema_decay=0.999), self.folder)
    error = lambda r: r['reports'][0]['last']['test_error']
    self.assertGreater(error(slow), 70.0)  # hardly moved from its start
    self.assertLess(error(self.results), error(slow))

  def test_which_weights_decay(self):
    """All weights are 1 before the step; decay takes a twentieth of some."""
    norms = []
    for on in ('kernels', 'all'):
      parts = assembly.prepare(
        _config(weight_decay=50.0, weight_decay_on=on, **{'data.limit': 500})
      )
      state = train_step.initial_state(parts.method, 0, parts.mesh)
      state = state.replace(params=jax.tree.map(jnp.ones_like, state.params))
      config = _config(**{'data.limit': 500})
      split = pipeline.split_of(config, parts.source, 0)
      data = assembly.data_of(parts, split)
      rows = feed.rows_at(
        pipeline.index_iterators(config, split, 0), range(1), parts.mesh
      )
      after, _ = parts.chunk(state, data, rows)
      norms.append(
        {
          jax.tree_util.keystr(path): float(leaf.mean())
          for path, leaf in jax.tree_util.tree_leaves_with_path(after.params)
        }
      )
    kernels, every = norms
    for name, mean in kernels.items():
      shrunk = mean < 0.96  # 1 - 50 * 1e-3, and a step of Adam's at 1e-3
      self.assertEqual(shrunk, 'bias' not in name, name)
      self.assertLess(every[name], 0.96)

  @parameterized.parameters('tf32', 'bfloat16')
  def test_precisions_run(self, precision):
    results = experiment.run(_config(precision=precision), self.folder)
    self.assertLess(results['score']['mean'], 90.0)

  @parameterized.parameters(
    ({'data.labeled': 9}, 'at least 10'),
    ({'data.labeled': 5000}, 'lower config.data.labeled'),
    ({'data.validation': 0}, 'best_validation needs validation'),
    ({'batch.labeled': 15, 'devices': 4}, 'does not divide over 4'),
    ({'devices': 64}, 'only 4 are there'),
    ({'steps': 0}, 'config.steps=0: must be >= 1'),
    ({'steps_per_call': -1}, 'steps_per_call'),
    ({'devices': -1}, 'devices'),
    ({'seed': -1}, 'config.seed'),
    ({'batch.unlabeled': -4}, 'batch.unlabeled'),
    ({'data.limit': -3}, 'data.limit'),
    ({'checkpoint.keep': 0}, 'checkpoint.keep'),
    ({'optimizer.lr': float('nan')}, 'optimizer.lr'),
    ({'ema_decay': 1.5}, 'must be below 1'),
    ({'precision': 'float23'}, "did you mean 'float32'"),
    ({'weight_decay_on': 'kernel'}, "did you mean 'kernels'"),
    ({'protocol': 'best_test'}, 'config.protocol'),
    ({'method.ramp': 'sigmoidal'}, "did you mean 'sigmoid'"),
    ({'data.rule': 'unbalanced'}, "did you mean 'balanced'"),
    ({'data.augment': 'translate:x'}, 'translate:PIXELS'),
    ({'data.augment': 'translate:8'}, 'translate:8 is too far for .*8x8'),
    ({'data.strong': 'flipp'}, "config.data.strong: 'flipp' is none of"),
    ({'data.strong': 'translate_x:9'}, 'translate_x:9 is too far'),
    ({'data.strong': 'jitter:1:1:1:0.1'}, '3 channels, not 1'),
    ({'data.normalize': 'gcn'}, "did you mean 'gcn_zca'"),
    ({'optimizer.name': 'adamm'}, "did you mean 'adam'"),
    (
      {'optimizer.name': 'sgd', 'optimizer.momentum': 1.0},
      r'config\.optimizer\.momentum=1\.0: must be in \[0, 1\)',
    ),
    ({'optimizer.momentum': 0.9}, 'optimizer.momentum is not an option'),
    ({'optimizer.drop_step': 5}, "did you mean 'drop_steps'"),
    ({'optimizer.drop_steps': -5}, 'optimizer.drop_steps=-5: must be a step'),
    (
      {'optimizer.drop_steps': 5, 'optimizer.cosine_steps': 5},
      'set one of them to 0',
    ),
    ({'method.threshold_': 1.0}, 'threshold_'),
    ({'method.threshold': 1.5}, 'threshold=1.5'),
    ({'method.ramp_steps': -5}, 'ramp_steps=-5'),
    ({'method.weight': -1.0}, 'weight=-1.0'),
  )
  def test_wrong_input_makes_no_folder(self, changes, message):
    config = _config()
    with config.unlocked():
      for name, value in changes.items():
        node, _, leaf = name.rpartition('.')
        (config[node] if node else config)[leaf] = value
    with self.assertRaisesRegex(errors.UserError, message):
      experiment.run(config, self.folder / 'w')
    self.assertFalse((self.folder / 'w').exists())

  @parameterized.parameters(
    ({'method.terms.fairness.weight': 0.1}, 'fairness needs a method that'),
    ({'method.name': 'dnll', 'method.count': 10}, 'count=10 negative labels'),
  )
  def test_what_a_step_refuses_makes_no_folder(self, changes, message):
    config = config_lib.load('configs/digits_ns3l.py:smoke=true', changes)
    with self.assertRaisesRegex(errors.UserError, message):
      experiment.run(config, self.folder / 'w')
    self.assertFalse((self.folder / 'w').exists())

  @parameterized.parameters(
    ({'method.name': 'dual_student'}, 'method'),
    ({'method.name': 'dnll'}, 'method'),
    ({'method.name': 'pseudo_label_l2i'}, 'method'),
    ({'method.name': 'fixmatch'}, 'method'),
    ({'method.name': 'mixmatch'}, 'method'),
    ({'method.name': 'l2i', 'method.variant': 'v1'}, 'method.host'),
    ({'method.name': 'l2i', 'method.variant': 'v2'}, 'method.host'),
  )
  def test_terms_are_used(self, method, learner):
    changes = {**method, f'{learner}.terms.entropy.weight': 0.1}
    changes |= {'devices': 1, 'model.name': 'mlp', 'model.hidden': 4}
    config = config_lib.load('configs/digits_ns3l.py', changes)
    assembly.check_step(config, assembly.prepare(config), seed=0)

  def test_a_step_is_traced_once(self):
    steps = []
    one_step = train_step.one_step

    def noted(*given):
      steps.append(absltest.mock.Mock(wraps=one_step(*given)))
      return steps[-1]

    with absltest.mock.patch.object(train_step, 'one_step', noted):
      # A rate that no other test has, whose program would be shared.
      experiment.run(_config(**{'optimizer.lr': 0.0123}), self.folder / 'w')
    (step,) = steps
    self.assertEqual(step.call_count, 1)

  def tools_of(self, image_shape, fitted, **changes):
    """What a config's method is built from."""
    config = _config(**changes)
    with absltest.mock.patch.object(assembly.methods, 'build') as build:
      assembly.build_method(config, 10, image_shape, fitted)
    return build.call_args.args[1]

  def test_views(self):
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    calls = []

    def fitted():
      calls.append(True)
      return normalize.fit('standard', images)

    changes = {'data.normalize': 'standard', 'data.augment': 'flip'}
    components = self.tools_of((8, 8, 3), fitted, **changes)
    self.assertIsNone(components.strong)
    components = self.tools_of(
      (8, 8, 3), fitted, **changes, **{'data.strong': 'translate_x:2'}
    )
    self.assertEmpty(calls)
    components = self.tools_of(
      (8, 8, 3), fitted, **changes, **{'data.strong': 'jitter:0:0:0:0.5'}
    )
    self.assertNotEmpty(calls)
    x = normalize.apply('standard', fitted(), images)
    mirrored = np.asarray(components.augment(x, jax.random.key(0)))
    for before, after in zip(np.asarray(x), mirrored):
      self.assertTrue(
        np.array_equal(after, before) or np.array_equal(after, before[:, ::-1])
      )
    turned = np.asarray(components.strong(x, jax.random.key(0)))
    back = normalize.invert('standard', fitted(), turned)
    np.testing.assert_allclose(  # value and chroma outlast a turn of the hue
      back.max(-1), images.max(-1) / 255, atol=1e-5
    )
    np.testing.assert_allclose(back.min(-1), images.min(-1) / 255, atol=1e-5)
    self.assertGreater(np.abs(turned - x).mean(), 0.1)

  def test_colors_do_not_change_after_whitening(self):
    with self.assertRaisesRegex(errors.UserError, 'gcn_zca cannot be undone'):
      self.tools_of(
        (8, 8, 3),
        dict,
        **{'data.normalize': 'gcn_zca', 'data.augment': 'jitter:1:1:1:0'},
      )

  def test_sgd_along_a_cosine_trains_and_ends_at_rest(self):
    config = _config(network={'name': 'small_cnn'}, log_every=1, steps=24)
    with config.unlocked():
      config.optimizer = dict(
        name='sgd',
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        cosine_steps=20,
      )
    experiment.run(config, self.folder)
    lines = metrics_log.read(self.folder / 'seed_0' / 'metrics.jsonl')
    norms = [e['params_norm'] for e in lines if e['kind'] == 'train']
    self.assertEqual(len(set(norms[:20])), 20)
    self.assertEqual(len(set(norms[19:])), 1)

  def test_side_tables_are_only_built_where_asked_for(self):
    config = _config(**{'method.sampler': 'threshold'})
    parts = assembly.prepare(config)
    self.assertEqual(parts.method.per_image_tables, ())
    with config.unlocked():
      config.method = dict(
        name='ns3l',
        weight=1.0,
        ramp='none',
        ramp_steps=0,
        sampler='exclude_nearest',
        exclude=1,
        count=1,
        passes=1,
        terms={},
      )
    parts = assembly.prepare(config)
    split = pipeline.split_of(config, parts.source, 0)
    tables = pipeline.per_image_tables(
      parts.method.per_image_tables, parts.source, split
    )
    self.assertEqual(list(tables), ['class_distance'])
    rows = split.labeled
    own = tables['class_distance'][rows, parts.source.train.labels[rows]]
    np.testing.assert_allclose(own, 0.0, atol=1e-4)  # itself is the nearest

  def test_warnings_are_kept_with_the_results(self):
    results = experiment.run(
      _config(**{'data.labeled': 43, 'steps': 10}), self.folder
    )
    told = ' '.join(results['warnings'])
    self.assertIn('seed 0: 43 labeled images are not the same number', told)
    self.assertIn(
      'config.steps=10, but method.ramp_steps=5 are set for 20', told
    )
    report = results['reports'][0]
    self.assertEqual(sorted(report['labeled_by_class']), [4] * 7 + [5] * 3)
    self.assertLen(report['content_sha256'], 64)

  def test_more_than_the_whole_run_is_not_a_reduced_one(self):
    with self.assertRaisesRegex(errors.UserError, 'whole run has 2000'):
      config_lib.load('configs/digits_ns3l.py', reduced=2001)

  def test_config_is_written_as_resolved(self):
    folder = self.finished()
    written = workdir_lib.read_json(folder / 'config.json')
    self.assertEqual(written['method']['threshold'], 0.04)
    options = config_options.method_options(written['method'])
    self.assertContainsSubset(options, written['method'])  # at their defaults
    self.assertEqual(written['full_steps'], 2000)
    self.assertEqual(jax.device_count(), 4)


if __name__ == '__main__':
  absltest.main()
