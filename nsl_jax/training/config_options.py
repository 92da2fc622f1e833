"""The options of a config's parts, and their defaults.

`complete` adds every option of the method, terms, network and optimizer that
the file does not set at its default, so that each can be set from the command
line and is stored with the run.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict as Config

from nsl_jax import (
  methods,
  models,
  optimizers,
  options,
  schedules,
  terms as terms_lib,
)
from nsl_jax.data import sources
from nsl_jax.options import Option
from nsl_jax.terms import negative_samplers

AUTO = 'auto'  # a name that follows from the images, see `automatic`
OPEN = -1  # the same of a number
# Of own images. MixMatch's 75 is for a million steps and suppresses the labels
# in short runs: with 16 labels a class of CIFAR-10 validation errors stayed at
# 78 %, where 10, reached at the end of the run, led to 54 %, and supervised
# training to 62 %.
GENTLE: Mapping[str, Mapping[str, Any]] = {
  'mixmatch': {'weight': 10.0, 'ramp_steps': OPEN}
}
_HOST = 'pseudo_label_l2i'  # of l2i, where no config names another
_LABELED_ONLY = ('supervised', 'mean_label')  # methods
# Methods whose strong view is a harder one than that of all images.
_WEAK_STRONG = ('fixmatch', 'flexmatch', 'freematch', 'softmatch')
RAMP_SHARE = 4  # a ramp that no config sets takes 1 / 4 of the run at most


def complete(config: Config) -> None:
  """Adds the options of each part that the config does not set."""
  if config.model.name != AUTO:
    fill(config.model, models.options_of(config.model.name))
  fill(config.data, sources.options_of(config.data.name))
  fill(config.optimizer, optimizers.options_of(config.optimizer.name))
  if config.method.name != AUTO:
    if config.data.normalize == AUTO:  # of own images, nothing set yet
      for name, value in GENTLE.get(config.method.name, {}).items():
        if name not in config.method:
          config.method[name] = value
    _complete_method(config.method, config.steps)
  if 'host' in config.method and 'holdout' not in config.batch:
    config.batch.holdout = config.batch.labeled


def learner_of(method: Config) -> Config:
  """The fields of the method, or of its host, which have the terms."""
  return method.get('host', method)


def uses_unlabeled(method: Config) -> bool | None:
  """Whether a loss is on unlabeled images; None for a method by its own module,
  which alone knows.
  """
  if learner_of(method).get('terms'):
    return True
  if method.name not in methods.names():
    return None
  return method.name not in _LABELED_ONLY


def uses_strong_view(method: Config) -> bool | None:
  """Whether it trains on a strong view; None as of `uses_unlabeled`."""
  name = learner_of(method).name
  if name not in methods.names():
    return None
  return name == 'dnll' or is_weak_strong(method)


def is_weak_strong(method: Config) -> bool:
  """Whether predictions for a weak view are labels of a harder one."""
  learner = learner_of(method)
  positives = learner.get('positives') is not None  # of a pair
  return learner.name in _WEAK_STRONG or positives


def add_host(fields: Config) -> None:
  """Gives l2i without a host the default one, which takes its terms."""
  if fields.name == 'l2i' and 'host' not in fields:
    fields.host = Config({'name': _HOST, 'terms': fields.get('terms', {})})
    if 'terms' in fields:
      del fields['terms']


def _complete_method(fields: Config, steps: int) -> None:
  add_host(fields)
  fill(fields, method_options(fields), steps)
  if 'host' in fields:
    _complete_method(fields.host, steps)
  elif 'terms' not in fields:
    fields.terms = Config()
  for name, part in _nested(fields).items():
    fill(fields[name], options.of(part), steps)
  for name, term in fields.get('terms', {}).items():
    fill(term, term_options(name, term, fields.name), steps)


def fill(
  fields: Config, declared: Mapping[str, Option], steps: int = 0
) -> None:
  """Adds the options that are not set; of a run of so many steps."""
  missing = [name for name in declared if name not in fields]
  for name in missing:
    fields[name] = declared[name].default
  if 'ramp_steps' in missing:  # -1 while steps are open
    fields.ramp_steps = min(fields.ramp_steps, steps // RAMP_SHARE)
  ramp = declared['ramp_steps'].default if 'ramp_steps' in declared else 0
  if 'hold_steps' in missing and fields.hold_steps and ramp:
    # The ramp keeps its number of epochs; -1 while its length is open.
    share = fields.ramp_steps / ramp
    hold = max(1, round(fields.hold_steps * share)) if share >= 0 else -1
    fields.hold_steps = hold


def _nested(fields: Mapping[str, Any]) -> dict[str, options.Part]:
  """The builders of those options of a method that are set and have options
  themselves.
  """
  declared = method_options(fields)
  return {
    name: option.limit
    for name, option in declared.items()
    if callable(option.limit) and hasattr(fields.get(name), 'items')
  }


def method_options(fields: Mapping[str, Any]) -> dict[str, Option]:
  """The options of the method `fields['name']`."""
  name = fields['name']
  declared = options.of(methods.find(name))
  if name in methods.OF_ONE_TERM:
    declared |= term_options(name, fields)
  return declared


def term_options(
  name: str, fields: Mapping[str, Any], host: str = ''
) -> dict[str, Option]:
  """The options of a term, of its weight and of its sampler, with the defaults
  of the term on this host.
  """
  term = terms_lib.find(fields.get('module') or name)
  declared = options.of(schedules.ramped)
  for field, value in term.DEFAULTS.items():
    declared[field] = declared[field]._replace(default=value)
  declared |= options.of(term.build)
  if 'sampler' in declared:
    declared |= sampler_options(
      {'sampler': declared['sampler'].default, **fields}
    )
  for field, value in getattr(term, 'DEFAULTS_ON', {}).get(host, {}).items():
    declared[field] = declared[field]._replace(default=value)
  return declared


def sampler_options(fields: Mapping[str, Any]) -> dict[str, Option]:
  """The options of the negative sampler `fields['sampler']`."""
  return options.of(negative_samplers.find(fields['sampler']))
