"""Breakdown of the time of a compiled step, by the profiler of JAX.

An operation of the optimized program is assigned to a part by its name from
tracing: its layer, its scope, and whether it belongs to a transposed (backward)
pass. A fusion has the name of its root operation. Operations that the compiler
inserts have no name and count as `layout`: mostly transposes.
"""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from nsl_jax.compose import combinators
from nsl_jax.data import augment
from nsl_jax.training import train_step

PARTS = (
  'convolution forward',
  'convolution backward',
  'normalization forward',
  'normalization backward',
  'augmentation',
  'reading',
  'optimizer',
  'other forward',
  'other backward',
  'layout',
)
_NAMED = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = .*?([a-z][a-z0-9-]*)\(')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_AROUND = ('while', 'call', 'conditional')  # their time is that of their parts
_SCOPES = {
  augment.AUGMENT: 'augmentation',
  train_step.READ: 'reading',
  combinators.OPTIMIZER: 'optimizer',
}
_END = 'end: '  # marks the end of work in other threads in a CPU's profile


def part_of(op_name: str) -> str:
  """The part of an operation, by its `op_name` in the program's text."""
  if not op_name:
    return 'layout'
  words = re.split(r'[/()]', op_name)
  for scope, part in _SCOPES.items():
    if scope in words:
      return part
  way = 'backward' if 'transpose(' in op_name else 'forward'
  if 'BatchNorm' in op_name:
    return f'normalization {way}'
  if 'conv_general_dilated' in words[-1]:
    return f'convolution {way}'
  return f'other {way}'


def parts(program: str) -> dict[str, str]:
  """Instruction -> part, from the text of an optimized program."""
  part_by_instruction = {}
  for line in program.splitlines():
    instruction = _NAMED.match(line)
    if instruction and instruction[2] not in _AROUND:
      name = _OP_NAME.search(line)
      part_by_instruction[instruction[1]] = part_of(name[1] if name else '')
  return part_by_instruction


def _events(profile: Any) -> Iterable[tuple[str, float, float]]:
  """Name, start and end in nanoseconds of every event."""
  for plane in profile.planes:
    on_host = plane.name.startswith('/host')
    for line in plane.lines:
      if on_host and line.name == 'python':
        continue
      for event in line.events:
        name = event.name
        if not on_host:
          name = str(dict(event.stats).get('hlo_op', name))
        yield name, event.start_ns, event.start_ns + event.duration_ns


def spent(
  events: Iterable[tuple[str, float, float]], part: Mapping[str, str]
) -> dict[str, float]:
  """Nanoseconds by part.

  An operation that uses other threads lasts until its `end:` event.
  """
  begun, ended = collections.defaultdict(list), collections.defaultdict(list)
  later = collections.defaultdict(list)
  for name, start, end in events:
    if name.startswith(_END):
      later[name.removeprefix(_END)].append(end)
    elif name in part:
      begun[name].append(start)
      ended[name].append(end)
  total = dict.fromkeys(PARTS, 0.0)
  for name, starts in begun.items():
    ends = later[name] if len(later[name]) == len(starts) else ended[name]
    total[part[name]] += sum(ends) - sum(starts)
  return total


def measure(
  call: Callable[[], None], program: str, *, steps: int
) -> dict[str, float]:
  """Milliseconds per step by part.

  Operations may overlap, so the sum may exceed the wall-clock time of a step.

  Args:
    call: runs one step and waits for it.
    program: text of the optimized program.
    steps: calls to profile.

  Returns:
    A value for each of `PARTS`.
  """
  with tempfile.TemporaryDirectory() as folder:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # there are too many Python calls
    with jax.profiler.trace(folder, profiler_options=options):
      for _ in range(steps):
        call()
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    profile = jax.profiler.ProfileData.from_file(str(path))
    nanoseconds = spent(_events(profile), parts(program))
  return {name: 1e-6 * ns / steps for name, ns in nanoseconds.items()}


def table(measured: Mapping[str, Mapping[str, float]]) -> str:
  """A Markdown table of milliseconds, one row per method."""
  lines = [
    '| method | ' + ' | '.join(PARTS) + ' | sum |',
    '|' + ' --- |' * (len(PARTS) + 2),
  ]
  for name, ms in measured.items():
    cells = [f'{ms[part]:.1f}' for part in PARTS]
    lines.append(f'| {name} | {" | ".join(cells)} | {sum(ms.values()):.1f} |')
  return '\n'.join(lines)
