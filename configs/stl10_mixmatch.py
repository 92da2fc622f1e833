r"""MixMatch on STL-10.

python -m nsl_jax.main \
    --config=configs/stl10_mixmatch.py:labels=1000,seeds=5

Paper, test error in %: 22.20 +- .89 with 1,000 labels (NS-T5-1).
Ours: not run.
Time: 102,400 steps of a WRN-28-2 with a fourth stage on images of 96x96; not
measured.
Arguments: labels=1000; quick=true for a quarter of the steps.

Profile M-STL (docs/readings.md). NS3L says "significantly fewer" epochs than
300; the 100 are ours (F-N10).
"""

from configs import common

_ROWS = {1000: 'NS-T5-1'}
_EPOCH = 1024  # steps


def get_config(arg=None):
  arg = common.parse(arg, labels=1000)
  config = common.base('stl10', steps=100 * _EPOCH)
  config.protocol = 'median_last_20'
  config.data.update(
    labeled=arg.labels,
    # Labels follow the class frequencies as in MixMatch's code (F-N16).
    rule='proportional',
    validation=0,
    validation_rule='uniform',
    normalize='signed',
    augment='flip,translate:12',
  )
  config.batch = dict(labeled=64, unlabeled=64)
  # The paper says "the same model", but MixMatch's run for STL-10 has a fourth
  # stage (F-N11).
  config.model = dict(name='wide_resnet', variant='mixmatch', stages=4)
  config.optimizer.update(name='adam', lr=2e-3)  # constant
  config.ema_decay = 0.999  # of the evaluated weights
  config.weight_decay = 0.02
  config.method = dict(
    name='mixmatch',
    weight=50.0,
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
