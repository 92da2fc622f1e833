r"""NS3L on CIFAR-10, 4,000 labels.

python -m nsl_jax.main --config=configs/cifar10_ns3l.py:seeds=5

Paper: NS-T1-3, 16.03 +- .05 %.
Arguments: labels=4000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'cifar10')
  config = families.family_o('cifar10', arg, lr=0.0006, row='NS-T1-3')
  config.method = dict(
    name='ns3l', terms={}, **families.ns3l('cifar10', weight=1.0)
  )
  return common.finish(config, arg)
