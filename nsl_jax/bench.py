"""Step times: python -m nsl_jax.bench --method supervised,ns3l,ns3l:passes=1

Methods are timed in turn, a call of each after the other, so that their ratios
hold on a machine whose speed drifts. An option of a method follows its name:
ns3l:passes=1, several joined by +.

A row a method: milliseconds a step (median, min, max) with the data pipeline
(row sampler, transfer, gather, normalisation, augmentation), the median with
an empty one (a batch that is already there, as it is), the ratio to the first
method, images a second, memory of the compiled step, compile time. Images are
random: only time is measured.
"""

import ast
import functools
import json
import pathlib
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
from absl import flags

from nsl_jax import (
    cli, errors, loop, mesh as mesh_lib, methods, models, optimizers, train,
)
from nsl_jax import workdir as workdir_lib
from nsl_jax.data import augment, normalise, sampler
from nsl_jax.types import Data, Method, Tools

_METHOD = flags.DEFINE_string(
    'method', 'supervised,ns3l', 'Methods, comma-separated.'
)
_MODEL = flags.DEFINE_string(
    'model', 'small_cnn', 'Network, as small_cnn, wide_resnet, cnn13; options '
    'as for methods (small_cnn:batch_norm=True).'
)
_BATCH = flags.DEFINE_string('batch', '64+64', 'Labelled+unlabelled images.')
_IMAGE = flags.DEFINE_string('image', '32x32x3', 'Height x width x channels.')
_CLASSES = flags.DEFINE_integer('classes', 10, 'Classes.', lower_bound=2)
_STEPS = flags.DEFINE_integer(
    'steps', 50, 'Timed calls of each method.', lower_bound=1
)
_PER_CALL = flags.DEFINE_integer(
    'steps_per_call', 0, 'Steps a call; 0 for 1 on CPU, 32 elsewhere.',
    lower_bound=0,
)
_PRECISION = flags.DEFINE_enum(
    'precision', 'float32', ['float32', 'tf32', 'bfloat16'], 'Arithmetic.'
)
_AUGMENT = flags.DEFINE_string('augment', 'flip,translate:2', 'Augmentation.')
_JSON = flags.DEFINE_string('json', None, 'File for the time of every call.')
_WARM_UP = 5


class Setting(NamedTuple):
  """What all methods of a benchmark share.

  Attributes:
    labelled: B_l.
    unlabelled: B_u.
    shape: (H, W, C).
    classes: K.
    steps_per_call: steps of one timed call.
    mesh: the devices.
  """

  labelled: int
  unlabelled: int
  shape: tuple[int, int, int]
  classes: int
  steps_per_call: int
  mesh: jax.sharding.Mesh


class Subject(NamedTuple):
  """One thing to time: `call()` runs and waits for `steps_per_call` steps."""

  call: Callable[[], None]
  compile_s: float
  memory_mb: float | None


def parse(word: str) -> tuple[str, dict[str, Any]]:
  """`name:k=v+k=v` -> the name and its options, as Python literals."""
  name, _, rest = word.partition(':')
  options = {}
  for item in filter(None, rest.split('+')):
    key, _, text = item.partition('=')
    try:
      options[key] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      options[key] = text
  return name, options


def _numbers(text: str, mark: str, count: int, what: str) -> list[int]:
  parts = text.split(mark)
  if len(parts) != count or not all(part.isdigit() for part in parts):
    raise errors.UserError(f'--{what}={text}: write it like {what} in --help')
  return [int(part) for part in parts]


def build(word: str, model: str, setting: Setting, view: str) -> Method:
  """The method of a command-line word at its default options."""
  name, options = parse(word)
  network, fields = parse(model)
  bfloat16 = _PRECISION.value == 'bfloat16'
  tools = Tools(
      model=models.build(
          {'name': network, **fields}, setting.classes,
          precision='bfloat16' if bfloat16 else 'float32',
      ),
      tx=optimizers.build({'name': 'adam', 'lr': 1e-3, 'drop_steps': 0}),
      augment=augment.build(view), image_shape=setting.shape,
  )
  defaults = methods.find(name).DEFAULTS
  return methods.build({'name': name, **defaults, **options}, tools)


def random_data(method: Method, setting: Setting, size: int = 4096) -> Data:
  """Random images, and random side tables where the method wants them."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (size, *setting.shape), np.uint8)
  labels = rng.integers(0, setting.classes, size, np.int32)
  tables = {
      name: labels if name == 'true_class' else rng.random(
          (size, setting.classes), np.float32)
      for name in method.side
  }
  data = Data(images=images, labels=labels, normaliser={}, side=tables)
  return mesh_lib.put(data, mesh_lib.everywhere(setting.mesh))


def _compiled(function, *arguments) -> tuple[Any, float, float | None]:
  begun = time.perf_counter()
  program = function.lower(*arguments).compile()
  seconds = time.perf_counter() - begun
  memory = program.memory_analysis()
  if memory is None:
    return program, seconds, None
  used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
  return program, seconds, used / 2**20


def with_pipeline(method: Method, setting: Setting) -> Subject:
  """The step as training runs it, rows drawn and sent by the host."""
  data = random_data(method, setting)
  sizes = {'labelled': setting.labelled, 'unlabelled': setting.unlabelled}
  rows = np.arange(len(data.labels))
  streams = {
      name: sampler.Stream(rows, size, seed=0, name=name)
      for name, size in sizes.items()
  }
  count = setting.steps_per_call
  plan = loop.Plan(1 << 30, 1 << 30, 1 << 30, 1 << 30, count, 1)
  apply = functools.partial(normalise.apply, 'signed')
  chunk = train.make_chunk(
      method, apply, steps_per_call=count, mesh=setting.mesh
  )
  state = jax.jit(method.init)(jax.random.key(0))
  state = mesh_lib.put(state, mesh_lib.everywhere(setting.mesh))
  first = loop.rows_at(streams, 0, plan, setting.mesh)
  program, seconds, memory = _compiled(chunk, state, data, first, count)
  step = 0

  def call() -> None:
    nonlocal state, step
    here = loop.rows_at(streams, step, plan, setting.mesh)
    state, history = program(state, data, here, count)
    jax.block_until_ready(history)
    step += count

  return Subject(call, seconds, memory)


def without_pipeline(method: Method, setting: Setting) -> Subject:
  """The update alone, on a batch that is already there."""
  data = random_data(method, setting)
  rows = {
      'labelled': np.arange(setting.labelled),
      'unlabelled': np.arange(setting.unlabelled),
  }
  apply = functools.partial(normalise.apply, 'signed')
  batch = jax.jit(lambda data: train.gather(data, rows, apply))(data)

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state, batch):
    key = jax.random.fold_in(state.key, state.step)
    state, metrics = method.update(state, batch, key)
    return state.replace(step=state.step + 1), metrics

  state = jax.jit(method.init)(jax.random.key(0))
  program, seconds, memory = _compiled(update, state, batch)

  def call() -> None:
    nonlocal state
    for _ in range(setting.steps_per_call):
      state, metrics = program(state, batch)
    jax.block_until_ready(metrics)

  return Subject(call, seconds, memory)


def measure(
    words: list[str], model: str, setting: Setting, *, steps: int, view: str
) -> dict[str, dict[str, Any]]:
  """Times every method, both ways, in turn.

  Returns:
    Per method: `ms` and `ms_empty` (a step's milliseconds, every call),
    `compile_s` and `memory_mb`.
  """
  subjects = {}
  for word in words:
    full = with_pipeline(build(word, model, setting, view), setting)
    empty = without_pipeline(build(word, model, setting, ''), setting)
    subjects[word] = (full, empty)
  taken = {word: ([], []) for word in words}
  for at in tqdm.trange(-_WARM_UP, steps, desc='bench', leave=False):
    for word, pair in subjects.items():
      for subject, times in zip(pair, taken[word]):
        begun = time.perf_counter()
        subject.call()
        seconds = time.perf_counter() - begun
        if at >= 0:
          times.append(1e3 * seconds / setting.steps_per_call)
  return {
      word: {
          'ms': taken[word][0], 'ms_empty': taken[word][1],
          'compile_s': full.compile_s, 'memory_mb': full.memory_mb,
      }
      for word, (full, _) in subjects.items()
  }


def table(measured: dict[str, dict[str, Any]], images: int) -> str:
  """The rows that are printed; `images` is the number in a batch."""
  lines = [
      '| method | ms/step | min | max | empty pipeline | ratio | images/s | '
      'memory MB | compile s |', '|' + ' --- |' * 9,
  ]
  base = next(iter(measured.values()))['ms']
  for word, one in measured.items():
    median = statistics.median(one['ms'])
    ratio = statistics.median(a / b for a, b in zip(one['ms'], base))
    memory = one['memory_mb']
    cells = [
        word, f'{median:.2f}', f'{min(one["ms"]):.2f}',
        f'{max(one["ms"]):.2f}', f'{statistics.median(one["ms_empty"]):.2f}',
        f'{ratio:.2f}', f'{1e3 * images / median:,.0f}',
        '' if memory is None else f'{memory:,.0f}', f'{one["compile_s"]:.1f}',
    ]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def peak_memory_mb() -> float:
  """Peak of the first device, or of the process where it does not tell."""
  stats = jax.local_devices()[0].memory_stats() or {}
  peak = stats.get('peak_bytes_in_use')
  if peak is None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return peak / 2**20


def main() -> None:
  """Measures and prints."""
  jax.config.update('jax_enable_compilation_cache', False)
  jax.config.update(
      'jax_default_matmul_precision',
      'highest' if _PRECISION.value == 'float32' else 'default',
  )
  labelled, unlabelled = _numbers(_BATCH.value, '+', 2, 'batch')
  height, width, channels = _numbers(_IMAGE.value, 'x', 3, 'image')
  per_call = _PER_CALL.value or loop.default_steps_per_call()
  setting = Setting(
      labelled, unlabelled, (height, width, channels), _CLASSES.value,
      per_call, mesh_lib.make(1),
  )
  words = _METHOD.value.split(',')
  measured = measure(
      words, _MODEL.value, setting, steps=_STEPS.value, view=_AUGMENT.value
  )
  print(f'{_MODEL.value}, batch {_BATCH.value} of {_IMAGE.value}, '
        f'{_PRECISION.value}, {per_call} steps a call, {_STEPS.value} calls, '
        f'{workdir_lib.provenance()["device"]}')
  print(table(measured, labelled + unlabelled))
  print(f'peak memory of all: {peak_memory_mb():,.0f} MB')
  if _JSON.value:
    content = {
        'kind': 'timing', 'model': _MODEL.value, 'batch': _BATCH.value,
        'image': _IMAGE.value, 'precision': _PRECISION.value,
        'steps_per_call': per_call, **workdir_lib.provenance(),
        'peak_memory_mb': peak_memory_mb(), 'methods': measured,
    }
    pathlib.Path(_JSON.value).write_text(json.dumps(content, indent=1) + '\n')


if __name__ == '__main__':
  cli.run(main)
