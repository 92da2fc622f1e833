"""Programs that runs of one process share.

Compiling takes most of the time of a small run, such as each fit of a cross
validation, and depends neither on the images nor on the seed.
"""

import collections
import itertools
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import ml_collections
from flax import traverse_util

from nsl_jax import references
from nsl_jax.data import views

_Built = TypeVar('_Built')
_KEPT = 4  # with what they compiled
_NOT_IN_PROGRAMS = {
  ('row',),
  ('seed',),
  ('seeds',),
  ('protocol',),
  ('log_every',),
  ('steps_per_call',),  # each number of steps is compiled at its first call
  # Horizons are fields of their own.
  ('steps',),
  ('full_steps',),
  ('scheduled_steps',),
  ('eval', 'every_steps'),
  ('eval', 'batch'),
  ('checkpoint', 'every'),
  ('checkpoint', 'keep'),
  *(('data', name) for name in ('name', 'dir', 'labeled', 'validation')),
}
_kept: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
_lock = threading.Lock()


class _NeedsFit(Exception):
  """A view inverts the normalization, which is fitted to the images."""


def shared(
  config: ml_collections.ConfigDict,
  facts: tuple[Hashable, ...],
  build: Callable[[views.Fitted], _Built],
  fitted: views.Fitted,
) -> _Built:
  """What `build` returns, or returned for an equal config and equal facts.

  It is built anew where it may differ though these are equal: with parts from
  outside of the package, weights from a file, or views that need `fitted`.

  Args:
    config: the config.
    facts: all else that the programs depend on.
    build: takes `fitted`; what it returns may hold neither images nor labels.
    fitted: see `views.build`.
  """
  key = _key(config, facts)
  if key is None:
    return build(fitted)
  with _lock:
    built = _kept.get(key)
  if built is None:
    try:
      built = build(_refuse)
    except _NeedsFit:
      return build(fitted)
  with _lock:
    _kept[key] = built
    _kept.move_to_end(key)
    if len(_kept) > _KEPT:
      _kept.popitem(last=False)
  return built


def _refuse() -> Any:
  raise _NeedsFit


def _words(value: Any) -> list[str]:
  """The strings in a value of a config."""
  values = value if isinstance(value, (list, tuple)) else [value]
  return [word for word in values if isinstance(word, str)]


def _key(
  config: ml_collections.ConfigDict, facts: tuple[Hashable, ...]
) -> Hashable | None:
  """None if the programs depend on more than the config and the facts."""
  fields = traverse_util.flatten_dict(config.to_dict(), keep_empty_nodes=True)
  if fields.get(('model', 'init_from')):
    return None
  key = {k: v for k, v in fields.items() if k not in _NOT_IN_PROGRAMS}
  words = itertools.chain(*key, *map(_words, key.values()))
  if any(references.PART.search(word) for word in words):
    return None
  return repr(sorted(key.items())), facts
