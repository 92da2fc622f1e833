"""States come back as they were; what cannot be read is passed over."""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from nsl_jax import errors
from nsl_jax.training import checkpoint
from nsl_jax.types import State


def _state(step: int) -> State:
  params = {'kernel': jnp.arange(6.0).reshape(2, 3) + step}
  return State(
    step=jnp.int32(step),
    key=jax.random.key(3),
    params=params,
    stats={},
    opt=optax.adam(1e-3).init(params),
    slots={'ema': params},
  )


def _damage(folder: pathlib.Path) -> None:
  for path in folder.rglob('*'):
    if path.is_file() and path.stat().st_size > 8:
      path.write_bytes(path.read_bytes()[:8])


class CheckpointsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = (
      pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
      / 'checkpoints'
    )

  def _save(self, *steps: int, keep: int = 5):
    store = checkpoint.Checkpoints(self.folder, keep=keep)
    for step in steps:
      store.save(step, _state(step), {'pending': [{'loss': step / 3}]})
    store.close()

  def _restore(self):
    store = checkpoint.Checkpoints(self.folder, keep=5)
    found = store.restore(_state(0))
    store.close()
    return found

  def test_comes_back_bit_for_bit(self):
    self._save(7)
    state, position = self._restore()
    want = _state(7)
    self.assertEqual(jax.tree.structure(state), jax.tree.structure(want))
    data = lambda s: s.replace(key=jax.random.key_data(s.key))
    jax.tree.map(np.testing.assert_array_equal, data(state), data(want))
    self.assertEqual(position, {'pending': [{'loss': 7 / 3}]})

  def test_nothing_saved(self):
    self.assertIsNone(self._restore())

  def test_keeps_the_newest(self):
    self._save(1, 2, 3, 4, keep=2)
    kept = sorted(p.name for p in self.folder.iterdir())
    self.assertEqual(kept, ['3', '4'])

  def test_saved_state_may_be_donated_at_once(self):
    store = checkpoint.Checkpoints(self.folder, keep=1)
    state = jax.tree.map(
      lambda leaf: jnp.zeros((512, 512)) + 1.0, _state(1).params
    )
    state = _state(1).replace(params=state)
    zero = jax.jit(
      lambda s: jax.tree.map(lambda leaf: leaf * 0.0, s), donate_argnums=0
    )
    store.save(1, state, {})
    zero(state.params)
    store.close()
    store = checkpoint.Checkpoints(self.folder, keep=1)
    like = _state(0).replace(params={'kernel': jnp.zeros((512, 512))})
    found, _ = store.restore(like)
    store.close()
    self.assertEqual(float(found.params['kernel'].min()), 1.0)

  def test_damaged_is_passed_over_and_set_aside(self):
    self._save(5, 10)
    _damage(self.folder / '10')
    state, _ = self._restore()
    self.assertEqual(int(state.step), 5)
    names = {p.name for p in self.folder.iterdir()}
    self.assertEqual(names, {'5', 'damaged-10'})
    self._save(10)  # the same step can be saved again
    self.assertEqual(int(self._restore()[0].step), 10)

  def test_half_written_is_passed_over(self):
    self._save(5)
    half = self.folder / '10.orbax-checkpoint-tmp'
    half.mkdir()
    (half / 'state').write_text('half')
    state, _ = self._restore()
    self.assertEqual(int(state.step), 5)
    store = checkpoint.Checkpoints(self.folder, keep=2)
    self.addCleanup(store.abandon)
    store.remove_parts()  # as a run does at its start
    self.assertEqual([p.name for p in self.folder.iterdir()], ['5'])

  def test_none_readable_loses_nothing(self):
    self._save(5)
    _damage(self.folder / '5')
    with self.assertRaisesRegex(errors.UserError, 'move .* away to start'):
      self._restore()
    self.assertEqual([p.name for p in self.folder.iterdir()], ['5'])


if __name__ == '__main__':
  absltest.main()
