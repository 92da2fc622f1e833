"""Types that all parts share; no logic.

Losses add, updates compose: the `Aux` of a `Loss` has the `TermInputs` of its
`Term`s and what the `Update` keeps; an `Update` maps a `State` to the next one,
and updates run in sequence. A method gets its network, optimizer and
augmentation as `Components`.
"""

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import struct

__all__ = [
  'Array',
  'Augment',
  'Aux',
  'Batch',
  'Components',
  'Data',
  'ForwardPass',
  'Key',
  'Loss',
  'Method',
  'Metrics',
  'Model',
  'Moving',
  'Outputs',
  'Params',
  'Schedule',
  'State',
  'Stats',
  'Task',
  'Term',
  'TermInputs',
  'Update',
  'Views',
]

#: An array of JAX.
Array = jax.Array
#: A typed key, as of `jax.random.key`.
Key = jax.Array
#: A tree of f32 arrays that an optimizer trains.
Params = Any
#: A tree of f32 arrays, the running statistics of batch normalization.
Stats = Any
#: `step -> f32[]`, a weight or a learning rate.
Schedule = Callable[[Array | int], Array]
#: Scalars f32[] by name.
Metrics = dict[str, Array]


class Outputs(NamedTuple):
  """Outputs of one forward pass.

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
    notes: `image_shape -> lines`, warnings about its initial weights;
      none unless they are given, see `models.weights.start_from`.
  """

  init: Callable[..., tuple[Params, Stats]]
  apply: Callable[..., tuple[Outputs, Stats]]
  notes: Callable[[tuple[int, int, int]], list[str]] = lambda image_shape: []


class Data(NamedTuple):
  """A training set on the device, an argument of the step.

  Attributes:
    images: u8[N, H, W, C], or f32[N, 1, 1, D] features; none where the images
      of each step come with its rows.
    labels: i32[N], -1 where unknown, or f32[N, P] points, standardized, NaN
      where unknown. A method never sees the labels of rows drawn as unlabeled.
    normalization: arrays of the normalization (means, whitening matrix) and of
      `Task.fit`.
    per_image_tables: tables with a row per image, by name.
    probe_images: test images u8[N, H, W, C] and their labels; a step reports
      their loss and does not train on them. Usually None.
    num_unlabeled: i32[], number of rows that are drawn as unlabeled; None where
      it is not known.
    label_shares: f32[K], share of each class in the labeled images; None for
      points and where it is not known.
  """

  images: Array
  labels: Array
  normalization: Mapping[str, Array]
  per_image_tables: Mapping[str, Array]
  probe_images: tuple[Array, Array] | None = None
  num_unlabeled: Array | None = None
  label_shares: Array | None = None


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
    scale: f32[P], pixels per unit of standardized points; None for classes.
    probe_images: `Data.probe_images`, normalized.
    num_unlabeled: `Data.num_unlabeled`.
    label_shares: `Data.label_shares`.
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
  num_unlabeled: Array | None = None
  label_shares: Array | None = None


class State(struct.PyTreeNode):
  """The complete state of training.

  Attributes:
    step: i32[], advanced by the loop only.
    key: typed key of the run, constant; each step folds in its number.
    params: what the optimizer trains.
    stats: batch-normalization statistics of the trained network.
    opt: optimizer state.
    slots: further state of a method by name, such as an averaged network.
  """

  step: Array
  key: Key
  params: Params
  stats: Stats
  opt: optax.OptState
  slots: dict[str, Any]


class ForwardPass(NamedTuple):
  """A forward pass, for terms that perturb its images.

  Its N rows are the unlabeled images, after the labeled ones if both share a
  batch.

  Attributes:
    images: f32[N, H, W, C], not augmented.
    view: f32[N, H, W, C], augmented: the input of the pass.
    logits: f32[N, K], with gradient.
    consistency: f32[N, K], of the second head, with gradient.
    jvp: f32[N, H, W, C] -> f32[N, K], directional derivative of the logits with
      respect to the view; None unless the method linearizes the pass.
    apply_same_dropout: `view -> f32[N, K]`, logits with the dropout of this
      pass.
    apply_new_augmentation: `(images, key) -> f32[N, K]`, logits with new
      augmentation and dropout. Neither function updates the statistics.
    unlabeled: selects the unlabeled ones of N rows.
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
  """The views of a loss, for an update that recomputes the imputed labels.

  Attributes:
    x: f32[B_l, H, W, C], the labeled images.
    student_view: f32[B_u, H, W, C], unlabeled images that are trained on the
      imputed labels.
    teacher_view: f32[B_u, H, W, C], the same images, from which labels are
      imputed.
    y: labels of `x`, shifted with the images.
    change: f32[B_u, P], shift of points from `teacher_view` to `student_view`;
      None for classes.
  """

  x: Array
  student_view: Array
  teacher_view: Array
  y: Array
  change: Array | None = None


class TermInputs(NamedTuple):
  """What terms read: the rows that they are computed on, and further passes.

  Attributes:
    logits_u: f32[N, K] on unlabeled rows, with gradient.
    target_probs: f32[N, K], the method's constant target for the same rows.
    normalizer: divisor of a term's sum over rows.
    consistency_u: f32[N, K], logits of the second head for the same rows; None
      if the method does not provide them.
    second_pass: `(key, params=None) -> f32[N, K]`, logits of another stochastic
      pass over the same rows, with the trained or the given parameters; it does
      not update the statistics. None if the method has no such pass.
    second_pass_with_stats: `(statistics, key) -> (f32[N, K], statistics)`, as
      `second_pass` with the trained parameters, and updates the statistics;
      None if further passes do not update them.
    forward_pass: the pass behind the logits, for terms that perturb its images;
      None if the method has no such pass.
    weights: f32[N] in [0, 1], weight of the method's label for each row, 0
      where it has none because its prediction is not confident; None if the
      method has no such weights.
    prediction_mean: f32[K], constant moving average of the predictions; None if
      the method has none.
    prediction_histogram: f32[K], the same of the shares of predicted classes.
    stats: batch-normalization statistics, updated by the passes so far; set by
      `add_terms`.
    slots: the method's slots after the loss, such as a teacher; set by
      `add_terms`.
  """

  logits_u: Array
  target_probs: Array
  normalizer: int
  consistency_u: Array | None = None
  second_pass: Callable[..., Array] | None = None
  second_pass_with_stats: Callable[[Stats, Key], tuple[Array, Stats]] | None = (
    None
  )
  forward_pass: ForwardPass | None = None
  weights: Array | None = None
  prediction_mean: Array | None = None
  prediction_histogram: Array | None = None
  stats: Stats = None
  slots: Mapping[str, Any] = types.MappingProxyType({})


class Aux(NamedTuple):
  """What a loss returns besides its value.

  Attributes:
    inputs: for the terms that are added to the loss.
    stats: batch-normalization statistics, updated by the passes of the loss.
    slots: the method's slots after this loss.
    metrics: scalars to report.
    views: the views of the images, for an update that recomputes the imputed
      labels; None unless the method has two views of the unlabeled ones.
  """

  inputs: TermInputs
  stats: Stats
  slots: dict[str, Any]
  metrics: Metrics
  views: Views | None = None


#: `(f32[B, H, W, C], key) -> f32[B, H, W, C]`.
Augment = Callable[[Array, Key], Array]
#: As `Augment`; also the shift of each image, f32[B, 2] pixels.
Moving = Callable[[Array, Key], tuple[Array, Array]]
#: `(params, State, Batch, key) -> (f32[], Aux)`.
Loss = Callable[[Params, State, Batch, Key], tuple[Array, Aux]]
#: `(TermInputs, Batch, key) -> f32[N]` for the rows of its inputs, or f32[] for
#: the batch as a whole; also the statistics if it updates them.
Term = Callable[[TermInputs, Batch, Key], Array | tuple[Array, Stats]]
#: `(State, Batch, key) -> (State, metrics)`.
Update = Callable[[State, Batch, Key], tuple[State, Metrics]]


class Task(NamedTuple):
  """Meaning of the outputs of a network.

  Attributes:
    name: `classification` or `regression`.
    loss_name: name of `loss` in the metrics.
    fit: labels of the labeled images -> arrays stored with the normalization.
    encode: `(arrays of fit, labels) -> labels` for a method.
    loss: `(f32[N, K] outputs, labels) -> f32[N]`.
    target: outputs -> f32[N, K], probabilities or points.
    disagreement: `(outputs, constant target) -> f32[N]`.
    inner: `(outputs, target, variant) -> f32[]`, unlabeled loss of L2I's inner
      step, differentiable in both.
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
  """Components that a method is built from.

  Attributes:
    model: the network.
    tx: the optimizer.
    augment: `(images, key) -> images`, one random view of normalized images.
    image_shape: (H, W, C).
    ema_decay: decay of the averaged weights kept for evaluation; 0 for none.
    weight_decay: weights shrink by this times the learning rate after each
      optimizer step (MixMatch); 0 for none.
    weight_decay_on: `kernels` as in MixMatch, or `all` weights as in L2I's
      released code (F-L21).
    learning_rate: the schedule inside `tx`, which scales the weight decay.
    strong: a harder view, for methods that use two; None for `augment`.
    task: what the outputs mean; None for classes.
    num_images: number of training images, for methods that keep a table with a
      row per image; 0 where they are not known.
    moving: `augment` that also returns the shift of each image, f32[B, 2]
      pixels to the right and down; None if labels do not shift with images.
    num_devices: number of devices that divide each batch; 0 for all there are.
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
  num_images: int = 0
  num_devices: int = 0


class Method(NamedTuple):
  """A training method.

  Attributes:
    init: `key -> State`.
    update: one training step.
    predict: `(State, images) -> f32[B, K]` outputs with the weights used for
      evaluation; a method of several networks returns a dict of logits, and
      validation images choose between them.
    per_image_tables: names of the per-image tables that its terms read, see
      `Data.per_image_tables`.
    num_probe_images: number of test images whose loss its steps report.
    recompute: `(State, f32[B, H, W, C] normalized images, key) -> State`,
      replaces the batch-normalization statistics of `predict` by those of this
      batch in an augmented view, with the weights of `predict`; None if there
      are no statistics.
  """

  init: Callable[[Key], State]
  update: Update
  predict: Callable[[State, Array], Array | dict[str, Array]]
  per_image_tables: tuple[str, ...] = ()
  num_probe_images: int = 0
  recompute: Callable[[State, Array, Key], State] | None = None
