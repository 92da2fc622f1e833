r"""Learning to Impute five facial landmarks on AFLW.

python -m nsl_jax.main --config=configs/aflw_l2i.py:host=pl,variant=v1

Paper, mean error in % of the distance of the eyes, with 91, 182, 455, 911
labels. L2-T1-1 ... -28: SL 16.41, 14.26, 11.83, 10.21; PL 12.89, 11.52, 9.73,
9.03; +V1 11.90, 10.87, 9.55, 8.83; +V2 12.72, 11.44, 9.89, 8.92; MT 12.83,
11.43, 9.76, 8.91; +V1 11.92, 10.73, 9.32, 8.60; +V2 12.52, 11.28, 9.80, 8.78.
With all 9,110: L2-T1-29, SL, 7.83; L2-T1-mean, host=mean, 16.58, the mean of
the labeled landmarks for every face, without training.
Ours: not run.
Time: 22,500 steps of TCDCN on images of 60x60; not measured.
Arguments: labels=91; host=pl, or mt, sl, mean; variant=v1, or v2, none;
watch=true; quick=true for a quarter of the steps.

L2-F2 plots watch=true, V1 with 91 labels: losses of the hold-out batch and of
256 test images before and after each step of V1. L2-F3 shows test images with
the points that host=mt predicts without and with V1. Profile L-REG
(docs/readings.md): the rate drops once after two thirds of the run, as in the
released code; the paper's drop every 750 steps would reach 1e-30. The paper
ramps the weight to 1, the released code to 75 (F-L11).
"""

from configs import common

_LABELS = (91, 182, 455, 911)
# In the order of the table, four rows each.
_COLUMNS = (
  ('sl', 'none'),
  ('pl', 'none'),
  ('pl', 'v1'),
  ('pl', 'v2'),
  ('mt', 'none'),
  ('mt', 'v1'),
  ('mt', 'v2'),
)
_ALL = 9110
_STEPS, _EPOCH, _BATCH = 22_500, 150, 128
_HOSTS = {
  'mean': dict(name='mean_label', terms={}),
  'sl': dict(name='supervised', terms={}),
  # Without batch normalization all images form one batch.
  'pl': dict(
    name='pseudo_label_l2i',
    weight=1.0,
    ramp='linear',
    ramp_steps=9000,
    teacher=False,
    hard=False,
    interleave=False,
    terms={},
  ),
  'mt': dict(
    name='pseudo_label_l2i',
    weight=1.0,
    ramp='linear',
    ramp_steps=9000,
    teacher=True,
    decay=0.999,
    interleave=False,
    terms={},
  ),
}
# Inner rate / current learning rate in the released code, for a mean loss; the
# paper gives none (F-L4).
_INNER = {'none': 0.0, 'v1': 1.0, 'v2': 10.0}


def _row(labels: int, host: str, variant: str) -> str:
  column = host, variant
  if labels == _ALL and variant == 'none':
    return {'sl': 'L2-T1-29', 'mean': 'L2-T1-mean'}.get(host, '')
  if labels not in _LABELS or column not in _COLUMNS:
    return ''
  number = 1 + 4 * _COLUMNS.index(column) + _LABELS.index(labels)
  return f'L2-T1-{number}'


def get_config(arg=None):
  arg = common.parse(
    arg, labels=_LABELS[0], host='pl', variant='v1', watch=False
  )
  host = common.choose('host', arg.host, _HOSTS)
  alone = arg.host in ('mean', 'sl')
  if arg.variant != 'none' and alone:
    raise ValueError(f'host={arg.host} imputes nothing: give variant=none')
  if arg.watch and arg.variant == 'none':
    raise ValueError('watch=true needs variant=v1 or v2')
  inner = common.choose('variant', arg.variant, _INNER)
  steps = _EPOCH if arg.host == 'mean' else _STEPS
  config = common.base('aflw', steps=steps)
  config.task = 'regression'
  config.protocol = 'best_validation'
  config.data.update(
    labeled=arg.labels,
    rule='uniform',
    validation=1012,
    validation_rule='uniform',
    normalize='unit',
    augment='translate:4',
  )
  config.batch = dict(labeled=_BATCH, unlabeled=0 if alone else _BATCH)
  config.model = dict(name='tcdcn')
  config.method = host
  if arg.variant != 'none':
    config.batch.holdout = _BATCH
    config.method = dict(
      name='l2i',
      host=host,
      variant=arg.variant,
      inner_rate=inner,
      label_rate=1.0,  # step on the labels
      label_space='logits',
      log_test_loss=arg.watch,
      follow_rate=True,
    )
  common.sgd(config, lr=0.03, weight_decay=5e-4, nesterov=False, cosine_steps=0)
  config.optimizer.update(drop_steps=round(steps * 2 / 3), drop_factor=0.1)
  # Of the evaluated weights; a run of host=mean averages the same share of it.
  config.ema_decay = 0.999 ** (_STEPS / steps)
  if not arg.watch:  # the run of a figure is not a row
    config.row = _row(arg.labels, arg.host, arg.variant)
  config.eval.every_steps = _EPOCH
  config.checkpoint.every = 10 * _EPOCH
  config.log_every = _EPOCH
  return common.finish(config, arg)
