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
_HOST = 'pseudo_label_l2i'  # of l2i, where no config names another
# Methods whose strong view is a harder one than that of all images.
WEAK_STRONG = ('fixmatch', 'flexmatch', 'freematch', 'softmatch')
RAMP_SHARE = 4  # a ramp that no config sets takes 1 / 4 of the run at most


def complete(config: Config) -> None:
  """Adds the options of each part that the config does not set."""
  if config.model.name != AUTO:
    fill(config.model, models.options_of(config.model.name))
  fill(config.data, sources.options_of(config.data.name))
  fill(config.optimizer, optimizers.options_of(config.optimizer.name))
  if config.method.name != AUTO:
    _complete_method(config.method, config.steps)
  if 'host' in config.method and 'holdout' not in config.batch:
    config.batch.holdout = config.batch.labeled


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
    fill(term, term_options(name, term), steps)


def fill(
  fields: Config, declared: Mapping[str, Option], steps: int = 0
) -> None:
  """Adds the options that are not set; of a run of so many steps."""
  for name, option in declared.items():
    if name not in fields:
      value = option.default
      if name == 'ramp_steps':
        value = min(value, steps // RAMP_SHARE)  # -1 while steps are open
      elif name == 'hold_steps' and value:
        value = _hold(value, fields.ramp_steps, declared['ramp_steps'].default)
      fields[name] = value


def _hold(hold: int, ramp: int, default_ramp: int) -> int:
  """Length of an epoch of the weight, so that its ramp keeps the number of
  epochs of the defaults; -1 while that of the ramp is open.
  """
  return ramp if ramp < 0 else max(1, round(hold * ramp / default_ramp))


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


def term_options(name: str, fields: Mapping[str, Any]) -> dict[str, Option]:
  """The options of a term, of its weight and of its sampler."""
  term = terms_lib.find(fields.get('module') or name)
  declared = options.of(schedules.ramped)
  for field, value in term.DEFAULTS.items():
    declared[field] = declared[field]._replace(default=value)
  declared |= options.of(term.build)
  if 'sampler' in declared:
    declared |= sampler_options(
      {'sampler': declared['sampler'].default, **fields}
    )
  return declared


def sampler_options(fields: Mapping[str, Any]) -> dict[str, Option]:
  """The options of the negative sampler `fields['sampler']`."""
  return options.of(negative_samplers.find(fields['sampler']))
