"""The forward passes of a batch: which rows, which statistics."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from linear_toy import linear_network, make_batch, make_state, make_tools

from nsl_jax.compose import forward


class PassesTest(parameterized.TestCase):
  def passes(
    self, augment, *, shared_batch_norm, jvp=False, second_pass_rows='all'
  ):
    """The passes, and the options of every application of the network."""
    calls = []
    model = linear_network()

    def apply(params, stats, images, **options):
      calls.append((images.shape[0], options))
      return model.apply(params, stats, images, **options)

    components = make_tools()._replace(
      model=model._replace(apply=apply), augment=augment
    )
    return forward.forward_passes(
      components,
      shared_batch_norm=shared_batch_norm,
      linearize=jvp,
      second_pass_rows=second_pass_rows,
    ), calls

  @parameterized.parameters(False, True)
  def test_joint_is_one_application_then_split(self, linearize):
    passes, calls = self.passes(
      lambda images, key: 2.0 * images, shared_batch_norm=True, jvp=linearize
    )
    state, batch = make_state(), make_batch()
    (labeled, _), clean, stats = passes.first_pass(
      state.params, state, batch, jax.random.key(0)
    )
    self.assertEqual([rows for rows, _ in calls], [7])
    self.assertTrue(calls[0][1]['train'])
    expected = lambda images: (
      2.0 * images.reshape(images.shape[0], -1) @ state.params['w']
    )
    np.testing.assert_allclose(labeled, expected(batch.x), rtol=1e-5)
    np.testing.assert_allclose(
      clean.unlabeled(clean.logits), expected(batch.u), rtol=1e-5
    )
    np.testing.assert_array_equal(
      clean.images, np.concatenate([batch.x, batch.u])
    )
    np.testing.assert_array_equal(clean.view, 2.0 * clean.images)
    self.assertEqual(stats['passes'], 1)
    self.assertEqual(passes.totals(batch), (7, 7))
    self.assertEqual(clean.jvp is not None, linearize)

  def test_apart_each_group_is_a_batch(self):
    passes, calls = self.passes(
      lambda images, key: images, shared_batch_norm=False
    )
    state, batch = make_state(), make_batch()
    (labeled, _), clean, stats = passes.first_pass(
      state.params, state, batch, jax.random.key(0)
    )
    self.assertCountEqual([rows for rows, _ in calls], [4, 3])
    self.assertEqual(labeled.shape, (4, 3))
    self.assertEqual(clean.unlabeled(clean.logits).shape, (3, 3))
    self.assertEqual(stats['passes'], 1)  # moved by the labeled batch alone
    self.assertEqual(passes.totals(batch), (4, 3))

  def test_no_pass_over_nothing(self):
    passes, calls = self.passes(
      lambda images, key: images, shared_batch_norm=False
    )
    state, batch = make_state(), make_batch(unlabeled=0)
    passes.first_pass(state.params, state, batch, jax.random.key(0))
    self.assertEqual([rows for rows, _ in calls], [4])

  @parameterized.parameters(
    (True, 'all', [7, 7, 7], (7, 7)),
    (True, 'unlabeled', [7, 3, 3], (7, 3)),
    (False, 'all', [4, 3, 3, 3], (4, 3)),
  )
  def test_what_further_passes_see(
    self, shared_batch_norm, second_pass_rows, sizes, totals
  ):
    passes, calls = self.passes(
      lambda images, key: images,
      shared_batch_norm=shared_batch_norm,
      second_pass_rows=second_pass_rows,
    )
    state, batch = make_state(), make_batch()
    _, _, stats = passes.first_pass(
      state.params, state, batch, jax.random.key(0)
    )
    found = passes.second_pass(state.params, state, batch, jax.random.key(1))
    moving, moved = passes.second_pass_with_stats(
      state.params, stats, batch, jax.random.key(1)
    )
    self.assertCountEqual([rows for rows, _ in calls], sizes)
    self.assertTrue(all(options['train'] for _, options in calls))
    self.assertEqual(passes.totals(batch), totals)
    expected = batch.u.reshape(3, -1) @ state.params['w']
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(moving, expected, rtol=1e-5)
    self.assertEqual((stats['passes'], moved['passes']), (1, 2))

  def test_push_is_the_derivative(self):
    passes, _ = self.passes(
      lambda images, key: images, shared_batch_norm=True, jvp=True
    )
    state, batch = make_state(), make_batch()
    _, clean, _ = passes.first_pass(
      state.params, state, batch, jax.random.key(0)
    )
    change = jnp.ones_like(clean.view)
    np.testing.assert_allclose(
      clean.jvp(change),
      clean.apply_same_dropout(clean.view + change) - clean.logits,
      rtol=1e-4,
      atol=1e-5,
    )

  def test_every_call_draws_its_own_view_and_dropout(self):
    drawn = []

    def augment(images, key):
      drawn.append(tuple(jax.random.key_data(key).tolist()))
      return images

    passes, calls = self.passes(augment, shared_batch_norm=True)
    state, batch = make_state(), make_batch()
    for seed in 0, 1:
      keys = jax.random.split(jax.random.key(seed), 3)
      _, clean, _ = passes.first_pass(state.params, state, batch, keys[0])
      passes.second_pass(state.params, state, batch, keys[1])
      clean.apply_new_augmentation(clean.images, keys[2])
    drawn += [
      tuple(jax.random.key_data(options['key']).tolist())
      for _, options in calls
    ]
    self.assertLen(set(drawn), 12)

  def test_another_networks_parameters(self):
    passes, _ = self.passes(lambda images, key: images, shared_batch_norm=True)
    state, batch = make_state(), make_batch()
    zero = jax.tree.map(jnp.zeros_like, state.params)
    found = passes.second_pass(zero, state, batch, jax.random.key(0))
    np.testing.assert_array_equal(found, np.zeros((3, 3)))


if __name__ == '__main__':
  absltest.main()
