"""Methods, one per file, found by name; some terms are also methods.

The file of a method uses `compose/` and `terms/`; it reads no config and no
data.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from nsl_jax import errors, references, terms as terms_lib
from nsl_jax.compose import combinators, tasks
from nsl_jax.methods import supervised
from nsl_jax.methods.supervised import supervised_loss
from nsl_jax.types import Components, Method

__all__ = ['build', 'find', 'names', 'supervised_loss']

_NOT_METHODS = ('of_rule',)
# Methods that consist of the supervised loss and one term.
OF_ONE_TERM = ('ns3l', 'pi', 'pseudo_label', 'vat')


@functools.cache
def _names() -> tuple[str, ...]:
  found = (module.name for module in pkgutil.iter_modules(__path__))
  files = (name for name in found if name not in _NOT_METHODS)
  return tuple(sorted([*files, *OF_ONE_TERM]))


def names() -> list[str]:
  """Names of all methods in the package."""
  return list(_names())


Build = Callable[..., Method | combinators.SingleNetworkMethod]


def find(name: str) -> Build:
  """The function that builds a method.

  It is `build(components, *, terms, **options)` of the file, which returns a
  `Method`, or a `combinators.SingleNetworkMethod` for a loss on one network
  that other methods may use as host. `TASKS` of the file names the supported
  tasks; without it the method supports classification only.

  Args:
    name: a file of this folder, one of `OF_ONE_TERM`, `package.module` of
      another file, or `module:name` of such a function itself.

  Raises:
    errors.UserError: if no method has this name.
  """
  if name in OF_ONE_TERM:
    return _of_one_term(name)
  build_method: Build
  if ':' in name:
    build_method = references.find(name, 'method')
  else:
    build_method = _module(name).build
  return build_method


def _module(name: str) -> Any:
  if '.' in name:
    return errors.import_module(name, 'method')
  if name not in names():
    raise errors.UserError(
      f'unknown method {name!r}: {errors.did_you_mean(name, names())}'
    )
  return importlib.import_module(f'{__name__}.{name}')


def _of_one_term(name: str) -> Callable[..., Method]:
  def build(
    components: Components,
    *,
    terms: Mapping[str, Mapping[str, Any]],
    shared_batch_norm: bool = True,
    **options: Any,
  ) -> Method:
    """The loss of the labeled images and one term.

    Args:
      components: network, optimizer and augmentation.
      terms: further terms.
      shared_batch_norm: one batch of labeled and unlabeled images, see
        `forward.forward_passes`.
      **options: options of the term.
    """
    all_terms = terms_lib.with_own(name, options, terms)
    return supervised.with_terms(
      components, all_terms, shared_batch_norm=shared_batch_norm
    )

  build.__module__ = terms_lib.find(name).__name__
  return build


def build(config: Mapping[str, Any], components: Components) -> Method:
  """Builds the method `config['name']` from the other fields.

  Raises:
    errors.UserError: for an unknown method or unknown fields.
  """
  if 'name' not in config:
    raise errors.UserError("the method has no 'name', such as 'supervised'")
  name = config['name']
  options = {k: v for k, v in config.items() if k != 'name'}
  make = find(name)
  supported: tuple[str, ...] = (tasks.CLASSIFICATION.name,)
  if name not in OF_ONE_TERM and ':' not in name:
    supported = getattr(_module(name), 'TASKS', supported)
  try:
    inspect.signature(make).bind(components, **options)
  except TypeError as error:
    raise errors.UserError(f'method {name!r}: {error}') from error
  tasks.check_method(components, name, options, supported)
  method = make(components, **options)
  if isinstance(method, combinators.SingleNetworkMethod):
    return combinators.to_method(method, components)
  if not isinstance(method, Method):
    raise errors.UserError(
      f'method {name!r} returns {type(method).__name__}: return a Method or a '
      'SingleNetworkMethod'
    )
  return method
