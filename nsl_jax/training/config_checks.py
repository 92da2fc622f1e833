"""What must hold of a config before anything is loaded or built."""

import operator

import ml_collections

from nsl_jax import errors
from nsl_jax.compose import tasks
from nsl_jax.data import sources
from nsl_jax.training import evaluate, kernels, summary
from nsl_jax.types import Task

_LABELLED_ONLY = ('supervised', 'mean_label')  # methods
_DECAYED = ('kernels', 'all')
_PRECISIONS = ('float32', 'tf32', 'bfloat16')


def config_values(config: ml_collections.ConfigDict) -> None:
  """Whether every field has a value that makes sense.

  Raises:
    errors.UserError: naming one that does not.
  """
  choices = {
    'precision': (config.precision, _PRECISIONS),
    'eval.batch_norm': (config.eval.batch_norm, evaluate.STATISTICS),
    'kernels': (config.kernels, kernels.CHOICES),
    'protocol': (config.protocol, summary.PROTOCOLS),
    'weight_decay_on': (config.weight_decay_on, _DECAYED),
  }
  for field, (value, known) in choices.items():
    if value not in known:
      raise errors.UserError(
        f'config.{field}={value!r}: {errors.did_you_mean(value, known)}'
      )
  lowest = {
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
    'batch.labelled': 1,
    'batch.unlabelled': 0,
    'data.limit': 0,
    'ema_decay': 0.0,
    'weight_decay': 0.0,
  }
  for field, least in lowest.items():
    value = operator.attrgetter(field)(config)
    if not value >= least:
      raise errors.UserError(f'config.{field}={value}: must be >= {least}')
  if config.ema_decay >= 1.0:
    raise errors.UserError(
      f'config.ema_decay={config.ema_decay}: must be below 1'
    )
  terms = config.method.get('host', config.method).get('terms', {})
  if not config.batch.unlabelled and (
    terms or config.method.name not in _LABELLED_ONLY
  ):
    what = f'config.method.name={config.method.name}'
    if terms:
      what = f'config.method.terms {", ".join(terms)}'
    raise errors.UserError(
      f'config.batch.unlabelled=0, but {what} needs unlabelled images: set '
      f'it, such as to {config.batch.labelled}'
    )
  if config.protocol == 'best_validation' and not config.data.validation:
    raise errors.UserError(
      'config.protocol=best_validation needs validation images: set '
      'config.data.validation, or another protocol'
    )


def task_of_data(task: Task, source: sources.Source) -> None:
  """Whether a data set is for a task.

  Raises:
    errors.UserError: if it is not.
  """
  found = tasks.CLASSIFICATION if source.num_classes else tasks.REGRESSION
  if task is not found:
    raise errors.UserError(
      f'config.task={task.name}, but {source.name} is for {found.name}: set '
      'config.task, or another config.data.name'
    )
