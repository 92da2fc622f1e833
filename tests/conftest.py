"""Settings of the whole suite: four fake devices, strict shapes, own caches.

Compiling is most of what the tests do, so programs are not optimised here;
those that a test starts in a process of its own are.
"""

import os
import tempfile

os.environ['XLA_FLAGS'] = ' '.join([
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=4',
])
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Nothing that a test decodes or compiles may reach the user's own cache, nor
# the other way round.
_CACHE = tempfile.TemporaryDirectory(prefix='nsl_jax_tests_')
os.environ['NSL_JAX_CACHE'] = _CACHE.name
# Compiled programs are shared by all tests of a session: the first process sets
# the variable, its workers find it.
_SHARED = 'NSL_JAX_TEST_PROGRAMS'
if _SHARED not in os.environ:
  _PROGRAMS = tempfile.TemporaryDirectory(prefix='nsl_jax_programs_')
  os.environ[_SHARED] = _PROGRAMS.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'

import jax  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)
jax.config.update('jax_disable_most_optimizations', True)
jax.config.update('jax_compilation_cache_dir', os.environ[_SHARED])
