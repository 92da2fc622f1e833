"""DNLL: two networks teach each other what an image is not (Xu et al.)."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import errors, losses, options, schedules, terms as terms_lib
from nsl_jax.compose import combinators, two_networks
from nsl_jax.terms import error_perception
from nsl_jax.types import Array, Aux, Batch, Key, Method, Schedule, State, Tools

_UNSUPERVISED = {
  'both': ('cross', 'self'),
  'cross': ('cross',),
  'self': ('self',),
}


def table_slot(name: str) -> str:
  """Slot of the error-perception matrix of one of the two networks."""
  return f'mistakes_{name}'


def dnll_loss(
  tools: Tools,
  *,
  weight: Schedule,
  selection: str,
  count: int,
  parts: tuple[str, ...],
  decay: float,
) -> two_networks.PairLoss:
  """Either network's cross-entropy plus `weight` times what it is taught.

  A labelled image has a view of its own for either network, an unlabelled one
  a weak and a strong view that both share (F-D16). The labelled and the strong
  views of a network go through it in one batch, the weak views, on which the
  networks teach, in another without gradient; either moves its statistics, in
  that order, as in Dual Student's code (F-D20). Labelled rows weigh
  1 / (B_l + B_u), unlabelled ones 1 / B_u, as in the code that the weight is
  taken from (F-D7).
  """
  apply = two_networks.forward(tools)
  strong_view = tools.strong or tools.augment

  def loss(params, state, batch, key):
    if not batch.u.shape[0]:
      raise errors.UserError(
        'dnll needs unlabelled images: set config.batch.unlabelled'
      )
    views, weak_key, strong_key, learn, teach, draws = jax.random.split(key, 6)
    strong = strong_view(batch.u, strong_key)
    images = {
      n: jnp.concatenate([tools.augment(batch.x, own), strong])
      for n, own in two_networks.keys(views).items()
    }
    outputs, stats = apply(params, state.stats, images, learn)
    weak = tools.augment(batch.u, weak_key)
    teachers, stats = apply(
      *jax.lax.stop_gradient((params, stats)),
      dict.fromkeys(two_networks.NAMES, weak),
      teach,
    )
    beliefs = {n: jax.nn.softmax(t.logits) for n, t in teachers.items()}
    values, aux = {}, {}
    for n, own in two_networks.keys(draws).items():
      values[n], found = taught(
        n, outputs[n].logits, beliefs, state, batch, own
      )
      again = two_networks.another_pass(tools, params[n], state.stats[n], batch)
      aux[n] = found._replace(again=again, stats=stats[n])
    return values, aux

  def taught(
    name: str,
    logits: Array,
    beliefs: Mapping[str, Array],
    state: State,
    batch: Batch,
    key: Key,
  ) -> tuple[Array, Aux]:
    """The loss of one network from what both made of the batch."""
    labelled, rows = batch.x.shape[0], logits.shape[0]
    logits_x, logits_u = logits[:labelled], logits[labelled:]
    supervised = losses.cross_entropy(logits_x, batch.y).sum() / rows
    slots, table = {}, None
    if selection == 'epm':
      seen = error_perception.mistakes(logits_x, batch.y)
      old = state.slots[table_slot(name)]
      table = slots[table_slot(name)] = decay * old + (1.0 - decay) * seen
    value, metrics = supervised, {'cross_entropy': supervised}
    metrics['weight'] = jnp.asarray(weight(state.step))
    teacher = {'cross': two_networks.other(name), 'self': name}
    for part, draw in zip(parts, jax.random.split(key, len(parts))):
      predicted = beliefs[teacher[part]].argmax(-1)
      negative = error_perception.draw(
        draw, table, predicted, logits.shape[-1], count
      )
      metrics[part] = losses.each_not(logits_u, negative).mean()
      value = value + metrics['weight'] * metrics[part]
    aux = Aux(
      logits_u=logits_u,
      belief_u=beliefs[name],
      total=logits_u.shape[0],
      again=None,
      stats=state.stats[name],
      slots=slots,
      metrics=metrics,
    )
    return value, aux

  return loss


@options.declare(
  selection=error_perception.SELECTIONS,
  count='>= 1',
  unsupervised=tuple(_UNSUPERVISED),
  decay='[0, 1)',
)
def build(
  tools: Tools,
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
) -> Method:
  """Builds DNLL: equations 18-19 (F-D1), the weight by F-D7.

  Args:
    tools: what it is built from; `strong` is the view that is learnt from.
    terms: further terms, on the strong view of either network.
    selection: `ep` draws negative labels uniformly, `epm` by the learner's
      own mistakes (section 3.5, F-D6).
    count: m, negative labels an image, 1 to K - 1.
    unsupervised: `cross` (taught by the other), `self` or `both` (F-D1).
    weight: of the negative labels.
    ramp: its ramp, see `schedules.ramped`.
    ramp_steps: length of the ramp.
    hold_steps: steps between which the weight stays the same.
    decay: of the average that an error-perception matrix is.
  """
  loss = dnll_loss(
    tools,
    selection=selection,
    count=count,
    decay=decay,
    weight=schedules.ramped(
      weight=weight, ramp=ramp, ramp_steps=ramp_steps, hold_steps=hold_steps
    ),
    parts=_UNSUPERVISED[unsupervised],
  )
  loss = two_networks.add_terms(loss, terms_lib.from_config(terms))
  start = two_networks.init(tools)

  def init(key: Key) -> State:
    state = start(key)
    if selection == 'ep':
      return state
    size = _classes(tools, state)
    tables = {
      table_slot(n): jnp.zeros((size, size)) for n in two_networks.NAMES
    }
    return state.replace(slots={**state.slots, **tables})

  step = two_networks.descend(loss, tools.tx)
  return Method(
    init,
    combinators.finish_step(step, tools),
    two_networks.predict(tools),
    terms_lib.side_tables(terms),
    recompute=two_networks.recompute(tools),
  )


def _classes(tools: Tools, state: State) -> int:
  """K, from the shape of what the network gives."""
  image = jnp.zeros((1, *tools.image_shape))
  outputs, _ = jax.eval_shape(
    functools.partial(tools.model.apply, train=False),
    state.params['a'],
    state.stats['a'],
    image,
  )
  return outputs.logits.shape[-1]
