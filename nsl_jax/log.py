"""Metrics of one run as JSON lines and TensorBoard events."""

import json
import pathlib
from typing import Any

import tensorboardX

from nsl_jax import errors


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The whole lines of a metrics file; one cut off while written is left.

  Raises:
    errors.UserError: if a whole line is damaged.
  """
  if not path.exists():
    return []
  whole, _, _ = path.read_text().rpartition('\n')
  try:
    return [json.loads(line) for line in whole.splitlines()]
  except ValueError as error:
    raise errors.UserError(
        f'{path} is damaged ({error}): remove the line, or use a new --workdir'
    ) from error


class Log:
  """Appends to `metrics.jsonl` and to TensorBoard events in `tb/`.

  A line is `{"step", "seconds", "kind": "train" | "eval", ...values}`;
  `seconds` is wall-clock time, everything else is a function of the config
  and the seed.
  """

  def __init__(self, folder: pathlib.Path, *, step: int):
    """Opens the files of a run that stands at `step`, dropping what an
    earlier start wrote beyond it."""
    path = folder / 'metrics.jsonl'
    kept = [line for line in read(path) if line['step'] <= step]
    part = path.with_suffix('.part')
    part.write_text(''.join(json.dumps(line) + '\n' for line in kept))
    part.replace(path)
    self._file = path.open('a')
    self._board = tensorboardX.SummaryWriter(
        str(folder / 'tb'), purge_step=step + 1
    )

  def write(
      self, kind: str, step: int, seconds: float,
      values: dict[str, float | str | None],
  ) -> None:
    """One line, on disk when this returns."""
    line = {'step': step, 'kind': kind, **values, 'seconds': seconds}
    self._file.write(json.dumps(line) + '\n')
    self._file.flush()
    for name, value in values.items():
      if isinstance(value, float):
        self._board.add_scalar(f'{kind}/{name}', value, step)

  def flush(self) -> None:
    """Puts the TensorBoard events on disk, as every line already is."""
    self._board.flush()

  def close(self) -> None:
    """Closes both."""
    self._file.close()
    self._board.close()
