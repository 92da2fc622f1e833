"""Programs lowered for a GPU, which does not have to be there."""

import collections
import re
from unittest import mock

import every_method
import jax
import jax.numpy as jnp
import optax
from absl.testing import absltest, parameterized

from nsl_jax import methods, models
from nsl_jax.data import augment
from nsl_jax.training import (
  assembly,
  config as config_lib,
  sharding as mesh_lib,
  train_step,
)
from nsl_jax.types import Components, Data

_PRODUCT = re.compile(
  r'stablehlo\.(convolution|dot_general).*?: \(tensor<(?:\d+x)*(\w+)>, '
  r'tensor<(?:\d+x)*(\w+)>\)'
)


def lowered(name):
  """The text of three steps in bfloat16 for a CUDA device, and the number of
  arrays in their state.
  """
  network = {'name': 'two_convolutions:network'}
  components = Components(
    model=models.build(network, 10, precision='bfloat16'),
    tx=optax.adam(3e-3),
    augment=augment.build('flip,translate:1'),
    image_shape=(8, 8, 1),
    num_images=9,
    num_devices=1,
  )
  terms = {} if name == 'l2i' else {'terms': {}}
  method = methods.build(
    {'name': name, **terms, **every_method.CONFIGS[name]}, components
  )
  chunk = train_step.make_train_steps(
    train_step.one_step(method, every_method.read), mesh=mesh_lib.make(1)
  )
  state = jax.eval_shape(method.init, jax.random.key(0))
  rows = jnp.zeros((3, 8), jnp.int32)
  data = Data(
    jnp.zeros((9, 8, 8, 1), jnp.uint8),
    jnp.zeros(9, jnp.int32),
    {},
    {},
    num_unlabeled=jnp.asarray(9),
  )
  traced = chunk.trace(
    state, data, dict(labeled=rows, unlabeled=rows, holdout=rows)
  )
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  return text, len(jax.tree.leaves(state))


class LoweredTest(parameterized.TestCase):
  @parameterized.parameters(*every_method.CONFIGS)
  def test_every_method(self, name):
    """A single loop, over the steps, and no host callback; convolutions in
    bfloat16, other products in float32; every array of the state is donated.
    """
    text, arrays = lowered(name)
    self.assertEqual(text.count('stablehlo.while'), 1)
    for waits in 'callback', 'stablehlo.case', 'infeed', 'send':
      self.assertNotIn(waits, text)
    types = collections.defaultdict(set)
    for product, left, right in _PRODUCT.findall(text):
      types[product] |= {left, right}
    self.assertEqual(types, {'convolution': {'bf16'}, 'dot_general': {'f32'}})
    self.assertEqual(text.count('tf.aliasing_output'), arrays)

  def test_mixmatch_makes_two_passes(self):
    """One over all views and one over all mixed images, not two and three."""
    on_cpu, _ = lowered('mixmatch')
    with mock.patch.object(jax, 'default_backend', lambda: 'gpu'):
      on_gpu, _ = lowered('mixmatch')
    number = lambda text: text.count('stablehlo.convolution')
    # Of 2 convolutions: forward passes, and gradients of kernels and of what
    # they are given, which is an image for the first.
    self.assertEqual(number(on_cpu), (2 + 3) * 2 + 3 * (2 + 1))
    self.assertEqual(number(on_gpu), (1 + 1) * 2 + (2 + 1))

  @parameterized.parameters(0, 1, 2)
  def test_a_run_divides_batches_over_its_own_devices(self, devices):
    config = config_lib.load('configs/digits_ns3l.py', [('devices', devices)])
    components = assembly.components_of(config, 10, (8, 8, 1))
    self.assertEqual(components.num_devices, devices)


if __name__ == '__main__':
  absltest.main()
