"""Methods that differ from FixMatch by their rule only, see
`compose/weak_strong.py`; not a method itself.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from nsl_jax import errors, options, terms as terms_lib
from nsl_jax.compose import combinators, weak_strong
from nsl_jax.types import Components


@options.declare(
  weight='>= 0',
  temperature='> 0',
  decay='[0, 1)',
  mix=weak_strong.MIXES,
  alpha='> 0',
  logit_adjustment='>= 0',
)
def build(
  components: Components,
  rule: weak_strong.Rule,
  name: str,
  *,
  terms: Mapping[str, Mapping[str, Any]],
  weight: float = 1.0,
  hard: bool = True,
  temperature: float = 0.5,
  decay: float = 0.999,
  mix: str = 'none',
  alpha: float = 1.0,
  logit_adjustment: float = 0.0,
) -> combinators.SingleNetworkMethod:
  """Builds the method of a rule.

  Args:
    components: network, optimizer and augmentation; `strong` is the view that
      is trained on.
    rule: the rule.
    name: name of the method.
    terms: further terms, on the strong views; their second passes see new weak
      views.
    weight: weight of the unlabeled loss.
    hard: the label of an image is its most probable class; otherwise its
      sharpened probabilities.
    temperature: of the sharpening, where labels are not hard.
    decay: decay of the moving averages of predictions.
    mix: whether each strong view and its label are mixed with those of another
      image, by `mixup` or `cutmix`.
    alpha: parameter of the Beta distribution of mixing ratios.
    logit_adjustment: factor of the log of the class shares of the labeled
      images, which is added to their logits in training (Menon et al. 2021),
      for classes of unequal size; 0 for none.

  Raises:
    errors.UserError: for a term that cannot be applied to mixed rows, or
      `cutmix` of features.
  """
  if mix == 'cutmix' and components.image_shape[:2] == (1, 1):
    raise errors.UserError(
      'mix=cutmix needs images, and these data are features: use mix=mixup'
    )
  if mix != 'none':
    terms_lib.refuse_single_images(f'mix={mix}', terms)
  for term_name, fields in rule.terms.items():
    terms = terms_lib.with_own(term_name, fields, terms, method=name)
  loss = weak_strong.weak_strong_loss(
    components,
    rule,
    name=name,
    weight=weight,
    hard=hard,
    temperature=temperature,
    decay=decay,
    mix=mix,
    alpha=alpha,
    logit_adjustment=logit_adjustment,
    linearize=terms_lib.needs_linearized_pass(terms),
  )
  return combinators.SingleNetworkMethod(
    combinators.add_terms(loss, terms_lib.from_config(terms)),
    per_image_tables=terms_lib.per_image_tables(terms),
    further_slots=lambda: weak_strong.initial_slots(
      rule, combinators.num_outputs(components), components.num_images
    ),
  )


def builder(
  rule: Callable[..., weak_strong.Rule],
) -> Callable[..., combinators.SingleNetworkMethod]:
  """The function `build` of a method, with the options of its rule and those
  that all methods of a rule share.

  Args:
    rule: `(**options) -> Rule`, in the file of the method.
  """
  rule_options = inspect.signature(rule).parameters
  name = rule.__module__.rpartition('.')[2]

  def build_method(
    components: Components,
    *,
    terms: Mapping[str, Mapping[str, Any]],
    **fields: Any,
  ) -> combinators.SingleNetworkMethod:
    options.check(build_method, fields, f'{name} ')
    built_rule = rule(**{k: fields.pop(k) for k in rule_options if k in fields})
    method: combinators.SingleNetworkMethod = build(
      components, built_rule, name, terms=terms, **fields
    )
    return method

  shared = inspect.signature(build).parameters
  arguments = {k: p for k, p in shared.items() if k not in ('rule', 'name')}
  build_method.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [*arguments.values(), *rule_options.values()]
  )
  build_method.__doc__ = f'{_before_args(rule)}\n\nArgs:\n' + '\n'.join(
    f'  {option.name}: {option.doc}'
    for part in (build, rule)
    for option in options.of(part).values()
  )
  build_method.option_limits = {  # type: ignore[attr-defined]
    **build.option_limits,
    **getattr(rule, 'option_limits', {}),
  }
  build_method.__module__ = rule.__module__
  return build_method


def _before_args(part: Callable[..., Any]) -> str:
  return re.split(r'\n\n(?:Args|Returns):', inspect.getdoc(part) or '')[0]
