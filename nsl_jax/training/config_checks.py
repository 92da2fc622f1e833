"""The values of a config, checked before data are read."""

import operator
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict as Config

from nsl_jax import errors, models, optimizers, options
from nsl_jax.compose import tasks
from nsl_jax.data import sources
from nsl_jax.options import Option
from nsl_jax.training import config_options, evaluate, kernels, summary
from nsl_jax.types import Task

_CHOICES = {
  'precision': ('float32', 'tf32', 'bfloat16'),
  'eval.batch_norm': evaluate.STATISTICS,
  'kernels': kernels.CHOICES,
  'protocol': summary.PROTOCOLS,
  'weight_decay_on': ('kernels', 'all'),
}
_SEEDS = 2**32  # keys of random numbers have 32 bits of the seed
_LOWEST = {
  'steps': 1,
  'seeds': 1,
  'seed': 0,
  'devices': 0,
  'steps_per_call': 0,
  'log_every': 1,
  'checkpoint.every': 1,
  'checkpoint.keep': 1,
  'eval.every_steps': 1,
  'eval.batch': 1,
  'batch.labeled': 1,
  'batch.unlabeled': 0,
  'data.limit': 0,
  'data.on_device_mb': 0,
  'ema_decay': 0.0,
  'weight_decay': 0.0,
}


def check_numbers(config: Config, but: int | None = None) -> None:
  """Checks that lengths and sizes are not too small, `but` where they are that.

  Raises:
    errors.UserError: naming an invalid field.
  """
  for field, lower_bound in _LOWEST.items():
    value = operator.attrgetter(field)(config)
    if value != but and not value >= lower_bound:
      raise errors.UserError(
        f'config.{field}={value}: must be >= {lower_bound}'
      )


def check(config: Config) -> None:
  """Checks the values of all fields.

  Raises:
    errors.UserError: naming an invalid field.
  """
  for field, choices in _CHOICES.items():
    value = operator.attrgetter(field)(config)
    if value not in choices:
      raise errors.UserError(
        f'config.{field}={value!r}: {errors.did_you_mean(value, choices)}'
      )
  check_numbers(config)
  if config.seed + config.seeds > _SEEDS:
    raise errors.UserError(
      f'config.seed={config.seed}: seeds must be below {_SEEDS:,}'
    )
  holdout = config.batch.get('holdout', 1)
  if holdout < 1:
    raise errors.UserError(f'config.batch.holdout={holdout}: must be >= 1')
  _check_imbalance(config.data)
  if config.ema_decay >= 1.0:
    raise errors.UserError(
      f'config.ema_decay={config.ema_decay}: must be below 1'
    )
  _check_part(config.model, models.options_of(config.model.name), 'model')
  _check_part(
    config.optimizer, optimizers.options_of(config.optimizer.name), 'optimizer'
  )
  _check_method(config.method, 'method')
  _check_unlabeled(config)
  if config.protocol == 'best_validation' and not config.data.validation:
    raise errors.UserError(
      'config.protocol=best_validation needs validation images: set '
      'config.data.validation, or another protocol'
    )


def _check_part(
  fields: Mapping[str, Any], declared: Mapping[str, Option], section: str
) -> None:
  nested = ('name', 'terms', 'host', 'module')
  values = {k: v for k, v in fields.items() if k not in nested}
  options.check_values(declared, values, f'config.{section}.')


def _check_method(fields: Mapping[str, Any], section: str) -> None:
  _check_part(fields, config_options.method_options(fields), section)
  for name, term in fields.get('terms', {}).items():
    declared = config_options.term_options(name, term)
    _check_part(term, declared, f'{section}.terms.{name}')
  if 'host' in fields:
    _check_method(fields['host'], f'{section}.host')


def _check_imbalance(fields: Config) -> None:
  for name in ('imbalance', 'imbalance_unlabeled'):
    if not fields[name] > 0.0:
      raise errors.UserError(
        f'config.data.{name}={fields[name]}: must be > 0, 1 for none'
      )
  if fields.imbalance != 1.0 and fields.rule != 'balanced':
    raise errors.UserError(
      f'config.data.imbalance={fields.imbalance} sets the shares of the '
      f'classes, and so does config.data.rule={fields.rule}: set it to balanced'
    )


def _check_unlabeled(config: Config) -> None:
  if config.batch.unlabeled or not config_options.uses_unlabeled(config.method):
    return
  terms = config_options.learner_of(config.method).get('terms')
  part = f'config.method.name={config.method.name}'
  if terms:
    part = f'config.method.terms {", ".join(terms)}'
  raise errors.UserError(
    f'config.batch.unlabeled=0, but {part} needs unlabeled images: set '
    f'it, such as to {config.batch.labeled}'
  )


def check_task_of_data(task: Task, source: sources.Source) -> None:
  """Checks that a data set fits a task.

  Raises:
    errors.UserError: if it does not.
  """
  task_of_data = (
    tasks.CLASSIFICATION if source.num_classes else tasks.REGRESSION
  )
  if task is not task_of_data:
    raise errors.UserError(
      f'config.task={task.name}, but {source.name} is for '
      f'{task_of_data.name}: set config.task, or another config.data.name'
    )
