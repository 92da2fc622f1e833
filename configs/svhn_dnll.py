r"""DNLL on SVHN, WRN-28-2.

python -m nsl_jax.main --config=configs/svhn_dnll.py:labels=1000,seeds=3

Paper: DN-T3-1, 1,000 labels, accuracy 96.41 %; DN-T3-2, 4,000, 96.84 %.
Ours: not run.
Time: 262,144 steps of two WRN-28-2 on 128 + 128 images; not measured (64 + 64
images take 2.8 s on two CPU cores, docs/speed.md).
Arguments: labels=1000, selection=epm or ep, count=3, unsupervised=both, cross
or self; quick=true for a quarter of the steps.

Profile D-SV (docs/readings.md). The paper gives neither the number of steps nor
the split of the batch nor Nesterov's momentum nor the weight of negative
labels; these are ours, the last that of the released combinations (F-D7).
"""

from configs import common

_ROWS = {
  (labels, 'epm', 3, 'both'): row
  for labels, row in ((1000, 'DN-T3-1'), (4000, 'DN-T3-2'))
}
_VALIDATION = 5000  # 500 a class (F-D13)


def get_config(arg=None):
  arg = common.parse(
    arg, labels=1000, selection='epm', count=3, unsupervised='both'
  )
  epoch = (73_257 - _VALIDATION - arg.labels) // 128
  config = common.base('svhn', steps=2**18)
  config.protocol = 'best_validation'
  config.data.update(
    labeled=arg.labels,
    validation=_VALIDATION,
    normalize='standard',
    augment='',
    strong='translate_x:4',  # the paper gives no size (F-D15)
  )
  config.batch = dict(labeled=128, unlabeled=128)
  config.model = dict(name='wide_resnet', variant='oliver')
  common.sgd(config, lr=0.03, weight_decay=5e-4)  # cosine decay to 0
  config.method = dict(
    name='dnll',
    selection=arg.selection,
    count=arg.count,
    unsupervised=arg.unsupervised,
    terms={},
    weight=2.0,  # after 16 epochs
    ramp='dnll',
    ramp_steps=100 * epoch,
    hold_steps=epoch,
  )
  config.eval.every_steps = 5 * epoch
  config.log_every = 100
  config.checkpoint.every = 5 * epoch
  config.row = _ROWS.get(
    (arg.labels, arg.selection, arg.count, arg.unsupervised), ''
  )
  return common.finish(config, arg)
