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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from nsl_jax import (
    cli, errors, loop, mesh as mesh_lib, methods, models, optimizers, train,
)
from nsl_jax import workdir as workdir_lib
from nsl_jax.data import augment, normalise, sampler
from nsl_jax.types import Data, Method, Tools

_WARM_UP = 5
_IMAGES = 4096


class Setting(NamedTuple):
  """What all methods of a benchmark share.

  Attributes:
    labelled: B_l.
    unlabelled: B_u.
    shape: (H, W, C).
    classes: K.
    steps_per_call: steps of one timed call.
    precision: as in a config.
    mesh: the devices.
  """

  labelled: int
  unlabelled: int
  shape: tuple[int, int, int]
  classes: int
  steps_per_call: int
  precision: str
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


def _numbers(text: str, example: str) -> list[int]:
  mark = '+' if '+' in example else 'x'
  parts = text.split(mark)
  if len(parts) != len(example.split(mark)) or not all(
      part.isdigit() for part in parts):
    raise errors.UserError(f'{text!r}: write it like {example}')
  return [int(part) for part in parts]


def build(word: str, model: str, setting: Setting, view: str) -> Method:
  """The method of a command-line word at its default options."""
  name, options = parse(word)
  network, fields = parse(model)
  bfloat16 = setting.precision == 'bfloat16'
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


def random_data(method: Method, setting: Setting) -> Data:
  """Random images, and random side tables where the method wants them."""
  rng = np.random.default_rng(0)
  size = _IMAGES
  images = rng.integers(0, 256, (size, *setting.shape), np.uint8)
  labels = rng.integers(0, setting.classes, size, np.int32)
  tables = {
      name: labels if name == 'true_class' else rng.random(
          (size, setting.classes), np.float32)
      for name in method.side
  }
  whole = mesh_lib.everywhere(setting.mesh)
  return Data(*mesh_lib.put((images, labels, {}, tables), whole))


def _compiled(function, *arguments) -> tuple[Any, float, float | None]:
  begun = time.perf_counter()
  program = function.lower(*arguments).compile()
  seconds = time.perf_counter() - begun
  memory = program.memory_analysis()
  if memory is None:
    return program, seconds, None
  used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
  return program, seconds, used / 2**20


def subject(
    method: Method, setting: Setting, read: train.Read, data: Any
) -> Subject:
  """The step as training runs it: rows drawn and sent by the host."""
  sizes = {'labelled': setting.labelled, 'unlabelled': setting.unlabelled}
  streams = {
      name: sampler.Stream(np.arange(_IMAGES), size, seed=0, name=name)
      for name, size in sizes.items()
  }
  count = setting.steps_per_call
  plan = loop.Plan(1 << 30, 1 << 30, 1 << 30, 1 << 30, count, 1)
  chunk = train.make_chunk(
      train.one_step(method, read), steps_per_call=count, mesh=setting.mesh
  )
  state = jax.jit(method.init)(jax.random.key(0))
  state = mesh_lib.put(state, mesh_lib.everywhere(setting.mesh))
  first = loop.rows_at(streams, 0, plan, setting.mesh)
  program, seconds, memory = _compiled(chunk, state, data, first, count)
  step = 0

  def call() -> None:
    nonlocal state, step
    here = first
    if isinstance(data, Data):
      here = loop.rows_at(streams, step, plan, setting.mesh)
    state, history = program(state, data, here, count)
    jax.block_until_ready(history)
    step += count

  return Subject(call, seconds, memory)


def both(word: str, model: str, setting: Setting, view: str) -> list[Subject]:
  """A method with the data pipeline, and on one batch that is already there."""
  apply = functools.partial(normalise.apply, 'signed')
  read = functools.partial(train.gather, apply)
  full = build(word, model, setting, view)
  data = random_data(full, setting)
  rows = {
      'labelled': jnp.arange(setting.labelled),
      'unlabelled': jnp.arange(setting.unlabelled),
  }
  batch = jax.jit(read)(data, rows)
  bare = build(word, model, setting, '')
  return [
      subject(full, setting, read, data),
      subject(bare, setting, lambda batch, rows: batch, batch),
  ]


def measure(
    words: list[str], model: str, setting: Setting, *, steps: int, view: str
) -> dict[str, dict[str, Any]]:
  """Times every method, both ways, in turn.

  Returns:
    Per method: `ms` and `ms_empty` (a step's milliseconds, of every call),
    `compile_s` and `memory_mb`.
  """
  subjects = {}
  for word in words:
    subjects[word] = both(word, model, setting, view)
  taken: dict[str, tuple[list[float], list[float]]] = {
      word: ([], []) for word in words
  }
  calls = -(-steps // setting.steps_per_call)
  for at in tqdm.trange(-_WARM_UP, calls, desc='bench', leave=False):
    for word, pair in subjects.items():
      for one, times in zip(pair, taken[word]):
        begun = time.perf_counter()
        one.call()
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


def _parser() -> cli.Parser:
  parser = cli.Parser('nsl_jax.bench', __doc__)
  add = parser.add_argument
  add('--method', default='supervised,ns3l', help='methods, by comma')
  add('--model', default='small_cnn', help='network; options as for methods '
      '(small_cnn:batch_norm=True)')
  add('--batch', default='64+64', help='labelled+unlabelled images')
  add('--image', default='32x32x3', help='height x width x channels')
  add('--classes', type=int, default=10, help='number of classes')
  add('--steps', type=int, default=50, help='timed steps of each method')
  add('--steps_per_call', type=int, default=0,
      help='steps a call; 0 for 1 on CPU, 25 elsewhere')
  add('--precision', default='float32',
      choices=['float32', 'tf32', 'bfloat16'], help='arithmetic')
  add('--augment', default='flip,translate:2', help='augmentation')
  add('--json', type=pathlib.Path, help='file for the time of every call')
  return parser


def main(argv: Sequence[str] | None = None) -> None:
  """Measures and prints."""
  options = _parser().parse_args(argv)
  jax.config.update('jax_enable_compilation_cache', False)
  jax.config.update(
      'jax_default_matmul_precision',
      'highest' if options.precision == 'float32' else 'default',
  )
  labelled, unlabelled = _numbers(options.batch, '64+64')
  height, width, channels = _numbers(options.image, '32x32x3')
  if min(options.steps, options.classes - 1, 1 + options.steps_per_call) < 1:
    raise errors.UserError('--steps and --classes must be positive')
  per_call = options.steps_per_call or loop.default_steps_per_call()
  setting = Setting(
      labelled, unlabelled, (height, width, channels), options.classes,
      per_call, options.precision, mesh_lib.make(1),
  )
  measured = measure(
      options.method.split(','), options.model, setting, steps=options.steps,
      view=options.augment,
  )
  where = workdir_lib.provenance(1)
  print(f'{options.model}, batch {options.batch} of {options.image}, '
        f'{options.precision}, {per_call} steps a call, {options.steps} steps, '
        f'{where["device"]}')
  print(table(measured, labelled + unlabelled))
  print(f'peak memory of all: {peak_memory_mb():,.0f} MB')
  if options.json is not None:
    content = {
        'kind': 'timing', 'model': options.model, 'batch': options.batch,
        'image': options.image, 'precision': options.precision,
        'steps_per_call': per_call, **where,
        'peak_memory_mb': peak_memory_mb(), 'methods': measured,
    }
    options.json.write_text(json.dumps(content, indent=1) + '\n')


if __name__ == '__main__':
  cli.guard(main)
