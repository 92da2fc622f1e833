"""FixMatch's structure: a rule makes a label and its weight from the prediction
for a weak view of an unlabeled image, and a strong view is trained on them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nsl_jax import errors, losses
from nsl_jax.compose import forward, mixing
from nsl_jax.types import (
  Array,
  Aux,
  Batch,
  Components,
  ForwardPass,
  Key,
  Loss,
  Params,
  State,
  Stats,
  TermInputs,
  Views,
)

# Slots that every method of this structure keeps.
MEAN, HISTOGRAM = 'prediction_mean', 'prediction_histogram'
_ALIGNED = 'alignment_mean'  # slot of a rule that aligns its predictions
ALIGNMENTS = ('none', 'uniform', 'labels')
MIXES = ('none', 'mixup', 'cutmix')
_SMALL = 1e-6


class Predictions(NamedTuple):
  """What a rule sees of a step; all of it is constant.

  Attributes:
    probs: f32[N, K], predictions for the weak views.
    mean: f32[K], moving average of their means, this step included; starts at
      1 / K.
    histogram: f32[K], the same of the shares of the predicted classes.
    label_shares: f32[K], of the labeled images; None where they are not known.
    rows: i32[N], rows of the images in the data.
    num_unlabeled: i32[], number of unlabeled images in the data; None where it
      is not known.
    slots: all slots of the method.
    step: i32[].
    decay: decay of the moving averages.
  """

  probs: Array
  mean: Array
  histogram: Array
  label_shares: Array | None
  rows: Array
  num_unlabeled: Array | None
  slots: Mapping[str, Any]
  step: Array
  decay: float


class Targets(NamedTuple):
  """What a rule makes of the predictions.

  Attributes:
    probs: f32[N, K], of which the label is made.
    weights: f32[N] in [0, 1], weight of the label.
    slots: new values of slots.
  """

  probs: Array
  weights: Array
  slots: dict[str, Array]


class Rule(NamedTuple):
  """Rule of a method: from predictions to targets.

  Attributes:
    targets: the rule.
    slots: `(K, number of images in the data) -> slots` before the first step.
    terms: terms that belong to the method, with their options.
  """

  targets: Callable[[Predictions], Targets]
  slots: Callable[[int, int], dict[str, Array]] = lambda classes, images: {}
  terms: Mapping[str, Mapping[str, Any]] = {}


def moving_average(old: Array, new: Array, decay: float) -> Array:
  """decay * old + (1 - decay) * new."""
  average: Array = optax.incremental_update(new, old, 1.0 - decay)
  return average


def known_shares(shares: Array | None, use: str) -> Array:
  """The class shares of the labeled images.

  Raises:
    errors.UserError: if they are not known; `use` is what needs them.
  """
  if shares is None:
    raise errors.UserError(
      f'{use} needs the class shares of the labeled images: set '
      'Data.label_shares'
    )
  return shares


def alignment_slots(kind: str, classes: int) -> dict[str, Array]:
  """The slots of `align` before the first step."""
  return {} if kind == 'none' else {_ALIGNED: jnp.zeros(classes)}


def align(
  kind: str, predictions: Predictions
) -> tuple[Array, dict[str, Array]]:
  """Predictions scaled so that their mean is near a target distribution.

  Distribution alignment of ReMixMatch (Berthelot et al. 2020), with a moving
  average of the mean that starts at the first batch.

  Args:
    kind: `none`; `uniform`, the target is 1 / K; `labels`, it is the class
      shares of the labeled images.
    predictions: the predictions.

  Returns:
    f32[N, K], whose rows sum to 1, and the new slots.
  """
  if kind == 'none':
    return predictions.probs, {}
  newest = predictions.probs.mean(0)
  mean = jnp.where(
    predictions.step == 0,
    newest,
    moving_average(predictions.slots[_ALIGNED], newest, predictions.decay),
  )
  classes = predictions.probs.shape[-1]
  target = jnp.full(classes, 1.0 / classes)
  if kind == 'labels':
    target = known_shares(predictions.label_shares, 'dist_align=labels')
  scaled = predictions.probs * ((target + _SMALL) / (mean + _SMALL))[None]
  return scaled / scaled.sum(-1, keepdims=True), {_ALIGNED: mean}


def initial_slots(rule: Rule, classes: int, images: int) -> dict[str, Array]:
  """All slots before the first step."""
  even = jnp.full(classes, 1.0 / classes, jnp.float32)
  return {MEAN: even, HISTOGRAM: even, **rule.slots(classes, images)}


def label_of(probs: Array, *, hard: bool, temperature: float) -> Array:
  """f32[N, K]: the most probable class, or the sharpened probabilities."""
  if hard:
    return jax.nn.one_hot(probs.argmax(-1), probs.shape[-1], dtype=probs.dtype)
  return mixing.sharpen(probs, temperature)


class Mix(NamedTuple):
  """Strong views after mixing, and how to mix what belongs to them.

  Attributes:
    images: f32[N, H, W, C].
    other: i32[N], the image that each is mixed with.
    ratio: f32[N], the share that remains of each.
  """

  images: Array
  other: Array
  ratio: Array

  def of(self, rows: Array) -> Array:
    """Rows f32[N, ...] that belong to the images, mixed like them."""
    return mixing.mix(rows, rows[self.other], self.ratio)


def mixed_views(kind: str, images: Array, key: Key, *, alpha: float) -> Mix:
  """Mixes each image with another one of the batch.

  Args:
    kind: `mixup`, or `cutmix`: a box of the other image, of the image's shape
      and anywhere inside (Yun et al., "CutMix", 2019).
    images: f32[N, H, W, C].
    key: typed key.
    alpha: parameter of the Beta distribution of mixing ratios, of which the
      larger share remains.
  """
  order, ratio_key, place = jax.random.split(key, 3)
  rows = images.shape[0]
  partner = jax.random.permutation(order, rows)
  ratio = mixing.mix_ratio(ratio_key, alpha, rows, per_batch=False)
  partners = images[partner]
  if kind == 'mixup':
    return Mix(mixing.mix(images, partners, ratio), partner, ratio)
  hits, area = [], jnp.ones(rows)
  for length, axis_key in zip(images.shape[1:3], jax.random.split(place)):
    side = jnp.floor(jnp.sqrt(1.0 - ratio) * length)
    free = length - side + 1.0
    start = jnp.floor(jax.random.uniform(axis_key, (rows,)) * free)[:, None]
    pixel = jnp.arange(length, dtype=start.dtype)[None]
    hits.append((pixel >= start) & (pixel < start + side[:, None]))
    area = area * side / length
  inside = hits[0][:, :, None, None] & hits[1][:, None, :, None]
  return Mix(jnp.where(inside, partners, images), partner, 1.0 - area)


def weak_strong_loss(
  components: Components,
  rule: Rule,
  *,
  name: str,
  weight: float,
  hard: bool,
  temperature: float,
  decay: float,
  mix: str = 'none',
  alpha: float = 1.0,
  logit_adjustment: float = 0.0,
  linearize: bool = False,
) -> Loss:
  """Mean cross-entropy of the labeled images plus `weight` times the mean over
  unlabeled images of weight times cross-entropy of the strong view with the
  label of the weak one (FixMatch equations 3 and 4).

  Labeled images, weak and strong views form one batch, as in FixMatch's and
  USB's code: they share the statistics of batch normalization. A network
  without statistics sees the weak views in a separate pass, which gives the
  same numbers (with dropout: others, drawn alike) without their gradient.

  Args:
    components: network and views; `strong` is the view that is trained on.
    rule: makes the targets.
    name: of the method, for messages.
    weight: weight of the unlabeled loss.
    hard: see `label_of`.
    temperature: see `label_of`.
    decay: decay of the moving averages in `Predictions`.
    mix: whether to mix each strong view, and its target, with that of another
      image: one of `MIXES`.
    alpha: parameter of the Beta distribution of mixing ratios.
    logit_adjustment: factor of the log of the class shares of the labeled
      images, which is added to their logits (Menon et al. 2021); 0 for none.
    linearize: linearize the pass, for `ForwardPass.jvp`.
  """
  strong_view = components.strong or components.augment

  def loss(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    if not batch.u.shape[0]:
      raise errors.UserError(
        f'{name} needs unlabeled images: set config.batch.unlabeled'
      )
    *view_keys, mixing_key, passing = jax.random.split(key, 5)
    x = components.augment(batch.x, view_keys[0])
    weak = components.augment(batch.u, view_keys[1])
    views = Views(x, strong_view(batch.u, view_keys[2]), weak, batch.y)
    mixed, trained_on = None, views
    if mix != 'none':
      mixed = mixed_views(mix, views.student_view, mixing_key, alpha=alpha)
      trained_on = views._replace(student_view=mixed.images)
    logits = _forward(
      components, params, state, batch, trained_on, passing, linearize=linearize
    )
    predictions = see(state, batch, jax.lax.stop_gradient(logits.weak), decay)
    targets = rule.targets(predictions)
    label = label_of(targets.probs, hard=hard, temperature=temperature)
    label = targets.weights[:, None] * label
    probs, weights = targets.probs, targets.weights
    if mixed is not None:
      label, probs, weights = map(mixed.of, (label, probs, weights))
    labeled = logits.labeled
    if logit_adjustment:
      shares = known_shares(batch.label_shares, 'logit_adjustment')
      labeled += logit_adjustment * jnp.log(jnp.maximum(shares, _SMALL))[None]
    parts = {
      'cross_entropy': losses.cross_entropy(labeled, batch.y).mean(),
      'strong_view': losses.cross_entropy(logits.strong, label).mean(),
      'confident': targets.weights.mean(),
    }
    averages = {MEAN: predictions.mean, HISTOGRAM: predictions.histogram}
    single = mixed is None  # whether each row is one image
    second_pass = forward.second_pass_of(components, params, state.stats, batch)
    inputs = TermInputs(
      logits.strong,
      target_probs=probs,
      normalizer=batch.u.shape[0],
      consistency_u=logits.strong_pass.unlabeled(
        logits.strong_pass.consistency
      ),
      second_pass=second_pass if single else None,
      forward_pass=logits.strong_pass if single else None,
      weights=weights,
      prediction_mean=predictions.mean,
      prediction_histogram=predictions.histogram,
    )
    slots = {**state.slots, **averages, **targets.slots}
    aux = Aux(inputs, logits.stats, slots, parts, views)
    return parts['cross_entropy'] + weight * parts['strong_view'], aux

  return loss


class _Logits(NamedTuple):
  """Logits of a step, with gradient.

  Attributes:
    labeled: f32[B_l, K].
    weak: f32[B_u, K].
    strong: f32[B_u, K].
    strong_pass: the pass of the labeled images and the strong views.
    stats: the updated statistics.
  """

  labeled: Array
  weak: Array
  strong: Array
  strong_pass: ForwardPass
  stats: Stats


def _forward(
  components: Components,
  params: Params,
  state: State,
  batch: Batch,
  views: Views,
  key: Key,
  *,
  linearize: bool,
) -> _Logits:
  """The passes of a step, see `weak_strong_loss`."""
  labeled, count = batch.x.shape[0], batch.u.shape[0]
  noise, weak_noise = jax.random.split(key)
  together = bool(jax.tree.leaves(state.stats))
  parts = [views.teacher_view] * together + [views.student_view]
  strong_pass, stats = forward.perturbable_pass(
    components,
    params,
    state.stats,
    jnp.concatenate([batch.x, *[batch.u] * len(parts)]),
    jnp.concatenate([views.x, *parts]),
    noise,
    linearize=linearize,
    unlabeled=lambda rows: rows[-count:],
  )
  logits = strong_pass.logits
  weak = logits[labeled : labeled + count]
  if not together:
    outputs, _ = components.model.apply(
      jax.lax.stop_gradient(params),
      state.stats,
      views.teacher_view,
      train=True,
      key=weak_noise,
    )
    weak = outputs.logits
  return _Logits(logits[:labeled], weak, logits[-count:], strong_pass, stats)


def see(state: State, batch: Batch, logits: Array, decay: float) -> Predictions:
  """What a rule sees, with the moving averages after this step.

  Args:
    state: the state before the step.
    batch: for the rows of the images in the data.
    logits: f32[N, K] of the weak views, constant.
    decay: of the moving averages.
  """
  probs = jax.nn.softmax(logits)
  classes = probs.shape[-1]
  predicted = jax.nn.one_hot(probs.argmax(-1), classes, dtype=probs.dtype)
  slots = state.slots
  return Predictions(
    probs=probs,
    mean=moving_average(slots[MEAN], probs.mean(0), decay),
    histogram=moving_average(slots[HISTOGRAM], predicted.mean(0), decay),
    label_shares=batch.label_shares,
    rows=batch.u_index,
    num_unlabeled=batch.num_unlabeled,
    slots=slots,
    step=state.step,
    decay=decay,
  )
