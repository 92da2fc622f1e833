"""Step times: python -m nsl_jax bench --method supervised,ns3l,ns3l:passes=1

Methods are timed in turn, a call of each after the other, so that their ratios
hold on a machine whose speed drifts. An option of a method follows its name:
ns3l:passes=1, several joined by +. --config times the method, network,
optimizer, batch and augmentation of a config instead.

A row a method: milliseconds a step (median, min, max) with the data pipeline
(row sampler, transfer, gather, normalization, augmentation), the median with
an empty one (a batch that is already there, as it is), the ratio to the first
method, images a second, memory of the compiled step, its arithmetic, compile
time; with --inference also the time to predict as many images, by all networks
that are evaluated. Images are random: only time is measured.

--breakdown adds where the time of a step goes, by the profiler. --kernels
default,eigen times every method with either on a CPU. --rows prints a line
`ROW {...}` for each method instead, without the data pipeline and under the
names that other libraries' benchmarks use (pimodel, l2i-o(meanteacher), ...).
--startup prints instead the seconds from the command that trains a --config to
its first step, when nothing is compiled yet and when it has run before.
--classifiers compares the test accuracy of SemiSupervisedClassifier with that
of scikit-learn's classifiers at few labels; --json is the file that keeps what
is measured, and that an interrupted comparison goes on from.
"""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from nsl_jax import errors, files
from nsl_jax.benchmarks import (
  breakdown,
  classifiers,
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
    taken = stopwatch.in_turn({word: subject}, setting, steps=steps)
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
          'all': taken[word],
        }
      ),
      flush=True,
    )


def _parser() -> cli.Parser:
  parser = cli.Parser('bench', __doc__)
  add = parser.add_argument
  add(
    '--method',
    help='methods, by comma; supervised,ns3l if there is no --config',
  )
  add(
    '--config',
    action='append',
    default=[],
    help='a config, with its own '
    'method, network, batch and augmentation; may be given several times',
  )
  add(
    '--model',
    help='network; options as for methods '
    '(small_cnn:batch_norm=True); small_cnn if not given, with --rows '
    'wide_resnet',
  )
  add('--batch', default='64+64', help='labeled+unlabeled images')
  add('--image', default='32x32x3', help='height x width x channels')
  add('--classes', type=int, default=10, help='number of classes')
  add('--steps', type=int, default=50, help='timed steps of each method')
  add(
    '--steps_per_call',
    type=int,
    default=0,
    help='steps a call; 0 for 1 on CPU, 25 elsewhere',
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
    help='time the prediction of as many images too',
  )
  add(
    '--full_only',
    action='store_true',
    help='leave the empty pipeline out, which is a program more to compile',
  )
  add('--breakdown', action='store_true', help='where the time of a step goes')
  add(
    '--kernels',
    default='measured',
    help='of convolutions on a CPU: '
    'measured, default, eigen, or several by comma',
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
  add('--json', type=pathlib.Path, help='file for the time of every call')
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
}


def _refuse_ignored(parser: cli.Parser, options: Any) -> None:
  """Raises UserError if an option would have no effect."""
  given = {
    name
    for name, value in vars(options).items()
    if value != parser.get_default(name) and name != 'verbosity'
  }
  for mode in given & _ACTS_IN.keys():
    ignored = sorted(f'--{name}' for name in given - _ACTS_IN[mode] - {mode})
    if ignored:
      raise errors.UserError(f'--{mode} ignores {", ".join(ignored)}: omit it')
  if 'seeds' in given and not options.classifiers:
    raise errors.UserError('--seeds is for --classifiers: omit it')
  if options.seeds < 1:
    raise errors.UserError(f'--seeds={options.seeds}: must be at least 1')
  if options.startup and not options.config:
    raise errors.UserError(
      '--startup needs a config: add --config=configs/digits_ns3l.py'
    )


def _write(path: pathlib.Path | None, content: Mapping[str, Any]) -> None:
  if path is not None:
    files.write(path, (json.dumps(content, indent=1) + '\n').encode())


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
    _write(
      options.json,
      {'kind': 'startup', **workdir_lib.provenance(1), 'configs': seconds},
    )
    return
  if options.classifiers:
    cells = classifiers.measure(options.json, range(options.seeds))
    print(classifiers.table(cells))
    return
  jax.config.update('jax_enable_compilation_cache', False)
  train_step.use_precision(options.precision)
  labeled, unlabeled = _numbers(options.batch, '64+64')
  height, width, channels = _numbers(options.image, '32x32x3')
  if min(options.steps, options.classes - 1, 1 + options.steps_per_call) < 1:
    raise errors.UserError('--steps and --classes must be positive')
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
  choices = [kernels_lib.choose(one) for one in options.kernels.split(',')]
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
  where = workdir_lib.provenance(1)
  of_words = f'{model}, batch {options.batch}, ' if words else ''
  print(
    f'{of_words}images {options.image}, {options.precision}, '
    f'{"/".join(choices)} kernels, {per_call} steps a call, '
    f'{options.steps} steps, {where["device"]}'
  )
  print(step_times.table(measured))
  if options.breakdown:
    print('\nms a step by part; operations may overlap')
    print(breakdown.table({n: m['parts_ms'] for n, m in measured.items()}))
  print(f'peak memory of all: {stopwatch.peak_memory_mb():,.0f} MB')
  _write(
    options.json,
    {
      'kind': 'timing',
      'model': model,
      'batch': options.batch,
      'image': options.image,
      'precision': options.precision,
      'steps_per_call': per_call,
      'kernels': choices,
      **where,
      'peak_memory_mb': stopwatch.peak_memory_mb(),
      'methods': measured,
    },
  )
