r"""Supervised on SVHN, 1,000 labels.

python -m nsl_jax.main --config=configs/svhn_supervised.py:seeds=5

Paper: NS-T1-9, 12.39 +- .53 %.
Arguments: labels=1000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'svhn')
  config = families.family_o('svhn', arg, lr=0.003, row='NS-T1-9')
  config.batch = dict(labelled=100, unlabelled=0)
  return common.finish(config, arg)
