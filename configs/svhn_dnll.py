r"""DNLL on SVHN, WRN-28-2.

python -m nsl_jax.main --config=configs/svhn_dnll.py:labels=1000,seeds=3

Paper: DN-T3-1, 1,000 labels, accuracy 96.41 %; DN-T3-2, 4,000, 96.84 %.
Arguments: labels=1000, selection=epm or ep, count=3, unsupervised=both, cross
or self; quick=true for a quarter of the steps.
"""

from configs import common, family_d

_ROWS = {
  (labels, 'wrn', 'epm', 3, 'both'): row
  for labels, row in ((1000, 'DN-T3-1'), (4000, 'DN-T3-2'))
}


def get_config(arg=None):
  arg = common.parse(
    arg, labels=1000, selection='epm', count=3, unsupervised='both'
  )
  arg.model = 'wrn'
  config = family_d.family_d('svhn', arg, _ROWS)
  return common.finish(config, arg)
