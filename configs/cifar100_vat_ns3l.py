r"""VAT + NS3L on CIFAR-100, 10,000 labels.

python -m nsl_jax.main --config=configs/cifar100_vat_ns3l.py:seeds=5

Paper: NS-T1-24, 43.70 +- .19 %.
Arguments: labels=10000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'cifar100')
  config = families.family_o('cifar100', arg, lr=0.003, row='NS-T1-24')
  terms = dict(ns3l=families.ns3l('cifar100', weight=0.3))
  config.method = dict(
    name='vat', terms=terms, **families.vat('cifar100', weight=0.6)
  )
  return common.finish(config, arg)
