r"""MixMatch on SVHN.

python -m nsl_jax.main \
    --config=configs/svhn_mixmatch.py:labels=250,seeds=5

Paper, test error in %: 3.75 +- .09 with 250 labels (NS-T4-1),
3.28 +- .11 with 1,000 (NS-T4-3).
Ours: not run.
Time: 307,200 steps of WRN-28-2, 2.2 s each on two CPU cores as measured for
CIFAR-10, 8 days a seed; not measured on a GPU (docs/speed.md).
Arguments: labels=250; quick=true for a quarter of the steps.

Profile M-SVHN (docs/readings.md). Only the arXiv versions of NS3L give the
300 epochs (F-N10). Digits are never flipped.
"""

from configs import common

_ROWS = {250: 'NS-T4-1', 1000: 'NS-T4-3'}
_EPOCH = 1024  # steps


def get_config(arg=None):
  arg = common.parse(arg, labels=250)
  config = common.base('svhn', steps=300 * _EPOCH)
  config.protocol = 'median_last_20'
  config.data.update(
    labeled=arg.labels,
    # Labels follow the class frequencies as in MixMatch's code (F-N16).
    rule='proportional',
    # As the paper; the code of Oliver et al. has 7,326 (F-N8).
    validation=7325,
    validation_rule='uniform',
    normalize='signed',
    augment='translate:4',
  )
  config.batch = dict(labeled=64, unlabeled=64)
  config.model = dict(name='wide_resnet', variant='mixmatch', stages=3)
  config.optimizer.update(name='adam', lr=2e-3)  # constant
  config.ema_decay = 0.999  # of the evaluated weights
  config.weight_decay = 0.02
  config.method = dict(
    name='mixmatch',
    weight=250.0,
    ramp='linear',
    ramp_steps=16_384,
    alpha=0.75,
    temperature=0.5,
    views=2,
    ratio_per_batch=False,
    terms={},
  )
  config.eval.every_steps = _EPOCH
  config.checkpoint.every = _EPOCH
  config.log_every = 128
  config.row = _ROWS.get(arg.labels, '')
  return common.finish(config, arg)
