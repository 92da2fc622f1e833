"""Freed memory stays with the process, and numbers stay what they were."""

import json
import subprocess
import sys

from absl.testing import absltest
import fresh_process

_CODE = '''
import json, resource
from nsl_jax import memory
kept = memory.keep()
import jax, jax.numpy as jnp
conv = lambda x, k: jax.lax.conv_general_dilated(
    x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
loss = lambda k, x: conv(jnp.roll(jnp.tanh(conv(x, k)), 1, 1), k).sum()
step = jax.jit(jax.value_and_grad(loss))
x, k = jnp.ones((16, 32, 32, 32)), jnp.full((3, 3, 32, 32), 0.01)
run = lambda: float(step(k, x)[0])
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
values = [run() for _ in range(3)]
before = faults()
values += [run() for _ in range(5)]
print(json.dumps([kept, (faults() - before) / 5, values]))
'''


def faults(**variables):
  done = subprocess.run(
      [sys.executable, '-c', _CODE], capture_output=True, text=True,
      env=fresh_process.environment(**variables), check=True)
  return json.loads(done.stdout)


class KeepTest(absltest.TestCase):

  def test_no_page_is_mapped_anew(self):
    kept, few, values = faults()
    returned, many, same = faults(NSL_JAX_RETURN_MEMORY='1')
    self.assertFalse(returned)
    self.assertEqual(values, same)
    if kept:  # with glibc
      self.assertGreater(many, 500)  # each buffer of 2 MiB has 512 pages
      self.assertLess(few, many / 4)


if __name__ == '__main__':
  absltest.main()
