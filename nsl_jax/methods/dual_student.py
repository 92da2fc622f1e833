"""Dual Student: of two networks the more stable one teaches (Ke et al., "Dual
Student: Breaking the Limits of the Teacher in Semi-supervised Learning", 2019);
optionally DNLL's negative labels for the other images.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
  Outputs,
  Schedule,
  State,
  TermInputs,
)

_VIEWS = dict(
  zip(two_networks.NAMES, (0, 1))
)  # the view that a network is trained on


class Stability(NamedTuple):
  """Stability of a network's prediction between two views of an image.

  Attributes:
    stable: bool[N], same class on both views, and confident on at least one.
    drift: f32[N], mean over classes of the squared difference.
  """

  stable: Array
  drift: Array


def stability(
  logits: Array, consistency: Array, elsewhere: Array, *, threshold: float
) -> Stability:
  """Stability of a network on its images.

  Args:
    logits: f32[N, K], class head on the view that it is trained on.
    consistency: f32[N, K], second head on the same view.
    elsewhere: f32[N, K], class head on the other view.
    threshold: a larger probability is confident.
  """
  view_1, view_2 = jax.nn.softmax(logits), jax.nn.softmax(elsewhere)
  confident = jnp.maximum(view_1.max(-1), view_2.max(-1)) > threshold
  drift = jnp.mean((jax.nn.softmax(consistency) - view_2) ** 2, axis=-1)
  stable = (view_1.argmax(-1) == view_2.argmax(-1)) & confident
  return jax.lax.stop_gradient(Stability(stable, drift))


def learns_from(own: Stability, other: Stability) -> Array:
  """bool[N]: whether the prediction of the other network is the target."""
  better = ~own.stable | (other.drift <= own.drift)
  return other.stable & better


class _Negatives(NamedTuple):
  """Options of DNLL's negative labels, see `build`."""

  size: int
  weight: Schedule


def dual_student_loss(
  components: Components,
  *,
  consistency: Schedule,
  stabilization: Schedule,
  tie: float,
  threshold: float,
  negatives: _Negatives | None,
) -> two_networks.PairLoss:
  """For each network: cross-entropy, squared difference of its heads,
  consistency between its views, and stabilization by the other network.

  All images form one batch in two views: with gradient on the network's view,
  without on the other's. Both passes update the statistics, as in the released
  code (F-D20). Every sum is divided by the number of all images.
  """
  apply = two_networks.forward(components)

  def loss(
    params: two_networks.Pair, state: State, batch: Batch, key: Key
  ) -> tuple[dict[str, Array], dict[str, Aux]]:
    if not batch.u.shape[0]:
      raise errors.UserError(
        'dual_student needs unlabeled images: set config.batch.unlabeled'
      )
    *views, learn, look, draws = jax.random.split(key, 5)
    images = jnp.concatenate([batch.x, batch.u])
    both_views = [components.augment(images, view) for view in views]
    view_of = {n: both_views[at] for n, at in _VIEWS.items()}
    other_view_of = {
      n: view_of[two_networks.other(n)] for n in two_networks.NAMES
    }
    outputs, stats = apply(params, state.stats, view_of, learn)
    elsewhere, stats = apply(  # in train mode, as in the released code (F-D20)
      *jax.lax.stop_gradient((params, stats)), other_view_of, look
    )
    values, aux = {}, {}
    cut = batch.x.shape[0]
    for n, draw in two_networks.keys(draws).items():
      values[n], metrics = network_loss(
        n, outputs, elsewhere, batch, state.step, draw
      )
      inputs = TermInputs(
        outputs[n].logits[cut:],
        target_probs=jax.nn.softmax(elsewhere[n].logits[cut:]),
        normalizer=images.shape[0],
        consistency_u=outputs[n].consistency[cut:],
        second_pass=forward.second_pass_of(
          components, params[n], state.stats[n], batch
        ),
      )
      aux[n] = Aux(inputs, stats[n], {}, metrics)
    return values, aux

  def network_loss(
    name: str,
    outputs: Mapping[str, Outputs],
    elsewhere: Mapping[str, Outputs],
    batch: Batch,
    step: Array,
    key: Key,
  ) -> tuple[Array, dict[str, Array]]:
    """The loss of one network, from the outputs of both."""
    cut, rival = batch.x.shape[0], two_networks.other(name)
    network = outputs[name]
    rows = network.logits.shape[0]
    other_probs = jax.nn.softmax(elsewhere[name].logits)
    # Only unlabeled rows learn from the other network.
    states = {
      n: stability(
        o.logits[cut:],
        o.consistency[cut:],
        elsewhere[n].logits[cut:],
        threshold=threshold,
      )
      for n, o in outputs.items()
    }
    taught_by_other = learns_from(states[name], states[rival])
    target = jax.nn.softmax(outputs[rival].logits[cut:])
    second = network.consistency[cut:]
    metrics = {
      'cross_entropy': losses.cross_entropy(network.logits[:cut], batch.y).sum()
      / rows,
      'tie': jnp.mean((network.logits - network.consistency) ** 2),
      'consistency': losses.squared_error(
        network.consistency, other_probs
      ).mean(),
      'stabilization': jnp.where(
        taught_by_other, losses.squared_error(second, target), 0.0
      ).sum()
      / rows,
      'consistency_weight': jnp.asarray(consistency(step)),
      'stabilization_weight': jnp.asarray(stabilization(step)),
    }
    value = (
      metrics['cross_entropy']
      + tie * metrics['tie']
      + metrics['consistency_weight'] * metrics['consistency']
      + metrics['stabilization_weight'] * metrics['stabilization']
    )
    if negatives is not None:
      negative = error_perception.sample_negatives(
        key,
        None,
        elsewhere[rival].logits[cut:].argmax(-1),
        second.shape[-1],
        negatives.size,
      )
      per_network = jnp.where(
        taught_by_other, 0.0, losses.complementary_label_loss(second, negative)
      )
      metrics['negatives'] = per_network.sum() / jnp.maximum(
        (~taught_by_other).sum(), 1
      )
      metrics['negatives_weight'] = jnp.asarray(negatives.weight(step))
      value = value + metrics['negatives_weight'] * metrics['negatives']
    return value, metrics

  return loss


@options.declare(count='>= 1', **schedules.RAMPED)
def _negatives(
  *,
  count: int = 2,
  weight: float = 2.0,
  ramp: str = 'dnll',
  ramp_steps: int = 32_000,
  hold_steps: int = 320,
) -> _Negatives:
  """The `negatives` of `build`, by default as in the released code."""
  return _Negatives(
    count,
    schedules.ramped(
      weight=weight, ramp=ramp, ramp_steps=ramp_steps, hold_steps=hold_steps
    ),
  )


@options.declare(
  consistency='>= 0',
  stabilization='>= 0',
  tie='>= 0',
  threshold='[0, 1]',
  negatives=_negatives,
  **schedules.RAMPED,
)
def build(
  components: Components,
  *,
  terms: Mapping[str, Mapping[str, Any]],
  consistency: float = 10.0,
  stabilization: float = 100.0,
  tie: float = 0.01,
  threshold: float = 0.8,
  ramp: str = 'sigmoid',
  ramp_steps: int = 1600,
  hold_steps: int = 320,
  negatives: Mapping[str, Any] | None = None,
) -> Method:
  """Builds Dual Student; the defaults are those of CIFAR-10 with epochs of 320
  steps.

  Args:
    components: network, optimizer and augmentation. In a network with one head
      the second head is the first.
    terms: further terms, on the unlabeled images of each network.
    consistency: weight of the consistency between views.
    stabilization: weight of the consistency with the other network.
    tie: weight of the squared difference of the two heads.
    threshold: see `stability`.
    ramp: ramp of both consistency weights, see `schedules.ramped`.
    ramp_steps: length of the ramp.
    hold_steps: interval between changes of the weights.
    negatives: adds DNLL (its section 4.4 and released code): an image that the
      other network does not teach gets `count` negative labels, drawn from the
      classes that the other network does not predict on this network's view.
      Fields `count`, `weight`, `ramp`, `ramp_steps`, `hold_steps`.
  """
  ramped: Callable[[float], Schedule] = lambda value: schedules.ramped(
    weight=value, ramp=ramp, ramp_steps=ramp_steps, hold_steps=hold_steps
  )
  loss = dual_student_loss(
    components,
    consistency=ramped(consistency),
    stabilization=ramped(stabilization),
    tie=tie,
    threshold=threshold,
    negatives=None if negatives is None else _negatives(**negatives),
  )
  loss = two_networks.add_terms(loss, terms_lib.from_config(terms))
  step = two_networks.gradient_step(loss, components.tx)
  return Method(
    two_networks.init(components),
    combinators.finish_step(step, components),
    two_networks.predict(components),
    terms_lib.per_image_tables(terms),
    recompute=two_networks.recompute(components),
  )
