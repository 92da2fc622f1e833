r"""Pseudo-Label on CIFAR-10, 4,000 labels.

python -m nsl_jax.main --config=configs/cifar10_pseudo_label.py:seeds=5

Paper: NS-T1-2, 17.56 +- .29 %.
Arguments: labels=4000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'cifar10')
  config = families.family_o('cifar10', arg, lr=0.0003, row='NS-T1-2')
  config.method = dict(
    name='pseudo_label', weight=1.0, threshold=0.95, terms={}, **families.RAMP
  )
  return common.finish(config, arg)
