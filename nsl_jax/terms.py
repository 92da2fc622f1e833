"""Losses on unlabelled rows that can be added to any method."""

from collections.abc import Callable, Mapping

import jax

from nsl_jax import errors, losses, negatives, perception, perturb
from nsl_jax.types import (
    Array, Aux, Batch, CleanPass, Key, Params, Stats, Term,
)

TEACHER = 'teacher'  # slot of the averaged network that a student follows
_NO_STEP = 2**32 - 1  # steps fold their number into the key of the run, too


def _fixed(sample: negatives.Sampler, run: Key) -> negatives.Rowwise:
  """The same negatives for the same image at every step of a run (F-N17)."""
  start = jax.random.fold_in(run, _NO_STEP)

  def one(belief: Array, side: Mapping[str, Array], index: Array) -> Array:
    key = jax.random.fold_in(start, index)
    row = {name: value[None] for name, value in side.items()}
    return sample(belief[None], row, key)[0]

  return jax.vmap(one)


def ns3l(
    *, sampler: str, passes: int, redraw: bool = True, **options
) -> Term:
  """NS3L (its section 4.3) with any sampler of negative labels.

  Args:
    sampler: name of a sampler in `negatives`; `threshold` is the paper's.
    passes: 1 takes negatives and probabilities from the same logits, which is
      Algorithm 1 as printed; 2 takes the negatives from the clean pass and the
      probabilities from one more stochastic pass of the same images, as the
      authors' module does (F-N2).
    redraw: draw new negatives at every step, or let every image keep those
      that its row and the seed of the run give it (F-N17).
    **options: the sampler's own (`threshold`, `count`, `exclude`).

  Raises:
    errors.UserError: for an unknown sampler or option, or other `passes`.
  """
  sample = negatives.build(sampler, **options)
  if passes not in (1, 2):
    raise errors.UserError(f'ns3l passes must be 1 or 2, not {passes}')

  def term(aux: Aux, batch: Batch, key: Key) -> Array:
    draw, view = jax.random.split(key)
    belief = jax.lax.stop_gradient(aux.belief_u)
    if redraw:
      negative = sample(belief, batch.side, draw)
    else:
      assert aux.run is not None  # given to every term
      negative = _fixed(sample, aux.run)(belief, batch.side, batch.u_index)
    logits = aux.logits_u
    if passes == 2:
      logits = _second_pass(aux, 'ns3l: set passes=1')(view)
    return losses.none_of(logits, negative)

  return term


def pseudo_label(*, threshold: float) -> Term:
  """Pseudo-Label on the clean pass (family O)."""
  def term(aux: Aux, batch: Batch, key: Key) -> Array:
    return losses.pseudo_label(
        aux.logits_u, aux.belief_u, threshold=threshold
    )

  return term


def entropy() -> Term:
  """Entropy minimisation on the clean logits (F-N7)."""
  return lambda aux, batch, key: losses.entropy(aux.logits_u)


def _second_pass(aux: Aux, name: str) -> Callable[..., Array]:
  if aux.again is None:
    raise errors.UserError(f'this method has no second pass for {name}')
  return aux.again


def _teacher(aux: Aux, name: str) -> Params:
  if TEACHER not in aux.slots:
    raise errors.UserError(
        f'the term {name} needs the method mean_teacher, which keeps the '
        'teacher'
    )
  return aux.slots[TEACHER]


def pi() -> Term:
  """Pi model: the prediction should not move with augmentation and dropout.

  The clean pass follows a second one, which is held constant (Laine & Aila).
  """
  def term(aux: Aux, batch: Batch, key: Key) -> Array:
    teacher = jax.nn.softmax(_second_pass(aux, 'pi')(key))
    return losses.squared_error(aux.logits_u, teacher)

  return term


def mean_teacher() -> Term:
  """The prediction should be that of the averaged network in slot TEACHER.

  The teacher runs in train mode, with the statistics of its own batch
  (Tarvainen & Valpola). Where a network has two heads the student's second
  follows the teacher's first. The method must keep the slot.
  """
  def term(aux: Aux, batch: Batch, key: Key) -> Array:
    params = _teacher(aux, 'mean_teacher')
    again = _second_pass(aux, 'mean_teacher')
    teacher = jax.nn.softmax(again(key, params))
    return losses.squared_error(_second_head(aux), teacher)

  return term


def _second_head(aux: Aux) -> Array:
  return aux.logits_u if aux.consistency_u is None else aux.consistency_u


def dnll(
    *, count: int, replace: bool = False, source: str = 'student'
) -> Term:
  """DNLL's negative labels on one network (its Mean Teacher combination).

  Another view of an image predicts a class; `count` others are what the image
  is not, for the second head of the network if it has one (F-D11).

  Args:
    count: m, negative labels an image.
    replace: draw with replacement, as the released code does (F-D8).
    source: who predicts on the other view: the `student` itself, as released,
      or the `teacher`. The student's pass moves its statistics where the
      method has `Aux.again_moving`.

  Raises:
    errors.UserError: for another source.
  """
  known = ('student', 'teacher')
  if source not in known:
    raise errors.UserError(
        f'dnll source={source!r}: {errors.did_you_mean(source, known)}'
    )

  def term(
      aux: Aux, batch: Batch, key: Key
  ) -> Array | tuple[Array, Stats]:
    view, draw = jax.random.split(key)
    moves = source == 'student' and aux.again_moving is not None
    stats = aux.stats
    if moves:
      assert aux.again_moving is not None  # for mypy
      elsewhere, stats = aux.again_moving(stats, view)
    else:
      others = _teacher(aux, 'dnll') if source == 'teacher' else None
      elsewhere = _second_pass(aux, 'dnll')(view, others)
    logits = _second_head(aux)
    negative = perception.draw(
        draw, None, elsewhere.argmax(-1), logits.shape[-1], count,
        replace=replace,
    )
    rows = losses.each_not(logits, negative)
    return (rows, stats) if moves else rows

  return term


def vat(
    *, eps: float, mode: str, xi: float = 1e-6, iterations: int = 1,
    kl_direction: str = 'adversarial',
) -> Term:
  """Virtual adversarial training: predictions should survive the worst change.

  Args:
    eps: L2 norm of the change of every image, in units of the normalised one.
    mode: `exact` takes the direction from the Fisher matrix at the clean view
      and the adversarial pass at that same view; `finite_difference` is the
      reference's, where every pass augments anew (F-N6).
    xi: probing step of `finite_difference`.
    iterations: power iterations.
    kl_direction: `adversarial` is KL(p_adv || p_clean), as Oliver et al.'s
      code has it, `clean` is KL(p_clean || p_adv), as Miyato's. The clean
      prediction is constant in both.

  Raises:
    errors.UserError: for another mode or direction, or an eps that is not
      positive.
  """
  for name, value, known in (
      ('mode', mode, ('exact', 'finite_difference')),
      ('kl_direction', kl_direction, ('adversarial', 'clean')),
  ):
    if value not in known:
      raise errors.UserError(
          f'vat {name}={value!r}: {errors.did_you_mean(value, known)}'
      )
  if not eps > 0.0:
    raise errors.UserError(f'vat eps={eps}: must be > 0')

  def adversarial(clean: CleanPass, start: Array, key: Key) -> Array:
    """Logits of all rows after the worst change."""
    logits = jax.lax.stop_gradient(clean.logits)
    if mode == 'exact':
      assert clean.push is not None  # term_configs.needs_push asks for it
      worst = perturb.steepest_exact(
          clean.push, logits, start, iterations=iterations
      )
      return clean.same(clean.view + eps * worst)
    probe, last = jax.random.split(key)

    def drift(change: Array, key: Key) -> Array:
      moved = clean.fresh(clean.images + change, key)
      return losses.kl_divergence(logits, moved).mean()

    worst = perturb.steepest(
        drift, start, probe, xi=xi, iterations=iterations
    )
    return clean.fresh(clean.images + eps * worst, last)

  def term(aux: Aux, batch: Batch, key: Key) -> Array:
    if aux.clean is None:
      raise errors.UserError('this method has no clean pass for vat')
    clean = aux.clean
    draw, passes = jax.random.split(key)
    start = jax.random.normal(draw, clean.images.shape, clean.images.dtype)
    moved = clean.unlabelled(adversarial(clean, start, passes))
    fixed = jax.lax.stop_gradient(clean.unlabelled(clean.logits))
    if kl_direction == 'adversarial':
      return losses.kl_divergence(moved, fixed)
    return losses.kl_divergence(fixed, moved)

  return term


TERMS: dict[str, Callable[..., Term]] = {
    'dnll': dnll, 'entropy': entropy, 'mean_teacher': mean_teacher,
    'ns3l': ns3l, 'pi': pi, 'pseudo_label': pseudo_label, 'vat': vat,
}
