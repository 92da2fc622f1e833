"""mixup (Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018) as
MixMatch's baseline: labeled and unlabeled rows, with predictions as labels.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import losses, options, terms as terms_lib
from nsl_jax.compose import combinators, mixing
from nsl_jax.types import (
  Array,
  Aux,
  Batch,
  Components,
  Key,
  Loss,
  Method,
  Outputs,
  Params,
  State,
  Stats,
  TermInputs,
)


def mixup_loss(components: Components, *, alpha: float) -> Loss:
  """Cross-entropy on labeled images mixed with the reversed batch, plus the
  same on unlabeled images with the network's prediction as label.
  """

  def loss(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    keys = jax.random.split(key, 7)

    def forward(images: Array, key: Key) -> tuple[Outputs, Stats]:
      return components.model.apply(
        params, state.stats, images, train=True, key=key
      )

    def mixed(rows: Array, labels: Array, key: Key) -> tuple[Array, Array]:
      ratio = mixing.mix_ratio(key, alpha, rows.shape[0], per_batch=False)
      return (
        mixing.mix(rows, rows[::-1], ratio),
        mixing.mix(labels, labels[::-1], ratio),
      )

    u = components.augment(batch.u, keys[0])
    guess = jax.lax.stop_gradient(jax.nn.softmax(forward(u, keys[1])[0].logits))
    labels_x = jax.nn.one_hot(batch.y, guess.shape[-1], dtype=guess.dtype)
    x, y = mixed(components.augment(batch.x, keys[2]), labels_x, keys[3])
    labeled, stats = forward(x, keys[4])
    u, target_probs = mixed(u, guess, keys[5])
    unlabeled, _ = forward(u, keys[6])
    parts = {
      'cross_entropy': losses.cross_entropy(labeled.logits, y).mean(),
      'mixup': losses.cross_entropy(unlabeled.logits, target_probs).mean(),
    }
    inputs = TermInputs(unlabeled.logits, target_probs, normalizer=u.shape[0])
    aux = Aux(inputs, stats, state.slots, parts)
    return jnp.sum(jnp.stack(list(parts.values()))), aux

  return loss


@options.declare(alpha='> 0')
def build(
  components: Components,
  *,
  terms: Mapping[str, Mapping[str, Any]],
  alpha: float = 0.75,
) -> Method:
  """Builds mixup.

  Args:
    components: network, optimizer and augmentation.
    terms: terms over the mixed unlabeled rows.
    alpha: parameter of the Beta distribution of mixing ratios; 0.75 on
      CIFAR-10, 0.25 on SVHN.
  """
  terms_lib.refuse_single_images('mixup', terms)
  loss = mixup_loss(components, alpha=alpha)
  loss = combinators.add_terms(loss, terms_lib.from_config(terms))
  return combinators.to_method(
    combinators.SingleNetworkMethod(loss), components
  )
