"""VAT: consistency under the worst small perturbation of an image (Miyato et
al., "Virtual Adversarial Training", 2018).
"""

import math
from typing import Any

import jax

from nsl_jax import errors, losses, options
from nsl_jax.terms import power_iteration
from nsl_jax.types import Array, Batch, ForwardPass, Key, Term, TermInputs

# 6 divided by the norm that whitened CIFAR-10 has by its deviation of 0.47.
_SHARE = 0.23
# Values of CIFAR-10 in NS3L's Table 1.
DEFAULTS: dict[str, Any] = {
  'weight': 0.3,
  'ramp': 'sigmoid',
  'ramp_steps': 50_000,
}


def needs_linearized_pass(*, mode: str = 'exact', **_: Any) -> bool:
  """Whether the term reads `ForwardPass.jvp`."""
  return mode == 'exact'


@options.declare(
  eps='> 0',
  mode=('exact', 'finite_difference'),
  xi='> 0',
  iterations='>= 1',
  kl_direction=('adversarial', 'clean'),
)
def build(
  *,
  eps: float | None = None,
  mode: str = 'exact',
  xi: float = 1e-6,
  iterations: int = 1,
  kl_direction: str = 'adversarial',
) -> Term:
  """The term.

  Args:
    eps: L2 norm of the perturbation of each normalized image; None for 0.23
      times the norm that the deviation of the batch's values gives an image,
      which is the 6 of CIFAR-10's whitened images.
    mode: `exact` takes the direction from the Fisher matrix at the clean view
      and perturbs that view; `finite_difference` is the code of Oliver et al.,
      where every pass draws a new augmentation (F-N6).
    xi: norm of the probing step of `finite_difference`.
    iterations: power iterations.
    kl_direction: `adversarial` is KL(p_adv || p_clean) as in the code of Oliver
      et al., `clean` is KL(p_clean || p_adv) as in Miyato's (F-N6). The clean
      prediction is constant in both.
  """

  def length(images: Array) -> Array | float:
    if eps is not None:
      return eps
    return _SHARE * math.sqrt(math.prod(images.shape[1:])) * images.std()

  def adversarial(forward_pass: ForwardPass, start: Array, key: Key) -> Array:
    """Logits of all rows under the adversarial perturbation."""
    size = length(forward_pass.images)
    logits = jax.lax.stop_gradient(forward_pass.logits)
    if mode == 'exact':
      assert forward_pass.jvp is not None  # needs_linearized_pass asks for it
      worst = power_iteration.exact_adversarial_direction(
        forward_pass.jvp, logits, start, iterations=iterations
      )
      return forward_pass.apply_same_dropout(forward_pass.view + size * worst)
    probe, last = jax.random.split(key)

    def drift(change: Array, key: Key) -> Array:
      perturbed_logits = forward_pass.apply_new_augmentation(
        forward_pass.images + change, key
      )
      return losses.kl_divergence(logits, perturbed_logits).mean()

    worst = power_iteration.adversarial_direction(
      drift, start, probe, xi=xi, iterations=iterations
    )
    return forward_pass.apply_new_augmentation(
      forward_pass.images + size * worst, last
    )

  def term(inputs: TermInputs, batch: Batch, key: Key) -> Array:
    if inputs.forward_pass is None:
      raise errors.UserError('this method has no first pass for vat')
    forward_pass = inputs.forward_pass
    draw, passes = jax.random.split(key)
    start = jax.random.normal(
      draw, forward_pass.images.shape, forward_pass.images.dtype
    )
    perturbed_logits = forward_pass.unlabeled(
      adversarial(forward_pass, start, passes)
    )
    fixed = jax.lax.stop_gradient(forward_pass.unlabeled(forward_pass.logits))
    if kl_direction == 'adversarial':
      return losses.kl_divergence(perturbed_logits, fixed)
    return losses.kl_divergence(fixed, perturbed_logits)

  return term
