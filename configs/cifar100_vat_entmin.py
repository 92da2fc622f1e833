r"""VAT + entropy minimisation on CIFAR-100, 10,000 labels.

python -m nsl_jax.main --config=configs/cifar100_vat_entmin.py:seeds=5

Paper: NS-T1-21, 43.92 +- .44 %.
Arguments: labels=10000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'cifar100')
  config = families.family_o('cifar100', arg, lr=0.003, row='NS-T1-21')
  terms = dict(entropy=dict(weight=0.06, **families.CONSTANT))  # F-N7
  config.method = dict(
    name='vat', terms=terms, **families.vat('cifar100', weight=0.3)
  )
  return common.finish(config, arg)
