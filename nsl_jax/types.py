"""The types that every part shares; no logic.

Losses add, updates compose: a `Loss` may be summed with `Term`s because they
read the same `Aux`; an `Update` is a whole change of `State`, and updates are
run one after another. Networks, optimizers and augmentation reach a method as
the `Components` it is built from.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import struct

Array = jax.Array
Key = jax.Array
Params = Any
Stats = Any
Schedule = Callable[[Array | int], Array]
Metrics = dict[str, Array]


class Outputs(NamedTuple):
  """What one forward pass gives.

  Attributes:
    logits: f32[B, K], unnormalized class scores, or f32[B, P] coordinates of
      points, standardized.
    features: f32[B, D], input of the last dense layer.
    consistency: f32[B, K], logits of the second head; `logits` where the
      network has only one.
  """

  logits: Array
  features: Array
  consistency: Array


class Model(NamedTuple):
  """A network as two pure functions.

  Attributes:
    init: `(key, image_shape) -> (params, stats)`, image_shape `(H, W, C)`.
    apply: `(params, stats, images, *, train, key=None) -> (Outputs, stats)`;
      images f32[B, H, W, C]. With `train` batch normalization uses the batch
      and returns moved statistics; `key` seeds dropout, without one there is
      none.
    notes: `image_shape -> lines`, what is to be said of its initial weights;
      none unless they are given, see `models.weights.start_from`.
  """

  init: Callable[..., tuple[Params, Stats]]
  apply: Callable[..., tuple[Outputs, Stats]]
  notes: Callable[[tuple[int, int, int]], list[str]] = lambda image_shape: []


class Data(NamedTuple):
  """A training set as it lies on the device, passed to the step as argument.

  Attributes:
    images: u8[N, H, W, C], or f32[N, 1, 1, D] features; none where the images
      of each step come with its rows.
    labels: i32[N], -1 where unknown, or f32[N, P] points, standardized, NaN
      where unknown. Rows drawn as unlabeled never show theirs to a method.
    normalization: arrays that the normalization needs (means, whitening
      matrix), and what `Task.fit` found.
    per_image_tables: by name the tables with a row per image that a method
      needs.
    probe_images: test images u8[N, H, W, C] and their labels, of which a step
      reports the loss and learns nothing; None mostly.
  """

  images: Array
  labels: Array
  normalization: Mapping[str, Array]
  per_image_tables: Mapping[str, Array]
  probe_images: tuple[Array, Array] | None = None


class Batch(NamedTuple):
  """One step's images, normalized but not augmented.

  Attributes:
    x: f32[B_l, H, W, C] labeled images.
    y: i32[B_l] their classes, or f32[B_l, P] their points, standardized.
    u: f32[B_u, H, W, C] unlabeled images.
    u_index: i32[B_u], rows of `u` in the data.
    per_image_tables: rows of `Data.per_image_tables` at `u_index`.
    meta_x: f32[B_h, H, W, C], further labeled images on which a method
      evaluates its step; None if `config.batch.holdout` is not set.
    meta_y: as `y` for these.
    scale: f32[P], pixels in a unit of standardized points; None for classes.
    probe_images: `Data.probe_images`, normalized.
  """

  x: Array
  y: Array
  u: Array
  u_index: Array
  per_image_tables: Mapping[str, Array]
  meta_x: Array | None = None
  meta_y: Array | None = None
  scale: Array | None = None
  probe_images: tuple[Array, Array] | None = None


class State(struct.PyTreeNode):
  """All that training remembers.

  Attributes:
    step: i32[], advanced by the loop only.
    key: typed key of the run, never advanced; steps fold their number into it.
    params: what the optimizer trains.
    stats: batch-normalization statistics of the trained network.
    opt: optimizer state.
    slots: whatever else a method keeps, by name (an averaged network, say).
  """

  step: Array
  key: Key
  params: Params
  stats: Stats
  opt: optax.OptState
  slots: dict[str, Any]


class ForwardPass(NamedTuple):
  """A forward pass as a term sees it that perturbs images.

  Its N rows are those of the batch that went through the network together:
  the unlabeled ones, with the labeled ones before them if they were joined.

  Attributes:
    images: f32[N, H, W, C], not augmented.
    view: f32[N, H, W, C], augmented as the pass saw them.
    logits: f32[N, K], with gradient.
    consistency: f32[N, K], of the second head, with gradient.
    jvp: f32[N, H, W, C] -> f32[N, K], how the logits move with the view, to
      first order; None unless the method was built to give it.
    apply_same_dropout: `view -> f32[N, K]`, logits with the dropout of this
      pass.
    apply_new_augmentation: `(images, key) -> f32[N, K]`, logits with an
      augmentation and a dropout of their own. Neither moves the statistics.
    unlabeled: picks the unlabeled among N rows.
  """

  images: Array
  view: Array
  logits: Array
  consistency: Array
  jvp: Callable[[Array], Array] | None
  apply_same_dropout: Callable[[Array], Array]
  apply_new_augmentation: Callable[[Array, Key], Array]
  unlabeled: Callable[[Array], Array]


class Views(NamedTuple):
  """What a loss showed its network, for an update that imputes labels anew.

  Attributes:
    x: f32[B_l, H, W, C], the labeled images.
    student_view: f32[B_u, H, W, C], the unlabeled ones as labels are the
      targets of them.
    teacher_view: f32[B_u, H, W, C], the same as labels are imputed from them.
    y: labels of `x`, moved with the images.
    change: f32[B_u, P], what is added to points of `teacher_view` to be those
      of `student_view`; None for classes.
  """

  x: Array
  student_view: Array
  teacher_view: Array
  y: Array
  change: Array | None = None


class Aux(NamedTuple):
  """What a loss shares with the terms added to it and with the update.

  Attributes:
    logits_u: f32[N, K] on unlabeled rows, with gradient.
    target_probs: f32[N, K], the method's constant target for the same rows.
    normalizer: number that per-row values of a term are divided by once summed.
    second_pass: `(key, params=None) -> f32[N, K]`, logits of one more
      stochastic pass over the same rows, of the trained network or of another's
      parameters, that leaves the statistics alone; None where a method has
      none.
    stats: batch-normalization statistics, moved by the passes so far.
    slots: the method's slots after this loss.
    metrics: scalars to report.
    forward_pass: the pass behind the logits, for terms that perturb its images;
      None where a method has none.
    consistency_u: f32[N, K], what the second head of the network says of the
      rows of `logits_u`; None where a method does not tell.
    views: the views behind it; None where a method has not two of the
      unlabeled images.
    second_pass_with_stats: `(statistics, key) -> (f32[N, K], statistics)`, as
      `second_pass` of the trained network by a pass that moves the statistics;
      None where the further passes of a method leave them alone.
  """

  logits_u: Array
  target_probs: Array
  normalizer: int
  second_pass: Callable[..., Array] | None
  stats: Stats
  slots: dict[str, Any]
  metrics: Metrics
  forward_pass: ForwardPass | None = None
  consistency_u: Array | None = None
  views: Views | None = None
  second_pass_with_stats: Callable[[Stats, Key], tuple[Array, Stats]] | None = (
    None
  )


Augment = Callable[[Array, Key], Array]
Moving = Callable[[Array, Key], tuple[Array, Array]]
Loss = Callable[[Params, State, Batch, Key], tuple[Array, Aux]]
# f32[N] of the rows in Aux, and `Aux.stats` moved on if its pass moves them.
Term = Callable[[Aux, Batch, Key], Array | tuple[Array, Stats]]
Update = Callable[[State, Batch, Key], tuple[State, Metrics]]


class Task(NamedTuple):
  """What the outputs of a network mean.

  Attributes:
    name: `classification` or `regression`.
    loss_name: what metrics call `loss`.
    fit: labels of the labeled images -> arrays that go with the normalization.
    encode: `(those arrays, labels) -> labels` as a method sees them.
    loss: `(f32[N, K] outputs, labels) -> f32[N]`.
    target: outputs -> f32[N, K], what they say: probabilities, or points.
    disagreement: `(outputs, constant target) -> f32[N]`.
    inner: `(outputs, target, variant) -> f32[]`, its unlabeled loss,
      differentiable in both.
    metrics: `(outputs, labels of the source, normalization) -> {metric: [N]}`.
  """

  name: str
  loss_name: str
  fit: Callable[[np.ndarray], dict[str, np.ndarray]]
  encode: Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]
  loss: Callable[[Array, Array], Array]
  target: Callable[[Array], Array]
  disagreement: Callable[[Array, Array], Array]
  inner: Callable[[Array, Array, str], Array]
  metrics: Callable[[Array, Array, Mapping[str, Array]], dict[str, Array]]


class Components(NamedTuple):
  """What a method is built from.

  Attributes:
    model: the network.
    tx: the optimizer.
    augment: `(images, key) -> images`, one random view of normalized images.
    image_shape: (H, W, C).
    ema_decay: decay of the averaged weights kept for evaluation; 0 for none.
    weight_decay: weights shrink by this times the learning rate each step,
      after everything else (MixMatch); 0 for none.
    weight_decay_on: which ones do, `kernels` or `all` (F-L21).
    learning_rate: the schedule inside `tx`, which weight decay follows.
    strong: a harder view, for methods that use two; None for `augment`.
    task: what the outputs mean; None for classes.
    moving: `augment`, and f32[B, 2] by how many pixels it moved each image to
      the right and down; None where the labels do not move with it.
  """

  model: Model
  tx: optax.GradientTransformation
  augment: Augment
  image_shape: tuple[int, int, int]
  ema_decay: float = 0.0
  weight_decay: float = 0.0
  weight_decay_on: str = 'kernels'
  learning_rate: Schedule | None = None
  strong: Augment | None = None
  task: Task | None = None
  moving: Moving | None = None


class Method(NamedTuple):
  """A training method.

  Attributes:
    init: `key -> State`.
    update: one training step.
    predict: `(State, images) -> f32[B, K]` outputs, with the weights that the
      method is evaluated with; of a method with several networks a dict of the
      logits of each, between which validation images choose.
    per_image_tables: names of the per-image tables that its terms look up, see
      `Data.per_image_tables`.
    num_probe_images: number of test images of which its steps report the loss.
    recompute: `(State, f32[B, H, W, C] normalized images, key) -> State`, the
      batch-normalization statistics that `predict` reads taken from this batch
      alone, in an augmented view, with the weights that it reads; None where
      no statistics are kept.
  """

  init: Callable[[Key], State]
  update: Update
  predict: Callable[[State, Array], Array | dict[str, Array]]
  per_image_tables: tuple[str, ...] = ()
  num_probe_images: int = 0
  recompute: Callable[[State, Array, Key], State] | None = None
