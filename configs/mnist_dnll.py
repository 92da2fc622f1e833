r"""DNLL on MNIST with very few labels, 13-layer network.

python -m nsl_jax.main --config=configs/mnist_dnll.py:labels=20,seeds=3

Paper: DN-T4-1 ... -3, accuracy 99.19, 99.32, 99.54 % with 20, 50, 100 labels.
Rows MN-1 ... -6 are ours: an eighth of the filters, for a CPU, and the same
network and splits without unlabeled images. Arguments: labels=20; width=1,
factor on the number of filters; method=dnll or supervised; for dnll also
selection=epm or ep, count=3, unsupervised=both, cross or self; quick=true for a
quarter of the steps.
"""

from configs import common, family_d

_LABELS = 20, 50, 100
_ROWS = {
  (labels, 'cnn13', 'epm', 3, 'both'): f'DN-T4-{1 + at}'
  for at, labels in enumerate(_LABELS)
}
_NARROW = 0.125
_METHODS = {'supervised': 1, 'dnll': 2}  # number of the first row


def _row(arg, paper):
  """The row for the arguments: the paper's at full width."""
  if arg.width == 1.0:
    return paper if arg.method == 'dnll' else ''
  if arg.width != _NARROW or arg.labels not in _LABELS:
    return ''
  if (arg.selection, arg.count, arg.unsupervised) != ('epm', 3, 'both'):
    return ''
  return f'MN-{_METHODS[arg.method] + 2 * _LABELS.index(arg.labels)}'


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
  arg.model = 'cnn13'
  common.choose('method', arg.method, _METHODS)
  config = family_d.family_d('mnist', arg, _ROWS)
  config.row = _row(arg, config.row)
  if arg.width != 1.0:
    config.model.width = arg.width
  if arg.method == 'supervised':
    config.method = dict(name='supervised', terms={})
    config.batch.unlabeled = 0
  return common.finish(config, arg)
