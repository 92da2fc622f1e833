"""The forward passes of one batch through one network."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nsl_jax.compose import tasks
from nsl_jax.types import (
  Array,
  Batch,
  Components,
  ForwardPass,
  Key,
  Outputs,
  Params,
  State,
  Stats,
)


class Forward(NamedTuple):
  """Forward passes of a batch through the network.

  Attributes:
    first_pass: `(params, State, Batch, key) -> ((labeled logits, labels),
      ForwardPass, statistics)`; labels are shifted with their images, and only
      the batch of the labeled images updates the statistics.
    second_pass: `(params, State, Batch, key) -> f32[B_u, K]` of another pass.
    second_pass_with_stats: `(params, statistics, Batch, key)` -> the same, and
      the statistics updated by the pass.
    totals: `Batch -> (n_x, n_u)`, divisors of the sums over labeled and over
      unlabeled rows.
  """

  first_pass: Callable[..., tuple[tuple[Array, Array], ForwardPass, Stats]]
  second_pass: Callable[[Params, State, Batch, Key], Array]
  second_pass_with_stats: Callable[
    [Params, Stats, Batch, Key], tuple[Array, Stats]
  ]
  totals: Callable[[Batch], tuple[int, int]]


def perturbable_pass(
  components: Components,
  params: Params,
  stats: Stats,
  images: Array,
  view: Array,
  key: Key,
  *,
  linearize: bool,
  unlabeled: Callable[[Array], Array],
) -> tuple[ForwardPass, Stats]:
  """A forward pass that terms may perturb, and the updated statistics.

  Args:
    components: network and augmentation.
    params: parameters.
    stats: batch-normalization statistics before the pass.
    images: f32[N, H, W, C], not augmented.
    view: f32[N, H, W, C], augmented: the input of the pass.
    key: of the dropout.
    linearize: linearize the pass, for `ForwardPass.jvp`.
    unlabeled: selects the rows of terms.
  """

  def network(view: Array) -> tuple[tuple[Array, Array], Stats]:
    outputs, updated = components.model.apply(
      params, stats, view, train=True, key=key
    )
    return (outputs.logits, outputs.consistency), updated

  def apply_new_augmentation(images: Array, key: Key) -> Array:
    view_key, noise_key = jax.random.split(key)
    new_view, _ = tasks.view(components, images, view_key)
    outputs, _ = components.model.apply(
      params, stats, new_view, train=True, key=noise_key
    )
    logits: Array = outputs.logits
    return logits

  jvp = None
  if linearize:
    heads, linearized, updated = jax.linearize(network, view, has_aux=True)
    jvp = lambda change: linearized(change)[0]
  else:
    heads, updated = network(view)
  forward_pass = ForwardPass(
    images=images,
    view=view,
    logits=heads[0],
    consistency=heads[1],
    jvp=jvp,
    apply_same_dropout=lambda view: network(view)[0][0],
    apply_new_augmentation=apply_new_augmentation,
    unlabeled=unlabeled,
  )
  return forward_pass, updated


def second_pass_of(
  components: Components, params: Params, stats: Stats, batch: Batch
) -> Callable[..., Array]:
  """`TermInputs.second_pass` on a view of the unlabeled images alone."""

  def second_pass(key: Key, given_params: Params | None = None) -> Array:
    view_key, noise_key = jax.random.split(key)
    outputs, _ = components.model.apply(
      params if given_params is None else given_params,
      stats,
      components.augment(batch.u, view_key),
      train=True,
      key=noise_key,
    )
    logits: Array = outputs.logits
    return logits

  return second_pass


SECOND_PASS_ROWS = ('all', 'unlabeled')


def forward_passes(
  components: Components,
  *,
  shared_batch_norm: bool,
  linearize: bool,
  second_pass_rows: str = 'all',
) -> Forward:
  """The forward passes of an experiment family, and the divisors of its losses.

  Labeled and unlabeled images go through the network

  - `shared_batch_norm`, `second_pass_rows='all'` (family O): in one batch at
    every pass. The labeled loss and every term are sums divided by B_l + B_u,
    as in the authors' module of NS3L, where the text says a mean over B_u; Adam
    is invariant to this common factor (F-N3).
  - `shared_batch_norm`, `second_pass_rows='unlabeled'` (Mean Teacher in family
    D): in one batch at the first pass, and the labeled loss is divided by
    B_l + B_u. Further passes, such as the teacher's, use the unlabeled images
    only, and a term is a mean over these, as in DNLL's released code (F-D11).
  - not `shared_batch_norm` (family M): in two batches with a mean over each;
    further passes use the unlabeled images only.

  Passes that perturb images (`ForwardPass.apply_same_dropout`,
  `apply_new_augmentation`) use the rows of the first pass.

  Args:
    components: network and augmentation.
    shared_batch_norm: see above.
    linearize: linearize the first pass, for `ForwardPass.jvp`.
    second_pass_rows: see above.
  """
  unlabeled_only = not shared_batch_norm or second_pass_rows == 'unlabeled'

  def forward(
    params: Params, stats: Stats, view: Array, key: Key
  ) -> tuple[Outputs, Stats]:
    return components.model.apply(params, stats, view, train=True, key=key)

  def augment_with_shift(
    images: Array, key: Key
  ) -> tuple[Array, Key, Array | None]:
    view_key, noise_key = jax.random.split(key)
    view, shift = tasks.view(components, images, view_key)
    return view, noise_key, shift

  def augmented(images: Array, key: Key) -> tuple[Array, Key]:
    return augment_with_shift(images, key)[:2]

  def rows(batch: Batch, unlabeled_only: bool) -> tuple[Array, int]:
    if unlabeled_only:
      return batch.u, 0
    return jnp.concatenate([batch.x, batch.u]), batch.x.shape[0]

  def first_pass(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[tuple[Array, Array], ForwardPass, Stats]:
    shared = shared_batch_norm or not batch.u.shape[0]
    first, second = (key, key) if shared else jax.random.split(key)
    images, cut = rows(batch, not shared)
    view, noise_key, shift = augment_with_shift(images, second)

    forward_pass, stats = perturbable_pass(
      components,
      params,
      state.stats,
      images,
      view,
      noise_key,
      linearize=linearize,
      unlabeled=lambda rows: rows[cut:],
    )
    if shared:
      labeled = forward_pass.logits[:cut]
      shift = None if shift is None else shift[:cut]
    else:
      labeled_view, labeled_noise, shift = augment_with_shift(batch.x, first)
      outputs, stats = forward(params, state.stats, labeled_view, labeled_noise)
      labeled = outputs.logits
    labels = tasks.shift_labels(batch.y, shift, batch.scale)
    return (labeled, labels), forward_pass, stats

  def second_pass_with_stats(
    params: Params, stats: Stats, batch: Batch, key: Key
  ) -> tuple[Array, Stats]:
    images, cut = rows(batch, unlabeled_only)
    outputs, updated = forward(params, stats, *augmented(images, key))
    return outputs.logits[cut:], updated

  def second_pass(
    params: Params, state: State, batch: Batch, key: Key
  ) -> Array:
    return second_pass_with_stats(params, state.stats, batch, key)[0]

  def totals(batch: Batch) -> tuple[int, int]:
    labeled, unlabeled = batch.x.shape[0], batch.u.shape[0]
    total = labeled + unlabeled
    return (
      total if shared_batch_norm else labeled,
      unlabeled if unlabeled_only else total,
    )

  return Forward(first_pass, second_pass, second_pass_with_stats, totals)
