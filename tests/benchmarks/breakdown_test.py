"""Where a step's time goes: names to parts, and events to times."""

import jax
import jax.numpy as jnp
from absl.testing import absltest, parameterized

from nsl_jax import models, optimizers
from nsl_jax.benchmarks import breakdown
from nsl_jax.data import augment
from nsl_jax.methods import supervised
from nsl_jax.training import train_step
from nsl_jax.types import Components

_PROGRAM = """
  %convolution.3 = f32[2,4]{1,0} convolution(f32[2,4]{1,0} %a, f32[2] %b), \
metadata={op_name="jit(single)/jvp(Net)/Conv_0/conv_general_dilated"}
  ROOT fusion.1 = (f32[2]{0}, f32[]) fusion(%convolution.3), kind=kLoop, \
metadata={op_name="jit(single)/transpose(jvp(Net))/BatchNorm_1/mul"}
  %while.2 = (s32[], f32[2]{0}) while(%tuple), condition=%c, body=%b
  %add.7 = f32[] add(%x, %y)
"""


class PartTest(parameterized.TestCase):
  @parameterized.parameters(
    ('jit(f)/jvp(Net)/Conv_0/conv_general_dilated', 'convolution forward'),
    (
      'jit(f)/transpose(jvp(Net))/Conv_0/conv_general_dilated',
      'convolution backward',
    ),
    ('jit(f)/jvp(Net)/BatchNorm_0/rsqrt', 'normalization forward'),
    ('jit(f)/transpose(jvp(Net))/BatchNorm_0/mul', 'normalization backward'),
    ('jit(f)/jvp(augment)/gather', 'augmentation'),
    ('jit(f)/read/gather', 'reading'),
    ('jit(f)/optimizer/mul', 'optimizer'),
    ('jit(f)/jvp(Net)/jit(leaky_relu)/select_n', 'other forward'),
    ('jit(f)/transpose(jvp(Net))/transpose', 'other backward'),
    ('jit(f)/jvp(Net)/transpose', 'other forward'),
    ('', 'layout'),
  )
  def test_by_name(self, name, expected):
    self.assertEqual(breakdown.part_of(name), expected)

  def test_instructions_of_a_program(self):
    self.assertEqual(
      breakdown.parts(_PROGRAM),
      {
        'convolution.3': 'convolution forward',
        'fusion.1': 'normalization backward',
        'add.7': 'layout',
      },
    )


class SpentTest(absltest.TestCase):
  def test_work_in_other_threads_counts_until_its_end(self):
    events = [
      ('convolution.3', 100, 110),
      ('end: convolution.3', 159, 160),
      ('convolution.3', 200, 210),
      ('end: convolution.3', 289, 290),
      ('fusion.1', 0, 30),
      ('unknown', 0, 1000),
    ]
    found = breakdown.spent(events, breakdown.parts(_PROGRAM))
    self.assertEqual(found['convolution forward'], 60 + 90)
    self.assertEqual(found['normalization backward'], 30)
    self.assertEqual(sum(found.values()), 180)
    self.assertEqual(tuple(found), breakdown.PARTS)


class MeasureTest(absltest.TestCase):
  def test_a_real_step_has_every_part(self):
    components = Components(
      model=models.build({'name': 'small_cnn', 'batch_norm': True}, 10),
      tx=optimizers.build({'name': 'adam', 'lr': 1e-3, 'drop_steps': 0}),
      augment=augment.build('flip,translate:2'),
      image_shape=(16, 16, 3),
    )
    method = supervised.build(components, terms={})
    apply = lambda fitted, images: images.astype(jnp.float32) / 255
    step = train_step.one_step(
      method, lambda data, rows: train_step.make_batch(apply, data, rows)
    )
    state = jax.jit(method.init)(jax.random.key(0))
    data = train_step.Data(
      jnp.zeros((32, 16, 16, 3), jnp.uint8), jnp.zeros(32, jnp.int32), {}, {}
    )
    rows = {'labeled': jnp.arange(8), 'unlabeled': jnp.arange(8)}
    program = jax.jit(step).lower(state, data, rows).compile()
    call = lambda: jax.block_until_ready(program(state, data, rows))
    found = breakdown.measure(call, program.as_text(), steps=2)
    for part in set(breakdown.PARTS) - {'layout'}:  # it may need none
      self.assertGreater(found[part], 0.0, part)
    self.assertIn('| x |', breakdown.table({'x': found}))


if __name__ == '__main__':
  absltest.main()
