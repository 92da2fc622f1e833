r"""Learning to Impute five facial landmarks on AFLW.

python -m nsl_jax.main --config=configs/aflw_l2i.py:host=pl,variant=v1

Paper, mean error in % of the distance of the eyes, with 91, 182, 455, 911
labels. L2-T1-1 ... -28: SL 16.41, 14.26, 11.83, 10.21; PL 12.89, 11.52, 9.73,
9.03; +V1 11.90, 10.87, 9.55, 8.83; +V2 12.72, 11.44, 9.89, 8.92; MT 12.83,
11.43, 9.76, 8.91; +V1 11.92, 10.73, 9.32, 8.60; +V2 12.52, 11.28, 9.80, 8.78.
With all 9,110: L2-T1-29, SL, 7.83; L2-T1-mean, host=mean, 16.58, the mean of
the labeled landmarks for every face, without training.
L2-F2 plots watch=true, V1 with 91 labels: losses of the hold-out batch and of
256 test images before and after each step of V1. L2-F3 shows test images with
the points that host=mt predicts without and with V1. Arguments: labels=91;
host=pl, or mt, sl, mean; variant=v1, or v2, none; watch=true; quick=true for a
quarter of the steps.
"""

from configs import common, landmarks

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
_EPOCH = 150  # steps


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
  steps = _EPOCH if arg.host == 'mean' else landmarks.STEPS
  config = landmarks.l_reg('aflw', arg, steps=steps, batch=128)
  config.data.validation = 1012
  if not arg.watch:  # the run of a figure is not a row
    config.row = _row(arg.labels, arg.host, arg.variant)
  config.eval.every_steps = _EPOCH
  config.checkpoint.every = 10 * _EPOCH
  config.log_every = _EPOCH
  return common.finish(config, arg)
