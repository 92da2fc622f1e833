r"""DNLL on MNIST with very few labels, 13-layer network.

python -m nsl_jax.main --config=configs/mnist_dnll.py:labels=20,seeds=3

Paper: DN-T4-1 ... -3, accuracy 99.19, 99.32, 99.54 % with 20, 50, 100 labels.
Arguments: labels=20, selection=epm or ep, count=3, unsupervised=both, cross or
self, width=1 (factor on the number of filters; another is not the paper's
network); quick=true for a quarter of the steps.
"""

from configs import common, family_d

_ROWS = {
    (labels, 'cnn13', 'epm', 3, 'both'): row for labels, row in (
        (20, 'DN-T4-1'), (50, 'DN-T4-2'), (100, 'DN-T4-3'))
}


def get_config(arg=None):
  arg = common.parse(
      arg, labels=20, selection='epm', count=3, unsupervised='both',
      width=1.0,
  )
  arg.model = 'cnn13'
  config = family_d.family_d('mnist', arg, _ROWS)
  if arg.width != 1.0:
    config.model.width = arg.width
    config.row = ''
  return common.finish(config, arg)
