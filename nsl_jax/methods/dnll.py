"""DNLL: two networks teach each other pseudo-negative labels.

Xu et al., "Semi-supervised learning with pseudo-negative labels for image
classification", 2023, https://arxiv.org/abs/2301.03976. The equations and the
text let a network learn from its own negative labels and from the other's;
Algorithm 1 has only the latter (F-D1). Both networks are updated at once as in
Algorithm 1; the abstract describes alternating roles (F-D21).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import errors, losses, options, schedules, terms as terms_lib
from nsl_jax.compose import combinators, forward, two_networks
from nsl_jax.terms import error_perception
from nsl_jax.types import (
  Array,
  Aux,
  Batch,
  Components,
  Key,
  Method,
  Metrics,
  Schedule,
  State,
  TermInputs,
)

_UNSUPERVISED = {
  'both': ('cross', 'self'),
  'cross': ('cross',),
  'self': ('self',),
}


def error_matrix_slot(name: str) -> str:
  """Slot of the error-perception matrix of one of the two networks."""
  return f'mistakes_{name}'


@options.declare(
  threshold='[0, 1]', weight='>= 0', where=('all', 'unconfident')
)
@dataclasses.dataclass(frozen=True)
class _Positives:
  """Each network is a FixMatch student.

  Args:
    threshold: an image has the class that the network itself predicts for the
      weak view as a label if its probability is at least this.
    weight: weight of the loss on these labels.
    where: the images with negative labels, `all`, or the `unconfident` ones,
      which have no label.
  """

  threshold: float = 0.95
  weight: float = 1.0
  where: str = 'all'


def dnll_loss(
  components: Components,
  *,
  weight: Schedule,
  selection: str,
  count: int,
  parts: tuple[str, ...],
  decay: float,
  positives: _Positives | None = None,
) -> two_networks.PairLoss:
  """The cross-entropy of each network plus `weight` times its loss on negative
  labels.

  A labeled image has a separate view for each network; an unlabeled one has a
  weak and a strong view that both share (equations 10-11, F-D16). The labeled
  and the strong views form one batch; the weak views, on which the networks
  teach, form another without gradient. Both batches update the statistics in
  this order, as in Dual Student's code, since DNLL's is not released (F-D20).
  Labeled rows weigh 1 / (B_l + B_u) and unlabeled ones 1 / B_u, as in the
  released combinations that the weight is from (F-D7). With `positives` labeled
  rows weigh 1 / B_l, as in FixMatch.
  """
  apply = two_networks.forward(components)
  strong_view = components.strong or components.augment

  def confident(probs: Array) -> Array:
    assert positives is not None
    return (probs.max(-1) >= positives.threshold).astype(probs.dtype)

  def loss(
    params: two_networks.Pair, state: State, batch: Batch, key: Key
  ) -> tuple[dict[str, Array], dict[str, Aux]]:
    if not batch.u.shape[0]:
      raise errors.UserError(
        'dnll needs unlabeled images: set config.batch.unlabeled'
      )
    views, weak_key, strong_key, learn, teach, draws = jax.random.split(key, 6)
    strong = strong_view(batch.u, strong_key)
    images = {
      n: jnp.concatenate([components.augment(batch.x, own_key), strong])
      for n, own_key in two_networks.keys(views).items()
    }
    outputs, stats = apply(params, state.stats, images, learn)
    weak = components.augment(batch.u, weak_key)
    teachers, stats = apply(
      *jax.lax.stop_gradient((params, stats)),
      dict.fromkeys(two_networks.NAMES, weak),
      teach,
    )
    probs_of = {n: jax.nn.softmax(t.logits) for n, t in teachers.items()}
    values, aux = {}, {}
    for n, own_key in two_networks.keys(draws).items():
      values[n], slots, metrics = network_loss(
        n, outputs[n].logits, probs_of, state, batch, own_key
      )
      inputs = TermInputs(
        outputs[n].logits[batch.x.shape[0] :],
        target_probs=probs_of[n],
        normalizer=batch.u.shape[0],
        second_pass=forward.second_pass_of(
          components, params[n], state.stats[n], batch
        ),
        weights=None if positives is None else confident(probs_of[n]),
      )
      aux[n] = Aux(inputs, stats[n], slots, metrics)
    return values, aux

  def network_loss(
    name: str,
    logits: Array,
    probs_of: Mapping[str, Array],
    state: State,
    batch: Batch,
    key: Key,
  ) -> tuple[Array, dict[str, Array], Metrics]:
    """The loss of one network, its slots and metrics, from outputs of both."""
    labeled, rows = batch.x.shape[0], logits.shape[0]
    logits_x, logits_u = logits[:labeled], logits[labeled:]
    supervised = losses.cross_entropy(logits_x, batch.y).sum()
    supervised = supervised / (rows if positives is None else labeled)
    slots, table = {}, None
    if selection == 'epm':
      batch_matrix = error_perception.error_perception_matrix(logits_x, batch.y)
      old = state.slots[error_matrix_slot(name)]
      table = slots[error_matrix_slot(name)] = (
        decay * old + (1.0 - decay) * batch_matrix
      )
    value, metrics = supervised, {'cross_entropy': supervised}
    metrics['weight'] = jnp.asarray(weight(state.step))
    share = jnp.ones(logits_u.shape[0])
    if positives is not None:
      own_probs = probs_of[name]
      weights = confident(own_probs)
      share = 1.0 - weights if positives.where == 'unconfident' else share
      row_losses = losses.cross_entropy(logits_u, own_probs.argmax(-1))
      metrics['strong_view'] = (weights * row_losses).mean()
      metrics['confident'] = weights.mean()
      value = value + positives.weight * metrics['strong_view']
    teacher = {'cross': two_networks.other(name), 'self': name}
    for part, draw in zip(parts, jax.random.split(key, len(parts))):
      predicted = probs_of[teacher[part]].argmax(-1)
      negative = error_perception.sample_negatives(
        draw, table, predicted, logits.shape[-1], count
      )
      row_losses = losses.complementary_label_loss(logits_u, negative)
      metrics[part] = (share * row_losses).mean()
      value = value + metrics['weight'] * metrics[part]
    return value, slots, metrics

  return loss


@options.declare(
  selection=error_perception.SELECTIONS,
  count='>= 1',
  unsupervised=tuple(_UNSUPERVISED),
  decay='[0, 1)',
  positives=_Positives,
  **schedules.RAMPED,
)
def build(
  components: Components,
  *,
  terms: Mapping[str, Mapping[str, Any]],
  selection: str = 'epm',
  count: int = 3,
  unsupervised: str = 'both',
  weight: float = 2.0,
  ramp: str = 'dnll',
  ramp_steps: int = 32_000,
  hold_steps: int = 320,
  decay: float = 0.99,
  positives: Mapping[str, Any] | None = None,
) -> Method:
  """Builds DNLL (equations 18-19).

  The paper states no weight; the defaults are those of the released
  combinations, with epochs of 320 steps (F-D7).

  Args:
    components: network, optimizer and augmentation; `strong` is the view that
      is trained on.
    terms: further terms, on the strong view of each network; their second
      passes see a new weak view.
    selection: `ep` draws negative labels uniformly, `epm` by the errors of the
      network that learns (section 3.5, F-D6).
    count: m, negative labels per image, 1 to K - 1.
    unsupervised: `cross` (labels of the other network, Algorithm 1), `self` or
      `both` (equations 18-19, F-D1).
    weight: weight of the loss on negative labels.
    ramp: ramp of the weight, see `schedules.ramped`.
    ramp_steps: length of the ramp.
    hold_steps: interval between changes of the weight.
    decay: decay of the moving average of the error-perception matrix; the paper
      states none (F-D6).
    positives: makes a pair of FixMatch students, which teach each other
      negative labels: `threshold`, `weight` and `where` of `_Positives`.
  """
  loss = dnll_loss(
    components,
    selection=selection,
    count=count,
    decay=decay,
    weight=schedules.ramped(
      weight=weight, ramp=ramp, ramp_steps=ramp_steps, hold_steps=hold_steps
    ),
    parts=_UNSUPERVISED[unsupervised],
    positives=None if positives is None else _Positives(**positives),
  )
  loss = two_networks.add_terms(loss, terms_lib.from_config(terms))
  start = two_networks.init(components)

  def init(key: Key) -> State:
    state = start(key)
    if selection == 'ep':
      return state
    size = combinators.num_outputs(components)
    tables = {
      error_matrix_slot(n): jnp.zeros((size, size)) for n in two_networks.NAMES
    }
    return state.replace(slots={**state.slots, **tables})

  step = two_networks.gradient_step(loss, components.tx)
  return Method(
    init,
    combinators.finish_step(step, components),
    two_networks.predict(components),
    terms_lib.per_image_tables(terms),
    recompute=two_networks.recompute(components),
  )
