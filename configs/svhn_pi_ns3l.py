r"""Pi model + NS3L on SVHN, 1,000 labels.

python -m nsl_jax.main --config=configs/svhn_pi_ns3l.py:seeds=5

Paper: NS-T1-15, 7.98 +- .18 %.
Arguments: labels=1000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'svhn')
  config = families.family_o('svhn', arg, lr=0.0006, row='NS-T1-15')
  terms = dict(ns3l=families.ns3l('svhn', weight=1.0))
  config.method = dict(  # lr: F-N15
    name='pi', weight=20.0, terms=terms, **families.RAMP
  )
  return common.finish(config, arg)
