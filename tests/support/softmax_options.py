"""Options of methods on softmax regression, and their number of passes."""

import jax
from softmax_toy import NS3L, ONCE, Toy, build, make_batch

EXACT = dict(eps=0.5, mode='exact', **ONCE)
PROBED = dict(eps=0.5, mode='finite_difference', **ONCE)
TEACHER = dict(decay=0.9, **ONCE)
TWO = dict(NS3L, passes=2)


def trace(name, **fields):
  """Number of applications of the network in a step, and its metrics."""
  toy = Toy(noise=0.1)
  method = build(name, toy, **fields)
  state = jax.eval_shape(method.init, jax.random.key(0))
  toy.calls = 0
  _, metrics = jax.eval_shape(
    method.update, state, make_batch(), jax.random.key(1)
  )
  return toy.calls, metrics
