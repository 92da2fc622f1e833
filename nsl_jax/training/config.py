"""The config of a run: found, read from its file, completed, overridden."""

import ast
import difflib
import pathlib
import runpy
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict as Config

from nsl_jax import errors, files, options, references, terms as terms_lib
from nsl_jax.training import config_options


def root() -> pathlib.Path:
  """The folder that contains `configs/`: the current one, or that of the
  package.

  Raises:
    errors.UserError: if neither contains it.
  """
  package = pathlib.Path(__file__).resolve().parents[1]
  for folder in (pathlib.Path.cwd(), package, package.parent):
    if (folder / 'configs' / 'common.py').is_file():
      return folder
  raise errors.UserError('the package has no folder configs/: reinstall it')


def find(name: str) -> pathlib.Path:
  """The config file of this name, in the current folder or in `root()`.

  Raises:
    errors.UserError: if there is none; suggests similar names.
  """
  for path in (pathlib.Path(name), root() / name):
    if path.is_file():
      return path
  stem = pathlib.Path(name).stem
  stems = sorted(
    path.stem
    for path in (root() / 'configs').glob('*.py')
    if 'def get_config' in path.read_text(encoding='utf-8')
  )
  near = difflib.get_close_matches(stem, stems, n=3)
  near = (
    near
    or [stem_near for stem_near in stems if stem.split('_')[0] in stem_near][:8]
  )
  hint = ', '.join(f'configs/{stem_near}.py' for stem_near in near)
  raise errors.UserError(
    f'no config file {name}: '
    + (f'did you mean {hint}?' if hint else 'see the folder configs/')
  )


def name_of(argument: str, *words: str) -> str:
  """Folder name of a run: its config, arguments and further words, without the
  number of seeds; a long one ends in its hash.
  """
  path, _, arguments = argument.partition(':')
  parts = [*filter(None, arguments.split(',')), *words]
  parts = [part for part in parts if not part.startswith('seeds=')]
  name = ','.join([pathlib.Path(path).stem, *parts]).replace('/', '_')
  return files.short_name(name)


def _import_as_configs(folder: pathlib.Path) -> None:
  """Lets config files import others as `configs.x`, from their folder or from
  the package.

  Their folder may be inside the package, whose modules must not become
  importable by their bare names.
  """
  path = [str(folder)]
  shared = str((root() / 'configs').resolve())
  path += [shared] * (shared not in path)
  loaded = sys.modules.get('configs')
  if loaded is not None and list(loaded.__path__) == path:
    return
  for name in [n for n in sys.modules if n.split('.')[0] == 'configs']:
    del sys.modules[name]
  module = types.ModuleType('configs')
  module.__path__ = path
  sys.modules['configs'] = module


def load(
  argument: str,
  overrides: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
  **extra: Any,
) -> Config:
  """The complete config of `FILE[:k=v,…]`, locked.

  Args:
    argument: the file and its arguments.
    overrides: values by field, such as `{'optimizer.lr': 0.1}`, or pairs of
      both. A name (`method.name`, `method.sampler`) replaces the part with all
      of its options, in any order. A method, network, augmentation or term
      (`method.terms.sure.module`) may be the function or class itself, see
      `references`; of augmentations also a list.
    **extra: more arguments of the file.

  Raises:
    errors.UserError: if there is no such file, it refuses an argument, or an
      override names an unknown field or has the wrong type.
  """
  name, _, words = argument.partition(':')
  path = find(name)
  _import_as_configs(path.resolve().parent)
  arguments = [f'{key}={value}' for key, value in extra.items()]
  try:
    get_config = runpy.run_path(str(path))['get_config']
    config = get_config(','.join(filter(None, [words, *arguments]))).unlock()
  except ValueError as error:
    raise errors.UserError(f'{name}: {error}') from error
  except errors.UserError:
    raise
  except Exception as error:  # a config file may raise anything
    raise errors.UserError(
      f'{name} raised {type(error).__name__}: {error}'
    ) from error
  if isinstance(overrides, Mapping):
    overrides = tuple(overrides.items())
  overrides = [(field, _text(value)) for field, value in overrides]
  names = [pair for pair in overrides if is_name(pair[0])]
  for field, text in names:
    _replace_part(config, field, text)
  # Ramps must not depend on the order of the overrides, nor, where all horizons
  # follow from the steps, on the argument that an override replaces.
  for field, text in overrides:
    _add_term(config, field.rpartition('.')[0])
    if field == 'steps' and config.full_steps == config_options.OPEN:
      config.steps = convert('config.steps', text, config.steps)
  config_options.complete(config)
  for field, text in overrides:
    if (field, text) not in names:
      _set(config, field, text)
  config_options.complete(config)
  return config.lock()


def _text(value: Any) -> str:
  """A value as a word of the command line."""
  if isinstance(value, str):
    return value
  if callable(value):
    return references.name_of(value)
  if isinstance(value, (list, tuple)) and any(
    isinstance(item, str) or callable(item) for item in value
  ):
    return ','.join(map(_text, value))
  return str(tuple(value) if isinstance(value, list) else value)


def is_name(field: str) -> bool:
  """Whether a field names a part, which determines other fields."""
  section, _, last = field.rpartition('.')
  return section.split('.')[0] in ('method', 'model', 'optimizer') and (
    last in ('name', 'sampler', 'module')
  )


def _replace_part(config: Config, field: str, text: str) -> None:
  """Sets the name of a part, and removes the options of the previous part."""
  section, _, last = field.rpartition('.')
  _add_term(config, section, module=last == 'module')
  fields = _section(config, section, field)
  if fields.get(last) == text:
    return
  if last == 'module':
    fields.module = text
    return
  if last == 'sampler':
    previous = {'sampler': 'threshold', **fields}
    for name in config_options.sampler_options(previous):
      if name in fields:
        del fields[name]
    fields.sampler = text
    return
  carried_over = {k: fields[k] for k in ('terms', 'host', 'lr') if k in fields}
  if text != 'l2i':
    carried_over.pop('host', None)
  for name in list(fields):
    del fields[name]
  fields.update({'name': text, **carried_over})
  config_options.add_host(fields)  # which a further name may replace


def _section(config: Config, section: str, field: str) -> Config:
  fields = config
  for name in filter(None, section.split('.')):
    if name in fields and fields[name] is None and fields is config.method:
      # An option with fields that is off: setting one of them turns it on.
      part = config_options.method_options(fields)[name].limit
      if callable(part):
        fields[name] = Config()
        config_options.fill(fields[name], options.of(part), config.steps)
    if name not in fields or not isinstance(fields[name], Config):
      raise errors.UserError(_no_field(field, name, fields, section))
    fields = fields[name]
  return fields


def _no_field(field: str, name: str, fields: Config, section: str) -> str:
  parent = '.'.join(['config', *filter(None, [section])])
  near = difflib.get_close_matches(name, fields, n=1)
  hint = f'did you mean {near[0]}? ' if near else ''
  names = ', '.join(sorted(fields))
  return f'no such field config.{field}: {hint}{parent} has {names}'


def _add_term(config: Config, section: str, *, module: bool = False) -> None:
  """Adds the term of a section such as `method.terms.vat`; with `module` its
  name is arbitrary.
  """
  head, _, name = section.rpartition('.')
  if head not in ('method.terms', 'method.host.terms'):
    return
  terms = _section(config, head, section)
  if name not in terms:
    if not module:
      terms_lib.find(name)  # raises for an unknown term
    terms[name] = Config()


def _set(config: Config, field: str, text: str) -> None:
  section, _, name = field.rpartition('.')
  _add_term(config, section)
  config_options.complete(config)
  fields = _section(config, section, field)
  of_term = section.startswith('method.terms.')
  part = config.method if of_term else config.model
  if (of_term or section == 'model') and part.name == config_options.AUTO:
    # Checked once the network or method is chosen.
    fields[name] = _value(text)
    return
  if name not in fields:
    raise errors.UserError(_no_field(field, name, fields, section))
  like = fields[name]
  if text.lower() == 'null' and section.partition('.')[0] == 'method':
    like = None  # the file may have set what is null by default
  value = convert(f'config.{field}', text, like)
  with fields.ignore_type():  # a number may become a tuple, as of drop_steps
    fields[name] = value


def _value(text: str) -> Any:
  """A word of the command line by its looks."""
  try:
    return ast.literal_eval(
      {'true': 'True', 'false': 'False'}.get(text.lower(), text)
    )
  except (ValueError, SyntaxError):
    return text


def convert(field: str, text: str, like: Any) -> Any:
  """A word of the command line, converted to the type of `like`.

  Raises:
    errors.UserError: if it cannot be converted; `field` is its name.
  """
  sort = f'{type(like).__name__}, like {like!r}'
  if like is None:
    sort = 'a number, true, false or null'
  wrong = errors.UserError(f'{field}={text}: must be {sort}')
  if isinstance(like, str):
    return text
  if isinstance(like, bool):
    if text.lower() not in ('true', 'false'):
      raise errors.UserError(f'{field}={text}: must be true or false')
    return text.lower() == 'true'
  if isinstance(like, Config):
    raise errors.UserError(
      f'{field} is a section, with the fields {", ".join(sorted(like))}'
    )
  words = {'true': True, 'false': False, 'null': None, 'none': None}
  try:
    value: Any = words.get(text.lower(), text)
    value = ast.literal_eval(value) if isinstance(value, str) else value
  except (ValueError, SyntaxError):
    raise wrong from None
  if isinstance(like, float) and type(value) is int:
    value = float(value)
  if isinstance(like, tuple) and not isinstance(value, tuple):
    value = (value,)
  scalar_and_tuple = type(value) in (int, tuple) and type(like) in (int, tuple)
  if (
    like is not None and not scalar_and_tuple and type(value) is not type(like)
  ):
    raise wrong
  return value
