r"""VAT on CIFAR-10, 4,000 labels.

python -m nsl_jax.main --config=configs/cifar10_vat.py:seeds=5

Paper: NS-T1-4, 14.72 +- .23 %.
Arguments: labels=4000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'cifar10')
  config = families.family_o('cifar10', arg, lr=0.003, row='NS-T1-4')
  config.method = dict(
    name='vat', terms={}, **families.vat('cifar10', weight=0.3)
  )
  return common.finish(config, arg)
