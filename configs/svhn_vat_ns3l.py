r"""VAT + NS3L on SVHN, 1,000 labels.

python -m nsl_jax.main --config=configs/svhn_vat_ns3l.py:seeds=5

Paper: NS-T1-16, 5.51 +- .14 %.
Arguments: labels=1000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'svhn')
  config = families.family_o('svhn', arg, lr=0.0006, row='NS-T1-16')
  terms = dict(ns3l=families.ns3l('svhn', weight=0.3))
  config.method = dict(
    name='vat', terms=terms, **families.vat('svhn', weight=0.3)
  )
  return common.finish(config, arg)
