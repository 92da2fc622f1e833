"""Saving and finding back the state of a run, by orbax."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from nsl_jax import errors, mesh
from nsl_jax.types import State


class Checkpoints:
  """The newest few states of one run, written in the background."""

  def __init__(self, folder: pathlib.Path, *, keep: int):
    """Keeps the newest `keep` checkpoints under `folder`."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=True
    )
    self._folder = folder.absolute()
    self._manager = ocp.CheckpointManager(self._folder, options=options)
    self._copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))

  def save(self, step: int, state: State, position: dict[str, Any]) -> None:
    """Starts writing; `position` is what of the host's memory must be kept.

    The state is copied first: the loop goes on to donate its buffers while
    they are still being written.
    """
    if self._manager.latest_step() == step:
      return
    self._manager.save(step, args=ocp.args.Composite(
        state=ocp.args.StandardSave(self._copy(state)),
        position=ocp.args.JsonSave(position),
    ))

  def restore(self, like: State) -> tuple[State, dict[str, Any]] | None:
    """The newest checkpoint that can be read, or None where there is none.

    One that cannot be read (half written, truncated) is reported, set aside
    under another name, and passed over for the one before.

    Args:
      like: a state of the same structure, shapes and shardings.

    Raises:
      errors.UserError: if there are checkpoints but none can be read.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      try:
        found = self._manager.restore(step, args=ocp.args.Composite(
            state=ocp.args.StandardRestore(like),
            position=ocp.args.JsonRestore(),
        ))
      except Exception as error:  # orbax raises whatever its layers raise
        reason = (str(error).strip().splitlines() or [repr(error)])[0][:160]
        logging.warning('checkpoint %d cannot be read: %s', step, reason)
        unreadable = (step, reason)
      else:
        self._set_aside([s for s in steps if s > step])
        if mesh.largest(step) != step:
          raise errors.UserError(
              f'the processes cannot all read the same checkpoint in '
              f'{self._folder}: they must share that folder'
          )
        return found.state, found.position
    if steps:
      raise errors.UserError(
          f'no checkpoint in {self._folder} can be read (the oldest, '
          f'{unreadable[0]}: {unreadable[1]}): move that folder away to start '
          'over'
      )
    return None

  def _set_aside(self, steps: list[int]) -> None:
    if not steps:
      return
    if jax.process_index() == 0:
      for step in steps:
        name, copies = f'damaged-{step}', 0
        while (self._folder / name).exists():
          copies += 1
          name = f'damaged-{step}-{copies}'
        (self._folder / str(step)).rename(self._folder / name)
    mesh.meet('damaged checkpoints set aside')
    self._manager.reload()

  def latest(self) -> int | None:
    """Step of the newest checkpoint whose writing has ended."""
    self._manager.wait_until_finished()
    return self._manager.latest_step()

  def close(self) -> None:
    """Waits for what is being written."""
    self._manager.wait_until_finished()
    self._manager.close()
