r"""Pi model + NS3L on CIFAR-100, 10,000 labels.

python -m nsl_jax.main --config=configs/cifar100_pi_ns3l.py:seeds=5

Paper: NS-T1-23, 46.98 +- .41 %.
Arguments: labels=10000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'cifar100')
  config = families.family_o('cifar100', arg, lr=0.0006, row='NS-T1-23')
  terms = dict(ns3l=families.ns3l('cifar100', weight=1.0))
  config.method = dict(  # lr: F-N15
    name='pi', weight=20.0, terms=terms, **families.RAMP
  )
  return common.finish(config, arg)
