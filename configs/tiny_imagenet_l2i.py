r"""Learning to impute on Tiny-ImageNet, 5,000 labels, ResNet26.

python -m nsl_jax.main --config=configs/tiny_imagenet_l2i.py:host=mm,variant=v2

Paper, test error in %, L2-T5-1 ... -7: MT 81.62, +V1 80.52, +V2 80.63; MM
77.70, +V1 77.32, +V2 76.72; SL with all 100,000 labels 43.89.
Ours: not run.
Time: 22,200 steps (sl 23,400) of ResNet26 on 512 + 512 images of 64x64; not
measured.
Arguments: host=mt, or mm, sl; variant=v2, or v1, none; quick=true for a quarter
of the steps.

Profile L-TIN (docs/readings.md): 512 labeled and 512 unlabeled images per step,
120 epochs, Adam at 1e-3, 1e-4 from epoch 80 and 1e-5 from epoch 100; the paper
lowers the rate "by 0.1 and 0.01" and names neither image size nor augmentation
(F-L12). The images come from tiny-imagenet-200.zip: python -m nsl_jax data
--prepare tiny_imagenet says where to put it. The official validation images,
on which the paper tests, are the test images; there are no validation images.
"""

from configs import common

_TRAIN, _LABELS, _BATCH = 100_000, 5_000, 512
_EPOCH = (_TRAIN - _LABELS) // _BATCH
_RAMP = 48 * _EPOCH
_HOSTS = {  # method, and the paper's first row
  # An average of past weights imputes soft labels.
  'mt': (
    dict(
      name='pseudo_label_l2i',
      weight=100.0,
      ramp='linear',
      ramp_steps=_RAMP,
      teacher=True,
      decay=0.999,
      interleave=True,
      terms={},
    ),
    1,
  ),
  # One mixing ratio per batch; every pass updates the statistics, as in the
  # released code (F-L23).
  'mm': (
    dict(
      name='mixmatch',
      weight=100.0,
      ramp='linear',
      ramp_steps=_RAMP,
      alpha=0.75,
      temperature=0.5,
      views=2,
      ratio_per_batch=True,
      moved_by='all',
      terms={},
    ),
    4,
  ),
  'sl': (dict(name='supervised', terms={}), 7),
}
_VARIANTS = {'none': 0, 'v1': 1, 'v2': 2}  # rows after that


def get_config(arg=None):
  arg = common.parse(arg, host='mt', variant='v2')
  host, row = common.choose('host', arg.host, _HOSTS)
  row += common.choose('variant', arg.variant, _VARIANTS)
  every = arg.host == 'sl'
  if every and arg.variant != 'none':
    raise ValueError('host=sl imputes nothing: give variant=none')
  epoch = _TRAIN // _BATCH if every else _EPOCH
  config = common.base('tiny_imagenet', steps=120 * epoch)
  config.protocol = 'median_last_20'
  config.data.update(
    labeled=_TRAIN if every else _LABELS,
    normalize='standard',
    augment='flip,translate:8',
  )
  config.batch = dict(labeled=_BATCH, unlabeled=0 if every else _BATCH)
  config.model = dict(name='resnet26')
  config.optimizer = dict(
    name='adam', lr=1e-3, drop_steps=(80 * epoch, 100 * epoch), drop_factor=0.1
  )
  config.method = host
  if arg.variant != 'none':
    config.batch.holdout = _BATCH
    config.method = dict(
      name='l2i',
      host=host,
      variant=arg.variant,
      inner_rate=1.0,
      label_rate=1.0,
      label_space='labels',
      log_test_loss=False,
      gradient='last_layer',
    )
  config.ema_decay = 0.999
  config.eval.every_steps = epoch
  config.log_every = 50
  config.checkpoint.every = epoch
  config.row = f'L2-T5-{row}'
  return common.finish(config, arg)
