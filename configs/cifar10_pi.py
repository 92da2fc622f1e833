r"""Pi model on CIFAR-10, 4,000 labels.

python -m nsl_jax.main --config=configs/cifar10_pi.py:seeds=5

Paper: NS-T1-6, 17.12 +- .19 %.
Arguments: labels=4000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'cifar10')
  config = families.family_o('cifar10', arg, lr=0.0003, row='NS-T1-6')
  config.method = dict(name='pi', weight=20.0, terms={}, **families.RAMP)
  return common.finish(config, arg)
