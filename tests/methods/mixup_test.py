"""mixup, a baseline that mixes with the reversed batch, against loops."""

import numpy as np
from absl.testing import absltest, parameterized
from softmax_toy import (
  LABELS,
  NS3L,
  K,
  Toy,
  check_losses,
  check_moved_once,
  make_batch,
  mixed_labels,
  negative_sampling_loss,
  probs_of,
  run,
)


class MixupTest(parameterized.TestCase):
  def test_mixup_against_a_loop(self):
    toy, batch = Toy(), make_batch()
    state, after, metrics = run(
      'mixup', toy, batch, alpha=0.75, terms={'ns3l': dict(NS3L, weight=2.0)}
    )
    guessing, labeled, unlabeled = toy.views
    found = {}
    for name, shown, rows, labels in (
      ('cross_entropy', labeled, batch.x, np.eye(K)[LABELS]),
      ('mixup', unlabeled, batch.u, probs_of(guessing, state.params)),
    ):
      targets = mixed_labels(shown, np.asarray(rows, np.float64), labels)
      probs = probs_of(shown, state.params)
      found[name] = [-sum(q * np.log(p)) for q, p in zip(targets, probs)]
    found['ns3l'] = [
      negative_sampling_loss(q, p, 0.2) for q, p in zip(targets, probs)
    ]
    check_losses(metrics, found)
    check_moved_once(after, labeled)

  def test_mixup_labels_are_constant(self):
    """The step without labeled images: p - q of every row, whatever q."""
    toy, batch = Toy(), make_batch()
    state, after, _ = run('mixup', toy, batch, alpha=0.75)
    guessing, labeled, unlabeled = toy.views
    want = np.zeros(K)
    for shown, rows, labels in (
      (labeled, batch.x, np.eye(K)[LABELS]),
      (unlabeled, batch.u, probs_of(guessing, state.params)),
    ):
      targets = mixed_labels(shown, np.asarray(rows, np.float64), labels)
      want += np.mean(probs_of(shown, state.params) - targets, axis=0)
    got = state.params['head']['bias'] - after.params['head']['bias']
    np.testing.assert_allclose(got / 0.1, want, atol=1e-4)


if __name__ == '__main__':
  absltest.main()
