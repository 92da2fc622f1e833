r"""MixMatch on CIFAR-10.

python -m nsl_jax.main \
    --config=configs/cifar10_mixmatch.py:labels=250,seeds=5

Paper: NS-T3-1, 250 labels, 14.49 +- 1.60 %.
Paper: NS-T3-3, 4,000 labels, 7.05 +- .10 %.
Arguments: labels=250; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_m(arg, 'cifar10')
  config = families.family_m(
    'cifar10', arg, weight=75.0, rows={250: 'NS-T3-1', 4000: 'NS-T3-3'}
  )
  return common.finish(config, arg)
