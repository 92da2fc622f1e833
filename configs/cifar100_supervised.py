r"""Supervised on CIFAR-100, 10,000 labels.

python -m nsl_jax.main --config=configs/cifar100_supervised.py:seeds=5

Paper: NS-T1-17, 48.26 +- .25 %.
Arguments: labels=10000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'cifar100')
  config = families.family_o('cifar100', arg, lr=0.003, row='NS-T1-17')
  config.batch = dict(labelled=100, unlabelled=0)
  return common.finish(config, arg)
