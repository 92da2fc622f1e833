"""Options of parts by name: python -m nsl_jax options vat wide_resnet

Without a name it lists the parts. Each option can be set on the command line of
training: --config.method.eps=2, --config.method.terms.ns3l.weight=0.3,
--config.model.width=4, --config.optimizer.lr=1e-3, --config.data.size=64.
A network, method or term of yours is named as in a config: my_package.net:Net.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from nsl_jax import (
  errors,
  methods,
  models,
  optimizers,
  options,
  references,
  terms,
)
from nsl_jax.commands import cli
from nsl_jax.data import sources
from nsl_jax.terms import negative_samplers
from nsl_jax.training import config_options

# Kinds whose parts are described themselves, others by their file.
_BY_PART = ('network', 'sampler', 'optimizer', 'data')


def parts() -> dict[str, dict[str, Callable[..., Any]]]:
  """Kind -> name -> its builder."""
  return {
    'method': {name: methods.find(name) for name in methods.names()},
    'term': {name: terms.find(name).build for name in terms.names()},
    'sampler': {n: negative_samplers.find(n) for n in negative_samplers.NAMES},
    'network': dict(models.NETWORKS),
    'optimizer': optimizers.MAKERS,
    'data': sources.OWN,
  }


def main(argv: Sequence[str] | None = None) -> None:
  """Lists the parts, or the options of the named ones."""
  parser = cli.Parser('options', __doc__)
  parser.add_argument('names', nargs='*', help='of parts')
  names = parser.parse_args(argv).names
  parts_by_kind = parts()
  if not names:
    for kind, parts_of_kind in parts_by_kind.items():
      print(f'{kind:<10} {" ".join(parts_of_kind)}')
    return
  everything = {
    name for parts_of_kind in parts_by_kind.values() for name in parts_of_kind
  }
  for name in names:
    if ':' in name or '.' in name:
      _describe(*_own(name))
      continue
    if name not in everything:
      raise errors.UserError(
        f'no part {name!r}: {errors.did_you_mean(name, everything)}'
      )
    for kind, parts_of_kind in parts_by_kind.items():
      if name in parts_of_kind:
        _describe(kind, name, parts_of_kind[name])


def _own(name: str) -> tuple[str, str, Callable[..., Any]]:
  """Kind, name and builder of a part from outside of the package."""
  if ':' in name:
    part = references.find(name, 'part')
  else:
    part = errors.import_module(name, 'part').build
  taken = inspect.signature(part).parameters
  if 'num_classes' in taken:
    return 'network', name, part
  return 'method' if 'components' in taken else 'term', name, part


def _describe(kind: str, name: str, part: Callable[..., Any]) -> None:
  holder = part if kind in _BY_PART else _file(part)
  first = (inspect.getdoc(holder) or '').split('\n\n')[0]
  print(f'{kind} {name}: {" ".join(first.split())}')
  print(options.table(_options(kind, name, part)) or '  no options')


def _options(
  kind: str, name: str, part: Callable[..., Any]
) -> dict[str, options.Option]:
  if kind == 'method':
    return config_options.method_options({'name': name})
  if kind == 'term':
    return config_options.term_options(name, {})
  if kind == 'network':
    return models.options_of(name)
  if kind == 'optimizer':
    return optimizers.options_of(name)
  return options.of(part)


def _file(part: Callable[..., Any]) -> Any:
  return sys.modules[part.__module__]
