"""Freed memory stays with the process, and a data set is held once."""

import json
import pathlib

import fresh_process
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import memory
from nsl_jax.training import assembly, config as config_lib

_CODE = """
import json, resource
from nsl_jax import memory
kept = memory.keep()
import jax, jax.numpy as jnp
x = jnp.full((4096, 64), 0.01)
step = jax.jit(lambda x: ((x @ x.T) @ x).sum())  # 64 MiB in between
run = lambda: float(step(x))
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
values = [run() for _ in range(6)]
before = faults()
values += [run() for _ in range(5)]
print(json.dumps([kept, (faults() - before) / 5, values]))
"""


# A block that is mapped alone reads as zeros the second time.
_LARGE = """
import ctypes, pathlib
from nsl_jax import memory
assert memory.keep()
library = ctypes.CDLL(None)
library.malloc.argtypes = [ctypes.c_size_t]
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
block = library.malloc(3 * 2**30)
ctypes.memset(block + 2**31, 7, 4096)
library.free(block)
second = library.malloc(3 * 2**30)
print(ctypes.string_at(second + 2**31, 2))
heap = pathlib.Path('/proc/self/smaps').read_text().split('[heap]')[1:]
print(any('hg' in part.split('VmFlags:')[1].split() for part in heap))
"""


def faults(**variables):
  done = fresh_process.run('-c', _CODE, **variables)
  done.check_returncode()
  return json.loads(done.stdout)


class KeepTest(absltest.TestCase):
  def test_no_page_is_mapped_anew(self):
    kept, few, values = faults()
    returned, many, same = faults(NSL_JAX_RETURN_MEMORY='1')
    self.assertFalse(returned)
    self.assertEqual(values, same)
    if kept:  # with glibc
      self.assertGreater(many, 8000)  # pages of 64 MiB are 16,384
      self.assertLess(few, many / 2)

  def test_of_any_size_and_on_huge_pages(self):
    if not pathlib.Path('/sys/kernel/mm/transparent_hugepage').exists():
      self.skipTest('no huge pages')
    done = fresh_process.run('-c', _LARGE)
    self.assertEqual(done.stdout.split('\n')[0], str(b'\7\7'), done.stderr)
    self.assertEqual(done.stdout.split('\n')[1], 'True')


class SharedTest(parameterized.TestCase):
  @parameterized.parameters(((3, 5), 'f4'), ((0, 4), 'u1'), ((7,), 'i8'))
  def test_empty(self, shape, kind):
    found = memory.empty(shape, kind)
    self.assertEqual((found.shape, found.dtype), (shape, np.dtype(kind)))
    self.assertEqual(found.size and found.ctypes.data % 64, 0)
    found[...] = 1

  def test_copies_only_what_is_not_aligned(self):
    whole = memory.empty((10, 64), np.uint8)
    whole[...] = np.arange(640).reshape(10, 64) % 256
    same = memory.shared(whole)
    self.assertEqual(same.ctypes.data, whole.ctypes.data)
    with self.assertRaises(ValueError):
      same[0, 0] = 1
    whole[0, 0] = 1  # who made it may still
    for part in (whole[:, 1:], whole.reshape(-1)[1:]):
      other = memory.shared(part)
      np.testing.assert_array_equal(other, part)
      self.assertEqual(other.ctypes.data % 64, 0)

  def test_training_images_are_those_of_the_device(self):
    config = config_lib.load('configs/digits_supervised.py', smoke=True)
    with config.unlocked():
      config.devices = 1
    parts = assembly.prepare(config)
    (shard,) = parts.images.addressable_shards
    self.assertEqual(
      shard.data.unsafe_buffer_pointer(), parts.source.train.images.ctypes.data
    )


if __name__ == '__main__':
  absltest.main()
