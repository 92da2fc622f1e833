"""A config of every method for softmax regression of four classes."""

import functools

from nsl_jax.training import train_step

SHAPE, K = (2, 2, 1), 4
RAMP = dict(weight=1.0, ramp='sigmoid', ramp_steps=20)
NS3L = dict(sampler='threshold', threshold=0.2, passes=1, **RAMP)
PSEUDO_LABEL = dict(threshold=0.4, **RAMP)
# Every method, with thresholds at which softmax regression has something to do.
DNLL = dict(weight=2.0, ramp='none', ramp_steps=0)
SOFT_LABEL = dict(RAMP, weight=10.0, teacher=False)
CONFIGS = {
  'dnll': dict(DNLL, selection='epm', count=2, unsupervised='both'),
  'dual_student': dict(
    consistency=5.0,
    stabilization=10.0,
    tie=0.01,
    threshold=0.4,
    ramp='sigmoid',
    ramp_steps=20,
    negatives=dict(DNLL, count=2),
  ),
  'fixmatch': dict(threshold=0.4),
  'flexmatch': dict(threshold=0.8, weight=0.3),
  'freematch': dict(decay=0.9, fairness=0.01, weight=0.3),
  'ict': dict(RAMP, weight=10.0, alpha=0.75, decay=0.9),
  'l2i': dict(
    host=dict(SOFT_LABEL, name='pseudo_label_l2i', terms={}),
    variant='v1',
    inner_rate=0.01,
  ),
  'mean_teacher': dict(RAMP, weight=8.0, decay=0.9),
  'mixmatch': dict(RAMP, weight=10.0, alpha=0.75, temperature=0.5, views=2),
  'mixup': dict(alpha=0.75),
  'ns3l': dict(NS3L, passes=2),
  'pi': dict(RAMP, weight=20.0),
  'pseudo_label': PSEUDO_LABEL,
  'pseudo_label_l2i': SOFT_LABEL,
  'softmatch': dict(decay=0.9),
  'supervised': {},
  'vat': dict(RAMP, weight=0.3, eps=1.0, mode='exact'),
}


def normalize(fitted, images):
  return images / 255.0


read = functools.partial(train_step.make_batch, normalize)
