"""Options of a part: one declaration for the config, Python and --help.

A part (a method, term, sampler, network, optimizer) is built by a function or a
dataclass. Its signature defines the options and their defaults, the `Args:` of
its docstring describe them, and `declare` states the allowed values::

    @options.declare(eps='> 0', mode=('exact', 'finite_difference'))
    def build(*, eps: float = 1.0, mode: str = 'exact') -> Term:

A config may set exactly these options; the function also checks its arguments
when called from Python.
"""

import dataclasses
import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nsl_jax import errors

__all__ = ['Option', 'call', 'check', 'declare', 'of', 'table']

Part = Callable[..., Any]
Limit = str | tuple[Any, ...] | Part
_INTERVAL = re.compile(r'([\[(])(\S+), (\S+)([\])])')
_WORDS: dict[type, str] = {
  bool: 'true or false',
  int: 'a whole number',
  float: 'a number',
  str: 'a word',
}
_BOUND = re.compile(r'(>=?) (\S+)')


class Option(NamedTuple):
  """One option.

  Attributes:
    name: name of the argument.
    default: default value.
    kind: its type if that is bool, int, float or str (or None); None for other
      types.
    limit: `'> 0'`, `'[0, 1)'`, a tuple of choices, the part whose options a
      mapping holds, or '' for any value of the type.
    doc: its description in the docstring.
  """

  name: str
  default: Any
  kind: type | None
  limit: Limit
  doc: str


def declare(**limits: Limit) -> Callable[[Any], Any]:
  """Decorator that declares the allowed values of a part's arguments.

  Args:
    **limits: for each argument an interval (`'> 0'`, `'>= 1'`, `'[0, 1)'`), a
      tuple of choices, or for a mapping the part whose options it holds. Other
      arguments are checked for their type only.
  """

  def decorate(part: Any) -> Any:
    if inspect.isclass(part):
      part.option_limits = limits  # type: ignore[attr-defined]
      return part

    @functools.wraps(part)
    def checked(*args: Any, **values: Any) -> Any:
      check(checked, values, part.__module__.rpartition('.')[2] + ' ')
      return part(*args, **values)

    checked.option_limits = limits  # type: ignore[attr-defined]
    return checked

  return decorate


def of(part: Part) -> dict[str, Option]:
  """The options of a part by name: its keyword-only arguments, or the fields of
  a dataclass, that have a default.
  """
  return dict(_of(part))


@functools.cache  # a config is checked against them many times
def _of(part: Part) -> dict[str, Option]:
  limits = getattr(part, 'option_limits', {})
  docs = _docs(inspect.getdoc(part) or '')
  if dataclasses.is_dataclass(part):
    declared = {
      field.name: (field.default, field.type)
      for field in dataclasses.fields(part)
      if field.default is not dataclasses.MISSING
    }
  else:
    declared = {
      name: (argument.default, argument.annotation)
      for name, argument in inspect.signature(part).parameters.items()
      if argument.kind is argument.KEYWORD_ONLY
    }
  return {
    name: Option(
      name, default, _kind(kind), limits.get(name, ''), docs.get(name, '')
    )
    for name, (default, kind) in declared.items()
    if default is not inspect.Parameter.empty
  }


def _kind(annotation: Any) -> type | None:
  if isinstance(annotation, types.UnionType):  # such as bool | None
    annotation, *others = {*typing.get_args(annotation)} - {types.NoneType}
    annotation = None if others else annotation
  return next((kind for kind in _WORDS if kind is annotation), None)


def _docs(text: str) -> dict[str, str]:
  """Argument -> its description, from `Args:` or `Attributes:`."""
  doc_of: dict[str, str] = {}
  name = None
  section = re.split(r'\n(?:Args|Attributes):\n', text)[-1]
  for line in re.split(r'\n\w+:\n', section)[0].splitlines():
    entry = re.fullmatch(r'  (\w+): (.*)', line)
    if entry:
      name = entry[1]
      doc_of[name] = entry[2]
    elif name and line.startswith('    '):
      doc_of[name] += ' ' + line.strip()
    else:
      name = None
  return doc_of


def call(part: Part, name: str, /, *args: Any, **values: Any) -> Any:
  """Calls a part.

  Args:
    part: the part.
    name: it, in messages.
    *args: further arguments.
    **values: its options.

  Raises:
    errors.UserError: if it has no such option, or needs another.
  """
  try:
    inspect.signature(part).bind(*args, **values)
  except TypeError as error:
    raise errors.UserError(f'{name}: {error}') from error
  return part(*args, **values)


def check(part: Part, values: Mapping[str, Any], prefix: str) -> None:
  """Checks the options of a part; ignores other arguments.

  Args:
    part: the part.
    values: arguments by name.
    prefix: prefix of the option in messages, such as 'vat '.

  Raises:
    errors.UserError: if a value has the wrong type or is not allowed.
  """
  declared = of(part)
  check_values(
    declared, {k: v for k, v in values.items() if k in declared}, prefix
  )


def check_values(
  declared: Mapping[str, Option], values: Mapping[str, Any], prefix: str
) -> None:
  """Checks values of options.

  Raises:
    errors.UserError: if an option is unknown, or its value has the wrong type
      or is not allowed.
  """
  for name, value in values.items():
    if name not in declared:
      raise errors.UserError(
        f'{prefix}{name} is not an option: '
        + errors.did_you_mean(name, declared)
      )
    _check_value(declared[name], value, f'{prefix}{name}={value!r}')


def _check_value(option: Option, value: Any, text: str) -> None:
  if value is None and option.default is None:
    return
  if callable(option.limit):
    if not hasattr(value, 'items'):  # a mapping, or a ConfigDict
      fields = ', '.join(of(option.limit))
      raise errors.UserError(
        f'{text}: has the fields {fields}; set one of them, such as '
        f'{text.partition("=")[0]}.{next(iter(of(option.limit)))}'
      )
    check_values(of(option.limit), value, text.partition('=')[0] + '.')
    return
  if isinstance(option.limit, tuple):
    if value not in option.limit:
      hint = errors.did_you_mean(str(value), map(str, option.limit))
      raise errors.UserError(f'{text}: {hint}')
    return
  kind = option.kind
  allowed: Any = (int, float) if kind is float else kind
  if kind is not None and (
    not isinstance(value, allowed) or isinstance(value, bool) != (kind is bool)
  ):
    null = ', or null' if option.default is None else ''
    raise errors.UserError(f'{text}: must be {_WORDS[kind]}{null}')
  if option.limit and not allows(option.limit, value):
    raise errors.UserError(f'{text}: must be {_sentence(option.limit)}')


def _sentence(limit: str) -> str:
  return f'in {limit}' if limit[0] in '[(' else limit


def allows(interval: str, value: float) -> bool:
  """Whether a number is in an interval such as `'> 0'` or `'[0, 1)'`.

  >>> allows('[0, 1)', 1.0), allows('>= 1', 1)
  (False, True)
  """
  bound = _BOUND.fullmatch(interval)
  if bound:
    low, strict = float(bound[2]), bound[1] == '>'
    return value > low if strict else value >= low
  ends = _INTERVAL.fullmatch(interval)
  assert ends, interval
  low, high = float(ends[2]), float(ends[3])
  above = value > low if ends[1] == '(' else value >= low
  return above and (value < high if ends[4] == ')' else value <= high)


def table(declared: Mapping[str, Option]) -> str:
  """A text with the name, default, limits and description of each option."""
  lines = []
  for name, option in declared.items():
    limit = option.limit
    if callable(limit):
      limit = 'with ' + ', '.join(of(limit))
    elif isinstance(limit, tuple):
      limit = ' | '.join(map(str, limit))
    lines.append(f'  {name}={option.default!r}' + f'  ({limit})' * bool(limit))
    lines += textwrap.wrap(
      option.doc, 78, initial_indent=' ' * 6, subsequent_indent=' ' * 6
    )
  return '\n'.join(lines)
