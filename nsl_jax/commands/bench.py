"""Step times: python -m nsl_jax bench --method supervised,ns3l,ns3l:passes=1

Methods are timed alternately, so that their ratios hold on a machine whose
speed drifts. Options follow the name of a method, joined by +: ns3l:passes=1.
--config times the method, network, optimizer, batch and augmentation of a
config instead.

The table has a row per method: milliseconds per step (median, min, max) with
the data pipeline (row sampler, transfer, gather, normalization, augmentation),
the median without it (a fixed batch on the device), the ratio to the first
method, images per second, memory and arithmetic of the compiled step, compile
time; with --inference also the time to predict as many images with all networks
that are evaluated. Images are random: only time is measured.

--breakdown adds the time of each part of a step, by the profiler. --kernels
default,eigen times every method with both kernels of a CPU. --rows prints a
line `ROW {...}` per method instead, without the data pipeline and with the
names of other libraries' benchmarks (pimodel, l2i-o(meanteacher), ...).
--startup prints instead the seconds from the training command of a --config to
its first step, with an empty and with a filled compilation cache.
--classifiers compares the test accuracy of SemiSupervisedClassifier with that
of scikit-learn's classifiers at few labels; --json is the file that keeps what
is measured, and that an interrupted comparison goes on from. --growth
10000,100000 measures the host memory of training on, and predicting, folders of
so many images. --randaugment 448 measures the images per second of RandAugment
on batches of 448, of the size --image, beside a loop over Pillow on one core.
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax

from nsl_jax import errors, files
from nsl_jax.benchmarks import (
  augmentation,
  breakdown,
  classifiers,
  growth,
  startup,
  step,
  step_times,
  stopwatch,
)
from nsl_jax.benchmarks.stopwatch import Setting
from nsl_jax.commands import cli
from nsl_jax.training import (
  kernels as kernels_lib,
  loop,
  sharding as mesh_lib,
  train_step,
  workdir as workdir_lib,
)


def _numbers(text: str, example: str) -> list[int]:
  mark = '+' if '+' in example else 'x'
  parts = text.split(mark)
  if len(parts) != len(example.split(mark)) or not all(
    part.isdigit() for part in parts
  ):
    raise errors.UserError(f'{text!r}: write it like {example}')
  return [int(part) for part in parts]


def print_rows(
  name: str, model: str, setting: Setting, view: str, steps: int
) -> None:
  """Prints the lines of --rows; for an unknown method a message on stderr."""
  if name not in step.ROWS:
    print(
      f'no row {name!r}: {errors.did_you_mean(name, step.ROWS)}',
      file=sys.stderr,
    )
  for word in step.ROWS.get(name, []):
    if word.startswith('configs/'):
      work = step.of_config(word, setting, own_batch=False)
    else:
      work = step.of_word(word, model, setting, view)
    subject = step.subjects_of(work, inference=False)[step_times.BARE]
    step_ms = stopwatch.in_turn({word: subject}, setting, steps=steps)
    print(
      'ROW '
      + json.dumps(
        {
          'peer': 'nsl_jax',
          'method': name,
          'variant': word,
          'batch': f'{setting.labeled}+{setting.unlabeled}',
          'kernels': setting.kernels,
          'compile_s': subject.compile_s,
          'all': step_ms[word],
        }
      ),
      flush=True,
    )


def _parser() -> cli.Parser:
  parser = cli.Parser('bench', __doc__)
  add = parser.add_argument
  add(
    '--method',
    help='methods, comma-separated (default without --config: supervised,ns3l)',
  )
  add(
    '--config',
    action='append',
    default=[],
    help='a config, with its method, network, batch and augmentation; may be '
    'repeated',
  )
  add(
    '--model',
    help='network; options as for methods (small_cnn:batch_norm=True); '
    'default: small_cnn, with --rows wide_resnet',
  )
  add('--batch', default='64+64', help='labeled+unlabeled images')
  add('--image', default='32x32x3', help='height x width x channels')
  add('--classes', type=int, default=10, help='number of classes')
  add('--steps', type=int, default=50, help='timed steps of each method')
  add(
    '--steps_per_call',
    type=int,
    default=0,
    help='steps per call; 0 for 1 on CPU, 25 elsewhere',
  )
  add(
    '--precision',
    default='float32',
    choices=['float32', 'tf32', 'bfloat16'],
    help='arithmetic',
  )
  add('--augment', default='flip,translate:2', help='augmentation')
  add(
    '--inference',
    action='store_true',
    help='also time the prediction of as many images',
  )
  add(
    '--full_only',
    action='store_true',
    help='omit the timing without the data pipeline, which saves a compilation',
  )
  add('--breakdown', action='store_true', help='time of each part of a step')
  add(
    '--kernels',
    default='measured',
    help='convolution kernels of a CPU: measured, default, eigen, or several, '
    'comma-separated',
  )
  add(
    '--rows',
    action='store_true',
    help='lines for the benchmarks of other libraries',
  )
  add(
    '--startup',
    action='store_true',
    help='seconds to the first step of each --config',
  )
  add(
    '--classifiers',
    action='store_true',
    help='accuracy beside the classifiers of scikit-learn',
  )
  add('--seeds', type=int, default=5, help='of --classifiers')
  add(
    '--growth',
    metavar='N,N',
    help='host memory of training on folders of so many images',
  )
  add(
    '--randaugment',
    metavar='BATCH',
    type=int,
    help='images per second of RandAugment beside Pillow',
  )
  add('--json', type=cli.local_path, help='file for the time of every call')
  return parser


# Options that act in a mode; without one all but --seeds do.
_ACTS_IN = {
  'rows': {
    'method',
    'model',
    'batch',
    'image',
    'classes',
    'steps',
    'steps_per_call',
    'precision',
    'augment',
    'kernels',
  },
  'startup': {'config', 'json'},
  'classifiers': {'seeds', 'json'},
  'growth': {'json'},
  'randaugment': {'image', 'json'},
}


def _refuse_ignored(parser: cli.Parser, options: Any) -> None:
  """Raises UserError if an option would have no effect."""
  given = parser.refuse_ignored(options, _ACTS_IN)
  if 'seeds' in given and not options.classifiers:
    raise errors.UserError('--seeds is for --classifiers: omit it')
  ignored = given & {'model', 'batch', 'augment'}
  if options.config and not options.method and not options.startup and ignored:
    raise errors.UserError(
      f'--config ignores {", ".join(f"--{name}" for name in sorted(ignored))}, '
      'of which a config has its own: omit it, or add --method'
    )
  if options.seeds < 1:
    raise errors.UserError(f'--seeds={options.seeds}: must be at least 1')
  if options.startup and not options.config:
    raise errors.UserError(
      '--startup needs a config: add --config=configs/digits_ns3l.py'
    )


def _counts(text: str) -> list[int]:
  """`10000,100000` as numbers of images."""
  words = text.split(',')
  if not all(word.isdigit() and int(word) >= 1000 for word in words):
    raise errors.UserError(
      f'--growth={text}: numbers of images from 1000 up, such as 10000,100000'
    )
  return [int(word) for word in words]


def _write(path: pathlib.Path | None, kind: str, **content: Any) -> None:
  """Writes a result file with the versions and the device."""
  if path is not None:
    content = {'kind': kind, **workdir_lib.provenance(1), **content}
    files.write(path, (json.dumps(content, indent=1) + '\n').encode())


def _measure_randaugment(options: Any) -> None:
  height, width, channels = _numbers(options.image, '32x32x3')
  if options.randaugment < 1 or channels not in (1, 3):
    raise errors.UserError(
      f'--randaugment={options.randaugment} --image={options.image}: must be '
      'at least one image of 1 or 3 channels'
    )
  shape = (height, width, channels)
  measured = {options.image: augmentation.measure(options.randaugment, shape)}
  print(augmentation.table(measured))
  _write(
    options.json, kind='randaugment', batch=options.randaugment, images=measured
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Measures and prints."""
  parser = _parser()
  options = parser.parse_args(argv)
  _refuse_ignored(parser, options)
  if options.json is not None:
    files.make_folder(options.json.parent, '--json')
  if options.startup:
    seconds = startup.measure(options.config)
    print(startup.table(seconds))
    _write(options.json, kind='startup', configs=seconds)
    return
  if options.growth:
    grown = growth.measure(_counts(options.growth))
    print(growth.table(grown))
    _write(options.json, kind='growth', images=grown)
    return
  if options.randaugment is not None:
    _measure_randaugment(options)
    return
  if options.classifiers:
    cells = classifiers.measure(options.json, range(options.seeds))
    print(classifiers.table(cells))
    return
  jax.config.update('jax_enable_compilation_cache', False)
  train_step.use_precision(options.precision)
  labeled, unlabeled = _numbers(options.batch, '64+64')
  height, width, channels = _numbers(options.image, '32x32x3')
  if labeled < 1:
    raise errors.UserError(
      f'--batch={options.batch}: must have at least one labeled image'
    )
  if min(options.steps, options.classes - 1, 1 + options.steps_per_call) < 1:
    raise errors.UserError(
      f'--steps={options.steps} --classes={options.classes} --steps_per_call='
      f'{options.steps_per_call}: must be at least 1, 2 and 0'
    )
  per_call = options.steps_per_call or loop.default_steps_per_call()
  setting = Setting(
    labeled,
    unlabeled,
    (height, width, channels),
    options.classes,
    per_call,
    options.precision,
    mesh_lib.make(1),
  )
  choices = [kernels_lib.choose(name) for name in options.kernels.split(',')]
  if options.rows:
    for name in (options.method or ','.join(step.ROWS)).split(','):
      for choice in choices:
        print_rows(
          name,
          options.model or 'wide_resnet',
          setting._replace(kernels=choice),
          options.augment,
          options.steps,
        )
    return
  model = options.model or 'small_cnn'
  words = options.method or ('' if options.config else 'supervised,ns3l')
  works = {
    word: step.of_word(word, model, setting, options.augment)
    for word in filter(None, words.split(','))
  } | {name: step.of_config(name, setting) for name in options.config}
  measured = step.measure(
    step.with_kernels(works, choices),
    steps=options.steps,
    inference=options.inference,
    parts=options.breakdown,
    empty=not options.full_only,
  )
  provenance = workdir_lib.provenance(1)
  of_words = f'{model}, batch {options.batch}, ' if words else ''
  print(
    f'{of_words}images {options.image}, {options.precision}, '
    f'{"/".join(choices)} kernels, {per_call} steps a call, '
    f'{options.steps} steps, {provenance["device"]}'
  )
  print(step_times.table(measured))
  if options.breakdown:
    print('\nms a step by part; operations may overlap')
    print(breakdown.table({n: m['parts_ms'] for n, m in measured.items()}))
  print(f'peak memory of all: {stopwatch.peak_memory_mb():,.0f} MB')
  _write(
    options.json,
    kind='timing',
    **({'model': model, 'batch': options.batch} if words else {}),
    image=options.image,
    precision=options.precision,
    steps_per_call=per_call,
    kernels=choices,
    peak_memory_mb=stopwatch.peak_memory_mb(),
    methods=measured,
  )
