"""Timing of the step of a method or a config."""

import ast
import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nsl_jax import errors, methods, models, optimizers
from nsl_jax.benchmarks import breakdown, step_times, stopwatch
from nsl_jax.benchmarks.stopwatch import Setting, Subject
from nsl_jax.compose import tasks
from nsl_jax.data import augment, normalize
from nsl_jax.training import (
  assembly,
  automatic,
  config as config_lib,
  train_step,
)
from nsl_jax.types import Components, Method

# Times in the results: with the data pipeline, without, of inference.
_FULL, _BARE, _INFERENCE = step_times.WAYS
_PROFILED = 5  # steps
# Name of a method in other libraries -> equivalent --method words, or configs;
# the second has the batch sizes of the other library in each pass.
_L2I = 'configs/cifar10_l2i.py:host=mt,variant='
ROWS = {
  'supervised': ['supervised'],
  'pseudolabel': ['pseudo_label'],
  'pimodel': ['pi', 'pi:shared_batch_norm=False'],
  'meanteacher': ['mean_teacher', 'mean_teacher:second_pass_rows=unlabeled'],
  'vat': ['vat', 'vat:shared_batch_norm=False'],
  'mixmatch': ['mixmatch'],
  'l2i-o(meanteacher)': [_L2I + 'v2'],
  'l2i-l(meanteacher)': [_L2I + 'v1'],
  'dualstudent': ['configs/cifar10_dual_student.py'],
  'fixmatch': ['configs/cifar_fixmatch.py'],
}


def parse(word: str) -> tuple[str, dict[str, Any]]:
  """`name:k=v+k=v` -> the name and its options, parsed as Python literals."""
  name, _, fields = word.partition(':')
  options = {}
  for item in filter(None, fields.split('+')):
    key, _, text = item.partition('=')
    try:
      options[key] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      options[key] = text
  return name, options


def build(word: str, model: str, setting: Setting, view: str) -> Method:
  """The method of a command-line word; other options have their defaults."""
  name, options = parse(word)
  network, fields = parse(model)
  bfloat16 = setting.precision == 'bfloat16'
  components = Components(
    model=models.build(
      {'name': network, **fields},
      setting.classes,
      precision='bfloat16' if bfloat16 else 'float32',
    ),
    tx=optimizers.build({'name': 'adam', 'lr': 1e-3, 'drop_steps': 0}),
    augment=augment.build(view, pixels=_pixels),
    image_shape=setting.shape,
    num_images=stopwatch.IMAGES,
    num_devices=setting.mesh.size,
  )
  return methods.build({'name': name, 'terms': {}, **options}, components)


def _pixels() -> augment.Pixels:
  return augment.Pixels(
    functools.partial(normalize.invert, 'signed', {}),
    functools.partial(normalize.from_unit, 'signed', {}),
  )


class Work(NamedTuple):
  """A method to time.

  Attributes:
    make: builds the method, with or without its augmentation.
    normalize: kind of normalization.
    setting: sizes.
  """

  make: Callable[[bool], Method]
  normalize: str
  setting: Setting


def of_word(word: str, model: str, setting: Setting, view: str) -> Work:
  """The work of a word of --method."""
  return Work(
    lambda augmented: build(word, model, setting, view if augmented else ''),
    'signed',
    setting,
  )


def of_config(name: str, setting: Setting, *, own_batch: bool = True) -> Work:
  """The work of a --config, with its batch or with that of `setting`."""
  config = config_lib.load(name).copy_and_resolve_references().unlock()
  if config.task != tasks.CLASSIFICATION.name:
    raise errors.UserError(f'{name}: only steps on classes are timed')
  if automatic.is_open(config):
    raise errors.UserError(
      f'{name} leaves settings open until its images are read: time a config '
      'that sets them all'
    )
  config.precision = setting.precision
  kind, plain = config.data.normalize, copy.deepcopy(config)
  plain.data.augment = plain.data.strong = ''
  if own_batch:
    setting = setting._replace(
      labeled=config.batch.labeled,
      unlabeled=config.batch.unlabeled,
      holdout=config.batch.get('holdout', 0),
    )
  elif config.batch.get('holdout'):
    setting = setting._replace(holdout=setting.labeled)
  return Work(
    lambda augmented: assembly.build_method(
      config if augmented else plain,
      setting.classes,
      setting.shape,
      lambda: stopwatch.random_data((), setting, kind).normalization,
      stopwatch.IMAGES,
    ),
    kind,
    setting,
  )


def subjects_of(
  work: Work, *, inference: bool, empty: bool = True
) -> dict[str, Subject]:
  """The step with the data pipeline, and optionally on a fixed batch, and the
  prediction.
  """
  setting = work.setting
  apply = functools.partial(normalize.apply, work.normalize)
  make_batch = functools.partial(train_step.make_batch, apply)
  full, bare = work.make(True), work.make(False)
  data = stopwatch.random_data(full.per_image_tables, setting, work.normalize)
  rows = {
    name: jnp.arange(size) for name, size in stopwatch.sizes(setting).items()
  }
  batch = jax.jit(make_batch)(data, rows)
  subjects = {_FULL: stopwatch.training(full, setting, make_batch, data)}
  if empty:
    subjects[_BARE] = stopwatch.training(
      bare, setting, lambda batch, rows: batch, batch
    )
  if inference:
    state = train_step.initial_state(full, 0, setting.mesh)
    subjects[_INFERENCE] = stopwatch.inference(
      full.predict, state, setting, apply, data
    )
  return subjects


def measure(
  works: Mapping[str, Work],
  *,
  steps: int,
  inference: bool = False,
  parts: bool = False,
  empty: bool = True,
) -> dict[str, dict[str, Any]]:
  """Times all works alternately.

  Returns:
    By name: `images` per step, labeled and unlabeled; `ms` and optionally
    `ms_empty` and `ms_inference` (milliseconds per step of every call),
    `compile_s`, `memory_mb` and `gflop`; with `parts` also `parts_ms` of a step
    with the data pipeline.
  """
  subjects = {
    (name, way): subject
    for name, work in works.items()
    for way, subject in subjects_of(
      work, inference=inference, empty=empty
    ).items()
  }
  setting = next(iter(works.values())).setting
  step_ms = stopwatch.in_turn(subjects, setting, steps=steps)
  measured: dict[str, dict[str, Any]] = {
    name: {
      'images': work.setting.labeled + work.setting.unlabeled,
      **{way: ms for (owner, way), ms in step_ms.items() if owner == name},
      'compile_s': subjects[name, _FULL].compile_s,
      'memory_mb': subjects[name, _FULL].memory_mb,
      'gflop': subjects[name, _FULL].gflop,
    }
    for name, work in works.items()
  }
  if parts:
    for name in works:
      full = subjects[name, _FULL]
      calls = breakdown.measure(full.call, full.program(), steps=_PROFILED)
      measured[name]['parts_ms'] = {
        part: ms / setting.steps_per_call for part, ms in calls.items()
      }
  return measured


def with_kernels(
  works: Mapping[str, Work], choices: Sequence[str]
) -> dict[str, Work]:
  """Every work with each choice of kernels, which is added to its name."""
  several = len(choices) > 1
  return {
    f'{name} [{choice}]' if several else name: work._replace(
      setting=work.setting._replace(kernels=choice)
    )
    for name, work in works.items()
    for choice in choices
  }
