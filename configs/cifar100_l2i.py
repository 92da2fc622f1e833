r"""Learning to Impute on CIFAR-100, alone and on its hosts.

python -m nsl_jax.main --config=configs/cifar100_l2i.py:host=mm,variant=v2

Paper, test error in % with 500, 1,000, 2,000 labels. 13-layer network, L2-T2-13
... -24: SL 88.23, 82.32, 72.08; PL 85.00, 76.30, 67.32; +V1 84.41, 75.67,
66.03; +V2 84.04, 75.12, 64.37. WRN-28-2, L2-T3-19 ... -36: MT 88.44, 76.78,
64.01; +V1 87.05, 75.84, 62.88; +V2 85.96, 75.24, 61.45; MM 78.06, 65.45, 51.14;
+V1 76.90, 63.62, 50.53; +V2 71.82, 61.98, 51.73. PL with a separate hold-out
set, L2-T4-4 ... -6: V1 84.18, 75.96, 65.41; -10 ... -12: V2 80.68, 75.80,
65.83.
Ours: not run.
Time: sl and pl 40,000 steps of the 13-layer network, mt and mm 1,048,576 of
WRN-28-2. Not measured with 128 images of each kind.
Arguments: labels=500; host=mt, or mm, pl, sl; variant=v2, or v1, none;
separate=true for a hold-out set of as many validation images as there are
labels; holdout=, held-out images a step, by default as many as labeled ones;
quick=true for a quarter of the steps.

Profiles L-13 and L-WRN (docs/readings.md): the median of the last 20
epochs is taken for all methods, where the code takes the mean for L2I (F-L9).
"""

from configs import common

_LABELS = 500, 1000, 2000
# Host, variant, whether the hold-out set is separate -> table, and row of the
# fewest labels.
_ROWS = {
  ('sl', 'none', False): ('L2-T2', 13),
  ('pl', 'none', False): ('L2-T2', 16),
  ('pl', 'v1', False): ('L2-T2', 19),
  ('pl', 'v2', False): ('L2-T2', 22),
  ('mt', 'none', False): ('L2-T3', 19),
  ('mt', 'v1', False): ('L2-T3', 22),
  ('mt', 'v2', False): ('L2-T3', 25),
  ('mm', 'none', False): ('L2-T3', 28),
  ('mm', 'v1', False): ('L2-T3', 31),
  ('mm', 'v2', False): ('L2-T3', 34),
  ('pl', 'v1', True): ('L2-T4', 4),
  ('pl', 'v2', True): ('L2-T4', 10),
}
# Inner rate / learning rate in the released code; the paper gives none (F-L4).
_INNER = {'none': 0.0, 'v1': 100.0, 'v2': 50.0}
# Network, steps, steps of an epoch, learning rate, images of each kind.
_CNN13 = 'cnn13', 40_000, 1000, 3e-3, 128
_WRN = 'wide_resnet', 1024 * 1024, 1024, 2e-3, 128
_HOSTS = {
  'sl': (*_CNN13, dict(name='supervised', terms={})),
  # The network imputes soft labels from another view, as in appendix A.2 and
  # the released code; section 3 describes the argmax (F-L10).
  'pl': (
    *_CNN13,
    dict(
      name='pseudo_label_l2i',
      weight=75.0,
      ramp='linear',
      ramp_steps=16_000,
      teacher=False,
      hard=False,
      interleave=True,
      terms={},
    ),
  ),
  # An average of past weights imputes them.
  'mt': (
    *_WRN,
    dict(
      name='pseudo_label_l2i',
      weight=50.0,
      ramp='linear',
      ramp_steps=round(0.4 * 1024 * 1024),
      teacher=True,
      decay=0.999,
      interleave=True,
      terms={},
    ),
  ),
  # One mixing ratio per batch; every pass updates the statistics, as in the
  # released code (F-L23). For CIFAR-100 the paper refers to MixMatch, whose run
  # file has a weight of 150 (F-L15).
  'mm': (
    *_WRN,
    dict(
      name='mixmatch',
      weight=150.0,
      ramp='linear',
      ramp_steps=16 * 1024,
      alpha=0.75,
      temperature=0.5,
      views=2,
      ratio_per_batch=True,
      moved_by='all',
      terms={},
    ),
  ),
}


def _row(arg, batch):
  which = arg.host, arg.variant, arg.separate
  if arg.labels in _LABELS and which in _ROWS and arg.holdout == batch:
    table, first = _ROWS[which]
    return f'{table}-{first + _LABELS.index(arg.labels)}'
  return ''


def get_config(arg=None):
  arg = common.parse(
    arg, labels=_LABELS[0], host='mt', variant='v2', separate=False, holdout=0
  )
  network, steps, epoch, lr, batch, host = common.choose(
    'host', arg.host, _HOSTS
  )
  inner = common.choose('variant', arg.variant, _INNER)
  if arg.variant == 'none' and arg.separate:
    raise ValueError('separate=true needs variant=v1 or v2')
  if arg.variant != 'none' and arg.host == 'sl':
    raise ValueError('host=sl imputes nothing: give variant=none')
  arg.holdout = arg.holdout or batch
  config = common.base('cifar100', steps=steps)
  config.row = _row(arg, batch)
  config.protocol = 'median_last_20'
  config.data.update(
    labeled=arg.labels,
    validation=5000,
    normalize='standard',
    augment='translate:4,flip',
    holdout=arg.labels if arg.separate else 0,
  )
  config.batch = dict(labeled=batch, unlabeled=batch)
  if arg.host == 'sl':
    config.batch.unlabeled = 0
  config.model = dict(name=network, variant='l2i')
  config.method = host
  if arg.variant != 'none':
    config.batch.holdout = arg.holdout
    config.method = dict(
      name='l2i',
      host=host,
      variant=arg.variant,
      inner_rate=inner * lr,
      label_rate=1.0,  # step on the labels
      label_space='logits',
      log_test_loss=False,
    )
  config.optimizer.update(name='adam', lr=lr)  # constant
  config.ema_decay = 0.999  # of the evaluated weights
  config.weight_decay = 0.02
  config.eval.every_steps = epoch
  config.checkpoint.every = epoch
  config.log_every = 128
  return common.finish(config, arg)
