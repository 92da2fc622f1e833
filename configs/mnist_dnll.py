r"""DNLL on MNIST with very few labels, 13-layer network.

python -m nsl_jax.main --config=configs/mnist_dnll.py:labels=20,seeds=3

Paper: DN-T4-1 ... -3, accuracy 99.19, 99.32, 99.54 % with 20, 50, 100 labels.
Ours: not run at full width; MN-1 ... -6 (width=0.125) at 500 steps are
outdated, for the reason in results/.
Time: about 139,000 steps of two networks on 128 + 128 images; not measured at
full width, 0.9 s a step at width=0.125 on two CPU cores.
Arguments: labels=20; width=1, factor on the number of filters; method=dnll or
supervised; for dnll also selection=epm or ep, count=3, unsupervised=both, cross
or self; quick=true for a quarter of the steps.

Profile D-MN (docs/readings.md). Rows MN-1 ... -6 are ours: an eighth of the
filters, for a CPU, and the same network and splits without unlabeled images.
The paper gives neither the number of epochs nor the split of the batch nor
Nesterov's momentum nor the weight of negative labels; these are ours, the last
that of the released combinations (F-D7).
"""

from configs import common

_LABELS = 20, 50, 100
_NARROW = 0.125
_METHODS = {'supervised': 1, 'dnll': 2}  # number of the first row
_VALIDATION = 500  # 50 a class (F-D13)


def _row(arg):
  """The paper's at full width, ours at an eighth."""
  if arg.labels not in _LABELS:
    return ''
  if (arg.selection, arg.count, arg.unsupervised) != ('epm', 3, 'both'):
    return ''
  at = _LABELS.index(arg.labels)
  if arg.width == 1.0:
    return f'DN-T4-{1 + at}' if arg.method == 'dnll' else ''
  if arg.width != _NARROW:
    return ''
  return f'MN-{_METHODS[arg.method] + 2 * at}'


def get_config(arg=None):
  arg = common.parse(
    arg,
    labels=20,
    selection='epm',
    count=3,
    unsupervised='both',
    width=1.0,
    method='dnll',
  )
  common.choose('method', arg.method, _METHODS)
  epoch = (60_000 - _VALIDATION - arg.labels) // 128
  config = common.base('mnist', steps=300 * epoch)
  config.row = _row(arg)
  config.protocol = 'best_validation'
  config.data.update(
    labeled=arg.labels,
    validation=_VALIDATION,
    normalize='standard',
    augment='',  # the views differ by dropout only
  )
  config.batch = dict(labeled=128, unlabeled=128)
  config.model = dict(name='cnn13', variant='dual_student')
  if arg.width != 1.0:
    config.model.width = arg.width
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
  if arg.method == 'supervised':
    config.method = dict(name='supervised', terms={})
    config.batch.unlabeled = 0
  config.eval.every_steps = 5 * epoch
  config.log_every = 100
  config.checkpoint.every = 5 * epoch
  return common.finish(config, arg)
