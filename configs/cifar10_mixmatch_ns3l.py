r"""MixMatch + NS3L on CIFAR-10.

python -m nsl_jax.main \
    --config=configs/cifar10_mixmatch_ns3l.py:labels=250,seeds=5

Paper, test error in %: 12.48 +- 1.21 with 250 labels (NS-T3-2),
6.92 +- .12 with 4,000 (NS-T3-4).
Ours: not run.
Time: 307,200 steps of WRN-28-2, 2.2 s each on two CPU cores, 8 days a
seed; not measured on a GPU (docs/speed.md).
Arguments: labels=250; quick=true for a quarter of the steps.

Profile M-C10+NS (docs/readings.md). Only the arXiv versions of NS3L give the
300 epochs (F-N10).
"""

from configs import common

_ROWS = {250: 'NS-T3-2', 4000: 'NS-T3-4'}
_EPOCH = 1024  # steps


def get_config(arg=None):
  arg = common.parse(arg, labels=250)
  config = common.base('cifar10', steps=300 * _EPOCH)
  config.protocol = 'median_last_20'
  config.data.update(
    labeled=arg.labels,
    # Labels follow the class frequencies as in MixMatch's code (F-N16).
    rule='proportional',
    validation=5000,
    validation_rule='uniform',
    normalize='signed',
    augment='flip,translate:4',
  )
  config.batch = dict(labeled=64, unlabeled=64)
  config.model = dict(name='wide_resnet', variant='mixmatch', stages=3)
  config.optimizer.update(name='adam', lr=2e-3)  # constant
  config.ema_decay = 0.999  # of the evaluated weights
  config.weight_decay = 0.02
  config.method = dict(
    name='mixmatch',
    weight=75.0,
    ramp='linear',
    ramp_steps=16_384,
    alpha=0.75,
    temperature=0.5,
    views=2,
    ratio_per_batch=False,
    terms=dict(
      # Negatives from the mixed labels. The equation has no ramp, and needs
      # none: no class of a uniform guess is below 0.05 (F-N5).
      ns3l=dict(
        weight=5.0 if arg.labels < 4000 else 10.0,
        sampler='threshold',
        threshold=0.05,
        passes=1,
        ramp='none',
        ramp_steps=0,
      )
    ),
  )
  config.eval.every_steps = _EPOCH
  config.checkpoint.every = _EPOCH
  config.log_every = 128
  config.row = _ROWS.get(arg.labels, '')
  return common.finish(config, arg)
