"""DNLL on Mean Teacher: which head learns, which pass gives the labels."""

import jax
import numpy as np
from absl.testing import absltest
from two_heads import (
  RAMP,
  WEIGHT,
  K,
  Normed,
  batch_of,
  build,
  cross_entropies,
  forward,
  softmax,
  tools_of,
)

from nsl_jax import errors


class CombinationTest(absltest.TestCase):
  """DNLL on Mean Teacher: the first head labels, the second one learns."""

  def test_against_a_loop(self):
    method = build(
      'mean_teacher',
      tools_of(),
      weight=10.0,
      decay=0.9,
      tie=0.5,
      **RAMP,
      terms=dict(dnll=dict(count=K - 1, **WEIGHT)),
    )
    state, batch = method.init(jax.random.key(0)), batch_of()
    teacher = {k: 0.5 * v for k, v in state.params.items()}
    state = state.replace(slots={**state.slots, 'teacher': teacher})
    _, metrics = method.update(state, batch, jax.random.key(1))
    first, second = forward(state.params, batch.u)
    p, q = softmax(second), softmax(forward(teacher, batch.u)[0])
    np.testing.assert_allclose(
      metrics['mean_teacher'], np.mean((p - q) ** 2), rtol=1e-4
    )
    each = [
      np.mean([-np.log(1 - row[k]) for k in range(K) if k != guess])
      for row, guess in zip(p, first.argmax(-1))
    ]
    np.testing.assert_allclose(metrics['dnll'], np.mean(each), rtol=1e-4)
    images = np.concatenate([batch.x, batch.u])
    one, two = forward(state.params, images)
    np.testing.assert_allclose(
      metrics['tie'], np.mean((one - two) ** 2), rtol=1e-4
    )

  def test_as_released(self):
    """Teacher and student label views of the unlabeled images alone. A term is
    a mean over these, the rest is divided by all. The student's pass moves
    its statistics after the first one (F-D11)."""
    method = build(
      'mean_teacher',
      tools_of(Normed()),
      weight=10.0,
      decay=0.9,
      tie=0.01,
      second_pass_rows='unlabeled',
      **RAMP,
      terms=dict(dnll=dict(count=K - 1, **WEIGHT)),
    )
    state, batch = method.init(jax.random.key(0)), batch_of(6, 8)
    teacher = {k: 0.5 * v for k, v in state.params.items()}
    state = state.replace(slots={**state.slots, 'teacher': teacher})
    after, metrics = method.update(state, batch, jax.random.key(1))
    images = np.concatenate([batch.x, batch.u])
    alone = batch.u - np.mean(batch.u)
    first, second = forward(state.params, images - images.mean())
    p, q = softmax(second[6:]), softmax(forward(teacher, alone)[0])
    guesses = forward(state.params, alone)[0].argmax(-1)
    known = cross_entropies(first[:6], batch.y).sum() / 14
    follows = np.mean((p - q) ** 2)
    each = np.mean(
      [
        [-np.log(1 - row[k]) for k in range(K) if k != guess]
        for row, guess in zip(p, guesses)
      ]
    )
    tie = np.mean((first - second) ** 2)
    np.testing.assert_allclose(metrics['mean_teacher'], follows, rtol=1e-4)
    np.testing.assert_allclose(metrics['dnll'], each, rtol=1e-4)
    np.testing.assert_allclose(
      metrics['loss'],
      known + 0.01 * tie + 10.0 * follows + 2.0 * each,
      rtol=1e-4,
    )
    joint = softmax(forward(teacher, images - images.mean())[0])[6:]
    self.assertGreater(np.abs(joint - q).max(), 0.01)
    np.testing.assert_allclose(
      after.stats['mean'],
      0.25 * images.mean() + 0.5 * np.mean(batch.u),
      rtol=1e-4,
    )

  def test_a_teacher_that_is_asked_moves_no_statistics(self):
    term = dict(count=1, source='teacher', **WEIGHT)
    method = build(
      'mean_teacher',
      tools_of(Normed()),
      weight=10.0,
      decay=0.9,
      second_pass_rows='unlabeled',
      terms=dict(dnll=term),
      **RAMP,
    )
    batch = batch_of()
    after, _ = method.update(
      method.init(jax.random.key(0)), batch, jax.random.key(1)
    )
    np.testing.assert_allclose(
      after.stats['mean'],
      0.5 * np.concatenate([batch.x, batch.u]).mean(),
      rtol=1e-4,
    )

  def test_the_teacher_may_be_asked(self):
    fields = dict(weight=10.0, decay=0.9, **RAMP)
    term = dict(count=K - 1, source='teacher', **WEIGHT)
    method = build('mean_teacher', tools_of(), terms=dict(dnll=term), **fields)
    state, batch = method.init(jax.random.key(0)), batch_of()
    teacher = {k: -v for k, v in state.params.items()}
    state = state.replace(slots={**state.slots, 'teacher': teacher})
    _, metrics = method.update(state, batch, jax.random.key(1))
    p = softmax(forward(state.params, batch.u)[1])
    guesses = forward(teacher, batch.u)[0].argmax(-1)
    each = [
      np.mean([-np.log(1 - row[k]) for k in range(K) if k != guess])
      for row, guess in zip(p, guesses)
    ]
    np.testing.assert_allclose(metrics['dnll'], np.mean(each), rtol=1e-4)

  def test_no_teacher_to_ask(self):
    term = dict(count=1, source='teacher', **WEIGHT)
    method = build('supervised', tools_of(), terms=dict(dnll=term))
    state = method.init(jax.random.key(0))
    with self.assertRaisesRegex(errors.UserError, 'needs the method mean_t'):
      method.update(state, batch_of(), jax.random.key(1))


if __name__ == '__main__':
  absltest.main()
