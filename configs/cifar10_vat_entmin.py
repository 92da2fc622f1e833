r"""VAT + entropy minimisation on CIFAR-10, 4,000 labels.

python -m nsl_jax.main --config=configs/cifar10_vat_entmin.py:seeds=5

Paper: NS-T1-5, 14.34 +- .18 %.
Arguments: labels=4000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'cifar10')
  config = families.family_o('cifar10', arg, lr=0.003, row='NS-T1-5')
  terms = dict(entropy=dict(weight=0.06, **families.CONSTANT))  # F-N7
  config.method = dict(
    name='vat', terms=terms, **families.vat('cifar10', weight=0.3)
  )
  return common.finish(config, arg)
