"""MixMatch: guess labels, sharpen them, mix all rows (Berthelot et al.,
"MixMatch: A Holistic Approach to Semi-Supervised Learning", 2019).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nsl_jax import errors, losses, options, schedules, terms as terms_lib
from nsl_jax.compose import combinators, mixing
from nsl_jax.types import (
  Array,
  Aux,
  Batch,
  Components,
  Key,
  Loss,
  Params,
  Schedule,
  State,
  Stats,
  TermInputs,
  Views,
)


class Mixed(NamedTuple):
  """Labeled and unlabeled images after mixing.

  Attributes:
    images: f32[(1 + A) B, H, W, C]; the first B are the labeled ones.
    labels: f32[(1 + A) B, K]; rows sum to 1.
  """

  images: Array
  labels: Array


def each_pass(
  components: Components,
  params: Params,
  stats: Stats,
  batches: Sequence[Array],
  key: Key,
  *,
  moved_by: str,
) -> tuple[Array, Stats]:
  """Logits of several batches, each normalized with its own statistics.

  Args:
    components: the network.
    params: its parameters.
    stats: its running statistics.
    batches: A batches of the same size, f32[B, H, W, C].
    key: split into one key per pass.
    moved_by: passes that update the running statistics: the `first`, or `all`
      in sequence.

  Returns:
    f32[A, B, K] and the updated statistics.
  """
  keys = jax.random.split(key, len(batches))

  def forward(stats: Stats, images: Array, key: Key) -> tuple[Array, Stats]:
    outputs, stats = components.model.apply(
      params, stats, images, train=True, key=key
    )
    return outputs.logits, stats

  # An accelerator prefers fewer and larger kernels. On CPU independent passes
  # use all cores, and the vectorized pass takes 1.4 times as long. Several
  # devices would each compute all of it: its convolutions join the passes and
  # the rows, by which they are divided, to one axis.
  alone = (components.num_devices or jax.device_count()) == 1
  if moved_by == 'first' and alone and jax.default_backend() != 'cpu':
    mapped = jax.vmap(forward, (None, 0, 0))
    logits, updated = mapped(stats, jnp.stack(batches), keys)
    return logits, jax.tree.map(lambda leaf: leaf[0], updated)
  logits_of, updated = [], stats
  for at, (images, noise) in enumerate(zip(batches, keys)):
    logits, next_stats = forward(updated, images, noise)
    updated = updated if at and moved_by == 'first' else next_stats
    logits_of.append(logits)
  return jnp.stack(logits_of), updated


def average(
  components: Components,
  params: Params,
  stats: Stats,
  views: Sequence[Array],
  key: Key,
  temperature: float,
  *,
  moved_by: str = 'first',
) -> tuple[Array, Stats]:
  """Sharpened mean prediction over the views of each image, with gradient.

  Every view is a separate batch, see `each_pass`.

  Returns:
    f32[B, K] and the updated statistics.
  """
  logits, updated = each_pass(
    components, params, stats, views, key, moved_by=moved_by
  )
  return mixing.sharpen(jax.nn.softmax(logits).mean(0), temperature), updated


def mix_all(
  images: Array, labels: Array, key: Key, *, alpha: float, per_batch: bool
) -> Mixed:
  """Mixes every row with a row of one random permutation."""
  order, ratio = jax.random.split(key)
  rows = images.shape[0]
  partner = jax.random.permutation(order, rows)
  share = mixing.mix_ratio(ratio, alpha, rows, per_batch=per_batch)
  return Mixed(
    mixing.mix(images, images[partner], share),
    mixing.mix(labels, labels[partner], share),
  )


def interleaved_pass(
  components: Components,
  params: Params,
  stats: Stats,
  images: Array,
  chunks: int,
  key: Key,
  *,
  moved_by: str,
) -> tuple[Array, Stats]:
  """Logits of all rows by passes over interleaved chunks.

  Each pass normalizes with the statistics of its chunk. `moved_by` the `first`
  pass or `all` passes, the running statistics are updated.
  """
  shuffled = mixing.interleave(jnp.split(images, chunks))
  logits, updated = each_pass(
    components, params, stats, shuffled, key, moved_by=moved_by
  )
  return jnp.concatenate(mixing.interleave(list(logits))), updated


def mixmatch_loss(
  components: Components,
  *,
  weight: Schedule,
  alpha: float,
  temperature: float,
  views: int,
  ratio_per_batch: bool,
  moved_by: str,
) -> Loss:
  """Cross-entropy on the mixed labeled rows plus `weight` times the squared
  error, mean over rows and classes, on the mixed unlabeled ones.
  """

  def loss(
    params: Params, state: State, batch: Batch, key: Key
  ) -> tuple[Array, Aux]:
    if batch.x.shape[0] != batch.u.shape[0]:
      raise errors.UserError(
        'mixmatch mixes equal batches: set config.batch.labeled and '
        'config.batch.unlabeled to the same number'
      )
    first, guessing, mixing, passing, *view_keys = jax.random.split(
      key, 4 + views
    )
    x = components.augment(batch.x, first)
    u = [components.augment(batch.u, view) for view in view_keys]
    q, updated = jax.lax.stop_gradient(
      average(
        components,
        params,
        state.stats,
        u,
        guessing,
        temperature,
        moved_by=moved_by,
      )
    )
    labels_x = jax.nn.one_hot(batch.y, q.shape[-1], dtype=q.dtype)
    mixed = mix_all(
      jnp.concatenate([x, *u]),
      jnp.concatenate([labels_x, *[q] * views]),
      mixing,
      alpha=alpha,
      per_batch=ratio_per_batch,
    )
    logits, stats = interleaved_pass(
      components,
      params,
      updated if moved_by == 'all' else state.stats,
      mixed.images,
      1 + views,
      passing,
      moved_by=moved_by,
    )
    cut = x.shape[0]
    parts = {
      'cross_entropy': losses.cross_entropy(
        logits[:cut], mixed.labels[:cut]
      ).mean(),
      'mixmatch': losses.squared_error(logits[cut:], mixed.labels[cut:]).mean(),
    }
    parts['mixmatch_weight'] = jnp.asarray(weight(state.step))
    value = (
      parts['cross_entropy'] + parts['mixmatch_weight'] * parts['mixmatch']
    )
    # A term averages over the union of both mixed sets, as NS3L's equation has
    # it, with the mixed labels as targets (F-N5).
    inputs = TermInputs(logits, mixed.labels, normalizer=logits.shape[0])
    aux = Aux(
      inputs,
      stats,
      state.slots,
      parts,
      views=Views(x, u[0], u[1], batch.y) if views > 1 else None,
    )
    return value, aux

  return loss


@options.declare(
  alpha='> 0',
  temperature='> 0',
  views='>= 1',
  moved_by=('first', 'all'),
  **schedules.RAMPED,
)
def build(
  components: Components,
  *,
  terms: Mapping[str, Mapping[str, Any]],
  weight: float = 75.0,
  ramp: str = 'linear',
  ramp_steps: int = 16_384,
  alpha: float = 0.75,
  temperature: float = 0.5,
  views: int = 2,
  ratio_per_batch: bool = False,
  moved_by: str = 'first',
) -> combinators.SingleNetworkMethod:
  """Builds MixMatch; the defaults are those of CIFAR-10.

  MixMatch's code counts images: with batches of 64 its ramp of 1,048,576 images
  is 16,384 steps.

  Args:
    components: network, optimizer and augmentation.
    terms: terms over all mixed rows, with the mixed labels as targets.
    weight: weight of the unlabeled loss.
    ramp: ramp of the weight.
    ramp_steps: length of the ramp.
    alpha: parameter of the Beta distribution of mixing ratios.
    temperature: temperature of the sharpening.
    views: augmentations of every unlabeled image, A.
    ratio_per_batch: one mixing ratio per batch instead of one per row.
    moved_by: passes that update the running statistics: the `first` mixed
      chunk, as in MixMatch's code, or `all` passes, those of the guesses before
      those of the chunks, as in L2I's (F-L23).

  Raises:
    errors.UserError: for a term that cannot be applied to mixed rows.
  """
  terms_lib.refuse_single_images('mixmatch', terms)
  loss = mixmatch_loss(
    components,
    weight=schedules.ramped(weight=weight, ramp=ramp, ramp_steps=ramp_steps),
    alpha=alpha,
    temperature=temperature,
    views=views,
    ratio_per_batch=ratio_per_batch,
    moved_by=moved_by,
  )

  return combinators.SingleNetworkMethod(
    combinators.add_terms(loss, terms_lib.from_config(terms))
  )
