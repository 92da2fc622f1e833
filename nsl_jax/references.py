"""Parts of a run as Python objects: the names that a config stores for them.

A part defined outside of the package is `module:name`, where the name is at the
top of the module. `__main__` is a notebook or a script, whose parts another
process does not have: their source is stored with the run.
"""

import ast
import inspect
import linecache
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from nsl_jax import errors

MAIN = '__main__'
_IN_MAIN = re.compile(rf'(?<![\w.]){MAIN}:(\w+)')


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
  """Source of each part of `__main__` that is named in the texts, by name; ''
  where Python does not know it.
  """
  names = {name for text in texts for name in _IN_MAIN.findall(text)}
  return {name: _source(find(f'{MAIN}:{name}', 'part')) for name in names}


def check_sources(stored: Mapping[str, str]) -> None:
  """Checks that the parts of a run in `__main__` are those that it has now.

  Args:
    stored: `sources` of the run.

  Raises:
    errors.UserError: if one is missing, or has another source.
  """
  for name, source in stored.items():
    now = _source(find(f'{MAIN}:{name}', 'part'))
    if now != source and now and source:
      raise errors.UserError(
        f'{name} is defined otherwise than when the run was trained: define '
        'it as in the config.json of the run, under objects'
      )


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
