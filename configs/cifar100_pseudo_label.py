r"""Pseudo-Label on CIFAR-100, 10,000 labels.

python -m nsl_jax.main --config=configs/cifar100_pseudo_label.py:seeds=5

Paper: NS-T1-18, 46.91 +- .31 %.
Arguments: labels=10000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'cifar100')
  config = families.family_o('cifar100', arg, lr=0.0003, row='NS-T1-18')
  config.method = dict(
    name='pseudo_label', weight=1.0, threshold=0.95, terms={}, **families.RAMP
  )
  return common.finish(config, arg)
