"""Two networks side by side: how they start."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest
from two_heads import DNLL, batch_of, build, tools_of

from nsl_jax.compose import two_networks


class InitTest(absltest.TestCase):
  def test_independent_networks_of_one_key(self):
    components = tools_of()._replace(ema_decay=0.9, tx=optax.sgd(0.1, 0.9))
    state = two_networks.init(components)(jax.random.key(0))
    gap = state.params['a']['w'] - state.params['b']['w']
    self.assertGreater(jnp.abs(gap).max(), 0.5)
    self.assertEqual(set(state.opt), {'a', 'b'})
    np.testing.assert_array_equal(
      state.slots['ema']['b']['w'], state.params['b']['w']
    )
    second_pass = two_networks.init(components)(jax.random.key(0))
    np.testing.assert_array_equal(
      second_pass.params['b']['w'], state.params['b']['w']
    )

  def test_each_has_its_own_momentum(self):
    components = tools_of()._replace(tx=optax.sgd(0.1, 0.9))
    method = build('dnll', components, **DNLL)
    state, batch = method.init(jax.random.key(0)), batch_of()
    state, _ = method.update(state, batch, jax.random.key(1))
    moments = {n: jax.tree.leaves(state.opt[n])[-1] for n in two_networks.NAMES}
    self.assertGreater(jnp.abs(moments['a'] - moments['b']).max(), 1e-3)


if __name__ == '__main__':
  absltest.main()
