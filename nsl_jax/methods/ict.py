"""ICT: predictions for mixed images match mixed predictions of a teacher (Verma
et al., "Interpolation Consistency Training for Semi-Supervised Learning",
2019).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import losses, options, schedules, terms as terms_lib
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
  Schedule,
  State,
  Stats,
  TermInputs,
)


def ict_loss(components: Components, *, weight: Schedule, alpha: float) -> Loss:
  """Cross-entropy on labeled images plus `weight` times the squared error
  between the student's prediction for mixed unlabeled images and the mixed
  predictions of the teacher, which runs in train mode.
  """

  def loss(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    keys = jax.random.split(key, 6)

    def forward(
      params: Params, images: Array, key: Key
    ) -> tuple[Outputs, Stats]:
      return components.model.apply(
        params, state.stats, images, train=True, key=key
      )

    labeled, stats = forward(
      params, components.augment(batch.x, keys[0]), keys[1]
    )
    u = components.augment(batch.u, keys[2])
    teacher, _ = forward(state.slots[combinators.TEACHER], u, keys[3])
    probs = jax.lax.stop_gradient(jax.nn.softmax(teacher.logits))
    ratio = mixing.mix_ratio(keys[4], alpha, u.shape[0], per_batch=False)
    target_probs = mixing.mix(probs, probs[::-1], ratio)
    student, _ = forward(params, mixing.mix(u, u[::-1], ratio), keys[5])
    parts = {
      'cross_entropy': losses.cross_entropy(labeled.logits, batch.y).mean(),
      'ict': losses.squared_error(student.logits, target_probs).mean(),
      'ict_weight': jnp.asarray(weight(state.step)),
    }
    inputs = TermInputs(student.logits, target_probs, normalizer=u.shape[0])
    aux = Aux(inputs, stats, state.slots, parts)
    return parts['cross_entropy'] + parts['ict_weight'] * parts['ict'], aux

  return loss


@options.declare(alpha='> 0', decay='[0, 1)', **schedules.RAMPED)
def build(
  components: Components,
  *,
  terms: Mapping[str, Mapping[str, Any]],
  weight: float = 1000.0,
  ramp: str = 'linear',
  ramp_steps: int = 122_880,
  alpha: float = 0.75,
  decay: float = 0.999,
) -> Method:
  """Builds ICT; the defaults are those of MixMatch's baseline on CIFAR-10.

  Args:
    components: network, optimizer and augmentation.
    terms: terms over the mixed unlabeled rows.
    weight: weight of the unlabeled loss.
    ramp: ramp of the weight.
    ramp_steps: length of the ramp, 0.4 of that run; what no config sets is a
      quarter of the run at most.
    alpha: parameter of the Beta distribution of mixing ratios.
    decay: decay of the teacher's weights.
  """
  terms_lib.refuse_single_images('ict', terms)
  loss = ict_loss(
    components,
    weight=schedules.ramped(weight=weight, ramp=ramp, ramp_steps=ramp_steps),
    alpha=alpha,
  )
  loss = combinators.add_terms(loss, terms_lib.from_config(terms))
  recipe = combinators.SingleNetworkMethod(
    loss,
    (combinators.ema_update(combinators.TEACHER, decay),),
    (combinators.TEACHER,),
  )
  return combinators.to_method(recipe, components)
