r"""VAT + entropy minimisation on SVHN, 1,000 labels.

python -m nsl_jax.main --config=configs/svhn_vat_entmin.py:seeds=5

Paper: NS-T1-13, 6.10 +- .02 %.
Arguments: labels=1000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'svhn')
  config = families.family_o('svhn', arg, lr=0.003, row='NS-T1-13')
  terms = dict(entropy=dict(weight=0.06, **families.CONSTANT))  # F-N7
  config.method = dict(
    name='vat', terms=terms, **families.vat('svhn', weight=0.3)
  )
  return common.finish(config, arg)
