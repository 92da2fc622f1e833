"""Dual Student: two networks, each a teacher where it is the more stable (Ke
et al. 2019); with DNLL's negative labels where it is not.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nsl_jax import (
    compose, errors, losses, pair, perception, schedules, term_configs,
)
from nsl_jax.types import (
    Array, Aux, Batch, Key, Method, Outputs, Schedule, Tools,
)

# CIFAR-10, epochs of 320 steps.
DEFAULTS: dict[str, Any] = {
    'consistency': 10.0, 'stabilisation': 100.0, 'tie': 0.01,
    'threshold': 0.8, 'ramp': 'sigmoid', 'ramp_steps': 1600,
    'hold_steps': 320, 'terms': {},
}
_VIEWS = dict(zip(pair.NAMES, (0, 1)))  # which of the two a network learns on


class Stability(NamedTuple):
  """How far a network's prediction moves between two views of an image.

  Attributes:
    stable: bool[N], the same class on both views, confident on one of them.
    drift: f32[N], mean over classes of the squared difference.
  """

  stable: Array
  drift: Array


def stability(
    logits: Array, consistency: Array, elsewhere: Array, *, threshold: float
) -> Stability:
  """Stability of a network on its images.

  Args:
    logits: f32[N, K], class head on the view that it learns on.
    consistency: f32[N, K], second head on the same view.
    elsewhere: f32[N, K], class head on the other view.
    threshold: a probability above it is confident.
  """
  here, there = jax.nn.softmax(logits), jax.nn.softmax(elsewhere)
  confident = jnp.maximum(here.max(-1), there.max(-1)) > threshold
  drift = jnp.mean((jax.nn.softmax(consistency) - there) ** 2, axis=-1)
  stable = (here.argmax(-1) == there.argmax(-1)) & confident
  return jax.lax.stop_gradient(Stability(stable, drift))


def learns_from(own: Stability, others: Stability) -> Array:
  """bool[N]: where a network takes the other's prediction as its target."""
  better = ~own.stable | (others.drift <= own.drift)
  return others.stable & better


class _Negatives(NamedTuple):
  """DNLL's part: see `build`."""

  size: int
  replace: bool
  weight: Schedule


def dual_student_loss(
    tools: Tools, *, consistency: Schedule, stabilisation: Schedule,
    tie: float, threshold: float, negatives: _Negatives | None, batched: bool,
) -> pair.PairLoss:
  """Of either network: cross-entropy, ties between its heads, consistency with
  itself on the other view, stabilisation by the other network.

  All images of a batch go through a network together, in two views: with
  gradient on its own, without on the other's, and each moves its statistics.
  Every sum is divided by the number of all images.
  """
  apply = pair.forward(tools, batched=batched)

  def loss(params, state, batch, key):
    if not batch.u.shape[0]:
      raise errors.UserError(
          'dual_student needs unlabelled images: set config.batch.unlabelled'
      )
    *views, learn, look, draws = jax.random.split(key, 5)
    images = jnp.concatenate([batch.x, batch.u])
    seen = [tools.augment(images, view) for view in views]
    own = {n: seen[at] for n, at in _VIEWS.items()}
    swapped = {n: own[pair.other(n)] for n in pair.NAMES}
    outputs, stats = apply(params, state.stats, own, learn)
    elsewhere, stats = apply(  # in train mode too, as released (F-D20)
        *jax.lax.stop_gradient((params, stats)), swapped, look
    )
    values, aux = {}, {}
    cut = batch.x.shape[0]
    for n, draw in pair.keys(draws).items():
      values[n], metrics = learnt(
          n, outputs, elsewhere, batch, state.step, draw
      )
      aux[n] = Aux(
          logits_u=outputs[n].logits[cut:],
          belief_u=jax.nn.softmax(elsewhere[n].logits[cut:]),
          total=images.shape[0], stats=stats[n], slots={},
          metrics=metrics, consistency_u=outputs[n].consistency[cut:],
          again=pair.another_pass(tools, params[n], state.stats[n], batch),
      )
    return values, aux

  def learnt(
      name: str, outputs: Mapping[str, Outputs],
      elsewhere: Mapping[str, Outputs], batch: Batch, step: Array, key: Key,
  ) -> tuple[Array, dict[str, Array]]:
    """The loss of one network from what both made of the batch."""
    cut, rival = batch.x.shape[0], pair.other(name)
    own = outputs[name]
    rows = own.logits.shape[0]
    there = jax.nn.softmax(elsewhere[name].logits)
    # A row may learn from the other network only where it has no label.
    states = {
        n: stability(
            o.logits[cut:], o.consistency[cut:], elsewhere[n].logits[cut:],
            threshold=threshold,
        ) for n, o in outputs.items()
    }
    taught = learns_from(states[name], states[rival])
    target = jax.nn.softmax(outputs[rival].logits[cut:])
    second = own.consistency[cut:]
    metrics = {
        'cross_entropy': losses.cross_entropy(
            own.logits[:cut], batch.y).sum() / rows,
        'tie': jnp.mean((own.logits - own.consistency) ** 2),
        'consistency': losses.squared_error(own.consistency, there).mean(),
        'stabilisation': jnp.where(
            taught, losses.squared_error(second, target), 0.0).sum() / rows,
        'consistency_weight': jnp.asarray(consistency(step)),
        'stabilisation_weight': jnp.asarray(stabilisation(step)),
    }
    value = (
        metrics['cross_entropy'] + tie * metrics['tie']
        + metrics['consistency_weight'] * metrics['consistency']
        + metrics['stabilisation_weight'] * metrics['stabilisation']
    )
    if negatives is not None:
      negative = perception.draw(
          key, None, elsewhere[rival].logits[cut:].argmax(-1),
          second.shape[-1], negatives.size, replace=negatives.replace,
      )
      each = jnp.where(taught, 0.0, losses.each_not(second, negative))
      metrics['dnll'] = each.sum() / jnp.maximum((~taught).sum(), 1)
      metrics['dnll_weight'] = jnp.asarray(negatives.weight(step))
      value = value + metrics['dnll_weight'] * metrics['dnll']
    return value, metrics

  return loss


def build(
    tools: Tools, *, terms: Mapping[str, Mapping[str, Any]],
    consistency: float, stabilisation: float, tie: float, threshold: float,
    ramp: str, ramp_steps: int, hold_steps: int = 0,
    negatives: Mapping[str, Any] | None = None, batched: bool = False,
) -> Method:
  """Builds Dual Student.

  Args:
    tools: what it is built from. With a network of one head the second head
      is the first.
    terms: further terms, on the unlabelled images of either network.
    consistency: weight of agreement with itself on another view.
    stabilisation: weight of agreement with the other network.
    tie: weight of the squared difference of the two heads.
    threshold: see `stability`.
    ramp: ramp of both agreements, see `schedules.weight`.
    ramp_steps: length of the ramp.
    hold_steps: steps between which the weights stay the same.
    negatives: DNLL on top (section 4.4 and the released code): an image that
      the other network does not teach gives `count` negative labels, drawn
      among the classes that the other does not predict on the view of this
      one. Fields `count`, `weight`, `ramp`, `ramp_steps`, and if wanted
      `hold_steps`, `replace`.
    batched: both networks as one computation, see `pair.forward`.

  Raises:
    errors.UserError: for an unknown field or a number out of range.
  """
  if not 0.0 <= threshold <= 1.0:
    raise errors.UserError(
        f'dual_student threshold={threshold}: must be in [0, 1]'
    )
  if not tie >= 0.0:
    raise errors.UserError(f'dual_student tie={tie}: must be >= 0')
  ramped = lambda value: schedules.weight(value, ramp, ramp_steps, hold_steps)
  loss = dual_student_loss(
      tools, consistency=ramped(consistency),
      stabilisation=ramped(stabilisation), tie=tie, threshold=threshold,
      negatives=_negatives(negatives) if negatives else None,
      batched=batched,
  )
  loss = pair.add_terms(loss, term_configs.from_config(terms))
  step = pair.descend(loss, tools.tx)
  return Method(
      pair.init(tools), compose.finish_step(step, tools), pair.predict(tools),
      term_configs.side_tables(terms), recompute=pair.recompute(tools),
  )


def _negatives(fields: Mapping[str, Any]) -> _Negatives:
  known = {'hold_steps': 0, 'replace': False, **fields}
  wanted = ('count', 'replace', 'weight', 'ramp', 'ramp_steps', 'hold_steps')
  wrong = set(wanted) ^ set(known)
  if wrong:
    word = min(wrong)
    raise errors.UserError(
        f'dual_student negatives lacks {word}' if word in wanted else
        f'dual_student negatives.{word}: {errors.did_you_mean(word, wanted)}'
    )
  schedule = schedules.weight(
      known['weight'], known['ramp'], known['ramp_steps'],
      known['hold_steps'],
  )
  return _Negatives(known['count'], known['replace'], schedule)
