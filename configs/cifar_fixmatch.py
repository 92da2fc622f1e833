r"""FixMatch and its successors on CIFAR-10 and CIFAR-100.

python -m nsl_jax train \
    --config=configs/cifar_fixmatch.py:data=cifar10,labels=40,method=freematch

Paper, test error in %, of the same network for all in the results of USB, which
reports the best evaluation on test images:

                      fixmatch       flexmatch      freematch      softmatch
  cifar10 @40         8.33 +- 1.41   5.21 +- .36    4.97 +- .09    5.06 +- .02
  cifar10 @250        4.97 +- .05    5.00 +- .05    4.85 +- .10    4.84 +- .10
  cifar10 @4,000      4.29 +- .10    4.28 +- .05    4.14 +- .19    4.27 +- .12
  cifar100 @400      53.37 +- 2.15  50.15 +- 1.51  49.24 +- 2.16  49.64 +- 1.46
  cifar100 @2,500    34.29 +- .43   33.35 +- .33   32.79 +- .21   33.05 +- .05

Ours: not run.
Time: 1,048,576 steps of WRN-28-2 on 960 images, 9.4 s each on two CPU cores,
114 days a seed; not measured on a GPU (docs/speed.md).
Arguments: data=cifar10, or cifar100; labels=, by default the fewest of the
table; method=fixmatch, or flexmatch, freematch, softmatch; mu=7, unlabeled
images for each of the 64 labeled ones of a step; ns3l=, by default none, or
unconfident or all: negative labels for the images without a label, or for all.

Family F (docs/readings.md).
"""

from configs import common

_LABELS = {'cifar10': 40, 'cifar100': 400}
_METHODS = ('fixmatch', 'flexmatch', 'freematch', 'softmatch')
_WHERE = ('unconfident', 'all')


def get_config(arg=None):
  arg = common.parse(
    arg, data='cifar10', labels=0, method='fixmatch', mu=7, ns3l=''
  )
  fewest = common.choose('data', arg.data, _LABELS)
  if arg.mu < 1:
    raise ValueError(
      f'config argument mu={arg.mu}: must be at least 1 unlabeled image for '
      'each labeled one'
    )
  config = common.base(arg.data, steps=2**20)
  config.protocol = 'median_last_20'
  config.data.update(
    labeled=arg.labels or fewest,
    normalize='standard',
    augment='flip,translate:4',
    strong='flip,translate:4,randaugment:2,cutout:0.5',
    unlabeled_includes_labeled=True,
  )
  config.batch = dict(labeled=64, unlabeled=64 * arg.mu)
  config.model = dict(name='wide_resnet', variant='oliver')  # no biases
  name = common.choose('method', arg.method, dict(zip(_METHODS, _METHODS)))
  config.method = dict(name=name, terms={})
  if arg.ns3l:
    where = common.choose('ns3l', arg.ns3l, dict(zip(_WHERE, _WHERE)))
    config.method.terms.ns3l = dict(
      weight=1.0,
      sampler='threshold',
      threshold=0.004 if arg.data == 'cifar100' else 0.04,
      passes=1,
      where=where,
      ramp='none',
      ramp_steps=0,
    )
  common.sgd(
    config, lr=0.03, weight_decay=1e-3 if arg.data == 'cifar100' else 5e-4
  )
  config.optimizer.update(cosine='7/16', weight_decay_on='kernels')
  config.ema_decay = 0.999  # of the evaluated weights
  config.eval.every_steps = 1024
  config.checkpoint.every = 1024
  config.log_every = 128
  return common.finish(config, arg)
