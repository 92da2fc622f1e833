"""Parts of a run as Python objects: the names that a config stores for them.

A part defined outside of the package is `module:name`, where the name is at the
top of the module. Their source is stored with the run: `__main__` is a notebook
or a script, whose parts another process does not have, and a module may change
before its run is resumed or loaded.
"""

import ast
import inspect
import linecache
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from nsl_jax import errors

MAIN = '__main__'
_PACKAGE = __name__.partition('.')[0]
_NAME = r'[^\W\d]\w*'
# `module:name` in a list, or the `package.module` of a whole method or term.
PART = re.compile(
  rf'(?<![\w.])({_NAME}(?:\.{_NAME})*:{_NAME})|^({_NAME}(?:\.{_NAME})+)$'
)


def name_of(part: Any) -> str:
  """The name under which `find` finds a function or class.

  Raises:
    errors.UserError: if it is not at the top of a module or notebook.
  """
  module = getattr(part, '__module__', None)
  name = getattr(part, '__qualname__', None) or repr(part)
  if getattr(sys.modules.get(module or ''), name, None) is not part:
    raise errors.UserError(
      f'{name} cannot be named in a config: define it by def or class at the '
      'top of a module or notebook, and give its newest definition'
    )
  return f'{module}:{name}'


def find(name: str, kind: str) -> Any:
  """The function or class `module:name`.

  Raises:
    errors.UserError: if there is none; `kind` names it in the message.
  """
  module, _, attribute = name.partition(':')
  part = getattr(errors.import_module(module, kind), attribute, None)
  if part is None and module == MAIN:
    raise errors.UserError(
      f'the {kind} {attribute!r} is defined in the notebook or script of the '
      'run, and not here: define it again (its source is in the config.json of '
      'the run, under objects), or train with one from a module'
    )
  if part is None:
    raise errors.UserError(f'module {module} has no {kind} {attribute!r}')
  if not callable(part):
    raise errors.UserError(f'{name} is neither a function nor a class')
  return part


def sources(texts: Iterable[str]) -> dict[str, str]:
  """Source of each part from outside of the package that is named in the texts,
  by its name, without `__main__:` and with `/` for dots, which configs forbid;
  '' where Python does not know it.

  The source of a part is its own, and not of what it calls.
  """
  names = {
    name
    for text in texts
    for pair in PART.findall(text)
    for name in pair
    if name and name.partition('.')[0] != _PACKAGE
  }
  return {
    name.removeprefix(f'{MAIN}:').replace('.', '/'): _source_now(name)
    for name in sorted(names)
  }


def _source_now(name: str) -> str:
  if ':' in name:
    return _source(find(name, 'part'))
  return _source(errors.import_module(name, 'part'))


def check_sources(stored: Mapping[str, str]) -> None:
  """Checks that the parts of a run are those that there are now; warns of a
  part of a module with another source.

  Args:
    stored: `sources` of the run.

  Raises:
    errors.UserError: if one is missing, or one of `__main__` has another
      source.
  """
  for name, source in stored.items():
    in_main = ':' not in name and '/' not in name
    name = name.replace('/', '.')
    now = _source_now(f'{MAIN}:{name}' if in_main else name)
    if now == source or not now or not source:
      continue
    text = (
      f'{name} is defined otherwise than when the run was trained: define it '
      'as in the config.json of the run, under objects'
    )
    if in_main:
      raise errors.UserError(text)
    warnings.warn(f'{text}, or predictions may be others', stacklevel=2)


def _source(part: Any) -> str:
  try:
    return inspect.getsource(part)
  except (OSError, TypeError):
    return _source_of_class(part) if inspect.isclass(part) else ''


def _source_of_class(part: type) -> str:
  """Source of a class of a notebook, found by the file of one of its methods:
  a notebook is no file of which `inspect` knows the classes.
  """
  for member in vars(part).values():
    code = getattr(inspect.unwrap(member), '__code__', None)
    text = ''.join(linecache.getlines(code.co_filename)) if code else ''
    for node in ast.parse(text).body if text else ():
      if isinstance(node, ast.ClassDef) and node.name == part.__name__:
        return ast.get_source_segment(text, node) or ''
  return ''
