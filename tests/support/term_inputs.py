"""Two rows of logits and of target probabilities, for the tests of terms."""

import jax.numpy as jnp
import numpy as np

from nsl_jax.types import Batch, TermInputs

LOGITS = jnp.array([[1.0, -2.0, 0.5, 0.4], [0.0, 3.0, -1.0, 0.2]])
PROBS = jnp.array([[0.6, 0.02, 0.3, 0.08], [0.01, 0.97, 0.01, 0.01]])
THRESHOLD = dict(sampler='threshold', threshold=0.05)
NEGATIVE = np.array([[False, True, False, False], [True, False, True, True]])
WEIGHT = dict(weight=2.0, ramp='none', ramp_steps=0)


def shared(logits=LOGITS, target_probs=PROBS, second_pass=None, **more):
  return TermInputs(
    logits, target_probs, normalizer=4, second_pass=second_pass, **more
  )


def rows(per_image_tables=None):
  images = jnp.zeros((2, 1, 1, 1))
  return Batch(
    x=images,
    y=jnp.zeros(2, jnp.int32),
    u=images,
    u_index=jnp.arange(2),
    per_image_tables=per_image_tables or {},
  )
