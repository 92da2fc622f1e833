"""ICT against a loop in numpy."""

import jax
import numpy as np
from absl.testing import absltest, parameterized
from model_helpers import quick_jit
from softmax_toy import (
  ICT,
  LABELS,
  NS3L,
  B,
  K,
  Toy,
  build,
  check_losses,
  check_moved_once,
  make_batch,
  mixed_labels,
  negative_sampling_loss,
  probs_of,
  run,
)


class ICTTest(parameterized.TestCase):
  def test_ict_against_a_loop(self):
    """The teacher moves after the student's step."""
    toy, batch = Toy(), make_batch()
    fields = dict(ICT, terms={'ns3l': dict(NS3L, weight=2.0)})
    state = quick_jit(build('ict', toy, **fields).init)(jax.random.key(0))
    other = jax.tree.map(lambda leaf: 0.3 * leaf, state.params)
    state = state.replace(slots={'teacher': other})
    _, after, metrics = run('ict', toy, batch, state, **fields)
    labeled, teaching, shown = toy.views
    targets = mixed_labels(
      shown, np.asarray(batch.u, np.float64), probs_of(teaching, other)
    )
    probs, known = (probs_of(v, state.params) for v in (shown, labeled))
    check_losses(
      metrics,
      {
        'cross_entropy': -np.log(known[np.arange(B), LABELS]),
        'ict': [sum((p - q) ** 2) / K for p, q in zip(probs, targets)],
        'ns3l': [
          negative_sampling_loss(q, p, 0.2) for q, p in zip(targets, probs)
        ],
      },
    )
    check_moved_once(after, labeled)
    kernel = lambda tree: np.asarray(tree['head']['kernel'])
    np.testing.assert_allclose(
      kernel(after.slots['teacher']),
      0.9 * kernel(other) + 0.1 * kernel(after.params),
      rtol=1e-5,
    )


if __name__ == '__main__':
  absltest.main()
