"""ICT: the prediction for a mixture is the mixture of a teacher's."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsl_jax import (
    compose, losses, perturb, schedules, term_configs, terms as terms_lib,
)
from nsl_jax.types import (
    Array, Aux, Batch, Key, Loss, Method, Params, Schedule, State, Tools,
)

# CIFAR-10 as in MixMatch's baselines: the warm-up is 0.4 of the run.
DEFAULTS: dict[str, Any] = {
    'weight': 1000.0, 'ramp': 'linear', 'ramp_steps': 122_880, 'alpha': 0.75,
    'decay': 0.999, 'terms': {},
}


def ict_loss(tools: Tools, *, weight: Schedule, alpha: float) -> Loss:
  """Cross-entropy on labelled images plus `weight` times the squared error
  between the student's prediction for mixed unlabelled images and the mixed
  predictions of the teacher, which runs in train mode.
  """
  def loss(
      params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    keys = jax.random.split(key, 6)

    def forward(params: Params, images: Array, key: Key):
      return tools.model.apply(
          params, state.stats, images, train=True, key=key
      )

    labelled, stats = forward(
        params, tools.augment(batch.x, keys[0]), keys[1]
    )
    u = tools.augment(batch.u, keys[2])
    teacher, _ = forward(state.slots[terms_lib.TEACHER], u, keys[3])
    probs = jax.lax.stop_gradient(jax.nn.softmax(teacher.logits))
    ratio = perturb.mix_ratio(keys[4], alpha, u.shape[0], per_batch=False)
    belief = perturb.mix(probs, probs[::-1], ratio)
    student, _ = forward(
        params, perturb.mix(u, u[::-1], ratio), keys[5]
    )
    parts = {
        'cross_entropy': losses.cross_entropy(
            labelled.logits, batch.y).mean(),
        'ict': losses.squared_error(student.logits, belief).mean(),
        'ict_weight': jnp.asarray(weight(state.step)),
    }
    aux = Aux(
        logits_u=student.logits, belief_u=belief, total=u.shape[0],
        again=None, stats=stats, slots=state.slots, metrics=parts,
    )
    return parts['cross_entropy'] + parts['ict_weight'] * parts['ict'], aux

  return loss


def build(
    tools: Tools, *, terms: Mapping[str, Mapping[str, Any]], weight: float,
    ramp: str, ramp_steps: int, alpha: float, decay: float,
) -> Method:
  """Builds ICT; `decay` is the teacher's, the rest as in MixMatch."""
  term_configs.refuse_single_images('ict', terms)
  loss = ict_loss(
      tools, weight=schedules.weight(weight, ramp, ramp_steps), alpha=alpha
  )
  loss = compose.add_terms(loss, term_configs.from_config(terms))
  recipe = compose.Recipe(
      loss, (compose.follow(terms_lib.TEACHER, decay),), (terms_lib.TEACHER,)
  )
  return compose.method_of(recipe, tools)
