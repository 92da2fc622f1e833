"""Where the time of a compiled step goes, by the profiler of JAX.

An operation of the optimized program belongs to a part by the name that tracing
gave it: the layer it is in, the scope, and whether it is of a transposed (that
is, backward) pass. A fusion has the name of the operation it ends in. What the
compiler has put in, and so has no name, is `layout`: mostly transposes.
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
_AROUND = ('while', 'call', 'conditional')  # whose time is that of their parts
_SCOPES = {
  augment.AUGMENT: 'augmentation',
  train_step.READ: 'reading',
  combinators.OPTIMIZER: 'optimizer',
}
_END = 'end: '  # of work that goes on in other threads, as a CPU's profile says


def part_of(op_name: str) -> str:
  """The part of an operation's name, as `op_name` in the program's text."""
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
  found = {}
  for line in program.splitlines():
    instruction = _NAMED.match(line)
    if instruction and instruction[2] not in _AROUND:
      name = _OP_NAME.search(line)
      found[instruction[1]] = part_of(name[1] if name else '')
  return found


def _events(profile: Any) -> Iterable[tuple[str, float, float]]:
  """Name, start and end in nanoseconds of everything that ran."""
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

  An operation that hands work to other threads lasts until its `end:`.
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
  """Milliseconds a step by part.

  Operations may run beside one another, so that the sum is more than a step's
  time by a clock.

  Args:
    call: runs one step and waits for it.
    program: text of the optimized program.
    steps: calls to profile.

  Returns:
    For each of `PARTS`.
  """
  with tempfile.TemporaryDirectory() as folder:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # calls in Python, of which there are many
    with jax.profiler.trace(folder, profiler_options=options):
      for _ in range(steps):
        call()
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    profile = jax.profiler.ProfileData.from_file(str(path))
    found = spent(_events(profile), parts(program))
  return {name: 1e-6 * ns / steps for name, ns in found.items()}


def table(measured: Mapping[str, Mapping[str, float]]) -> str:
  """A Markdown table of milliseconds, a row a method."""
  lines = [
    '| method | ' + ' | '.join(PARTS) + ' | sum |',
    '|' + ' --- |' * (len(PARTS) + 2),
  ]
  for name, ms in measured.items():
    cells = [f'{ms[part]:.1f}' for part in PARTS]
    lines.append(f'| {name} | {" | ".join(cells)} | {sum(ms.values()):.1f} |')
  return '\n'.join(lines)
