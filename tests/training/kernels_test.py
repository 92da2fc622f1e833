"""Which kernels a run has, and that its numbers do not depend on them."""

import json
import os
import pathlib
import subprocess
import sys
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import temporary
from absl.testing import absltest, parameterized

from nsl_jax import errors, models
from nsl_jax.data import cache
from nsl_jax.training import assembly, config as config_lib, kernels, train_step


class ChooseTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(
      mock.patch.dict(os.environ, NSL_JAX_CACHE=str(self.folder))
    )
    self.ratio = self.enterContext(
      mock.patch.object(kernels, '_ratio', return_value=0.6)
    )
    kernels._measure.cache_clear()
    self.addCleanup(kernels._measure.cache_clear)
    self.others = self.enterContext(
      mock.patch.object(kernels, '_others', return_value=0.0)
    )
    self.known = self.enterContext(
      mock.patch.object(kernels, '_has_option', return_value=True)
    )

  @parameterized.parameters((0.6, 'eigen'), (0.95, 'default'), (1.3, 'default'))
  def test_measured_once(self, ratio, expected):
    self.ratio.return_value = ratio
    self.assertEqual(kernels.choose('measured'), expected)
    self.assertEqual(kernels.choose('measured'), expected)
    self.ratio.assert_called_once()
    kept = json.loads((cache.directory() / 'kernels.json').read_text())
    self.assertEqual(list(kept.values()), [expected])

  def test_beside_other_programs_it_is_measured_by_each_process(self):
    self.ratio.return_value = 1.0
    self.others.side_effect = [0.0, 1e6]
    for _ in range(2):  # all seeds of a process
      self.assertEqual(kernels.choose('measured'), 'default')
    self.ratio.assert_called_once()
    self.assertFalse((cache.directory() / 'kernels.json').exists())
    kernels._measure.cache_clear()  # the next process
    self.ratio.return_value, self.others.side_effect = 0.6, None
    self.assertEqual(kernels.choose('measured'), 'eigen')
    kept = json.loads((cache.directory() / 'kernels.json').read_text())
    self.assertEqual(list(kept.values()), ['eigen'])

  def test_another_machine_measures_again(self):
    kernels.choose('measured')
    kernels._measure.cache_clear()
    with mock.patch.object(kernels, '_machine', return_value='another'):
      self.ratio.return_value = 2.0
      self.assertEqual(kernels.choose('measured'), 'default')
    self.assertEqual(kernels.choose('measured'), 'eigen')

  @parameterized.parameters('eigen', 'default')
  def test_a_run_keeps_what_it_began_with(self, before):
    path = self.folder / 'config.json'
    path.write_text(json.dumps({'kernels': before}))
    self.assertEqual(kernels.of_run('measured', self.folder), before)
    self.assertEqual(kernels.of_run('eigen', self.folder), 'eigen')
    self.ratio.assert_not_called()

  @parameterized.parameters('', '{', '[]', '{}', '{"kernels": "measured"}')
  def test_a_run_of_before_there_was_a_choice(self, text):
    (self.folder / 'config.json').write_text(text)
    self.assertEqual(kernels.of_run('measured', self.folder), 'default')

  def test_a_new_run(self):
    self.assertEqual(kernels.of_run('measured', self.folder), 'eigen')
    self.assertEqual(kernels.of_run('measured', None), 'eigen')

  def test_an_xla_without_them(self):
    self.known.return_value = False
    self.assertEqual(kernels.choose('measured'), 'default')
    self.assertEqual(kernels.options('eigen'), {})
    self.assertEqual(kernels.choose('measured', 'eigen'), 'default')
    with self.assertRaisesRegex(errors.UserError, 'use default'):
      kernels.choose('eigen')
    self.ratio.assert_not_called()

  def test_several_processes(self):
    with mock.patch.object(jax, 'process_count', return_value=2):
      self.assertEqual(kernels.choose('measured'), 'default')

  def test_a_cache_that_cannot_be_written(self):
    (self.folder / 'file').write_text('')
    with mock.patch.dict(os.environ, NSL_JAX_CACHE=f'{self.folder}/file/x'):
      self.assertEqual(kernels.choose('measured'), 'eigen')

  def test_another_word(self):
    with self.assertRaisesRegex(errors.UserError, "did you mean 'eigen'"):
      kernels.choose('eigne')


class OptionTest(absltest.TestCase):
  def test_an_unknown_option_breaks_nothing(self):
    with mock.patch.object(kernels, '_EIGEN', {'xla_no_such_option': ''}):
      kernels._has_option.cache_clear()
      self.assertEqual(kernels.options('eigen'), {})
      self.assertEqual(kernels.choose('measured'), 'default')
    kernels._has_option.cache_clear()

  def test_the_measurement_runs(self):
    if kernels.options('eigen'):
      self.assertBetween(kernels._ratio(), 0.05, 20.0)

  def test_others_are_seen_and_this_process_is_not(self):
    if not pathlib.Path('/proc/stat').exists():
      self.skipTest('no /proc/stat')
    before = kernels._others()
    with subprocess.Popen([sys.executable, '-c', 'while True: pass']) as other:
      time.sleep(1.0)
      other.kill()
    self.assertGreater(kernels._others() - before, 0.4)

  def test_reaches_the_step(self):
    config = config_lib.load('configs/digits_supervised.py', smoke=True)
    wanted = {'xla_cpu_experimental_ynn_fusion_type': 'nonsense'}
    with mock.patch.object(kernels, 'options', return_value=wanted):
      parts = assembly.prepare(config)
    state = train_step.initial_state(parts.method, 0, parts.mesh)
    with self.assertRaisesRegex(Exception, 'nonsense|ynn'):
      parts.evaluate(state, parts.fitted, parts.test)


class NumberTest(absltest.TestCase):
  def test_gradients_are_the_same_to_rounding(self):
    """Of a wide residual network, in float32."""
    model = models.build({'name': 'wide_resnet', 'depth': 10, 'width': 1}, 10)
    images = jax.random.normal(jax.random.key(1), (16, 16, 16, 3))
    params, stats = jax.jit(lambda key: model.init(key, (16, 16, 3)))(
      jax.random.key(0)
    )

    def loss(params):
      outputs, moved = model.apply(params, stats, images, train=True)
      return jnp.square(outputs.logits - 1.0).mean(), moved

    step = jax.value_and_grad(loss, has_aux=True)
    one, two = (
      jax.jit(step, compiler_options=kernels.options(choice))(params)
      for choice in ('default', 'eigen')
    )
    largest = max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(one[1]))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
        a, b, rtol=1e-3, atol=1e-4 * largest
      ),
      one,
      two,
    )

  def test_a_program_that_runs_once_gives_the_same_bits(self):
    jax.config.update('jax_disable_most_optimizations', False)
    jax.config.update('jax_enable_compilation_cache', False)
    model = models.build({'name': 'small_cnn'}, 10)
    self.assertNotEmpty(kernels.once())
    one, two = (
      jax.jit(
        lambda key: model.init(key, (4, 4, 1))[0], compiler_options=options
      )(jax.random.key(3))
      for options in ({}, kernels.once())
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)


if __name__ == '__main__':
  absltest.main()
