r"""MixMatch on SVHN.

python -m nsl_jax.main \
    --config=configs/svhn_mixmatch.py:labels=250,seeds=5

Paper: NS-T4-1, 250 labels, 3.75 +- .09 %.
Paper: NS-T4-3, 1,000 labels, 3.28 +- .11 %.
Arguments: labels=250; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_m(arg, 'svhn')
  config = families.family_m(
    'svhn', arg, weight=250.0, rows={250: 'NS-T4-1', 1000: 'NS-T4-3'}
  )
  return common.finish(config, arg)
