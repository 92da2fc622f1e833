r"""MixMatch + NS3L on CIFAR-10.

python -m nsl_jax.main \
    --config=configs/cifar10_mixmatch_ns3l.py:labels=250,seeds=5

Paper: NS-T3-2, 250 labels, 12.48 +- 1.21 %.
Paper: NS-T3-4, 4,000 labels, 6.92 +- .12 %.
Arguments: labels=250; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_m(arg, 'cifar10')
  config = families.family_m(
    'cifar10', arg, weight=75.0, rows={250: 'NS-T3-2', 4000: 'NS-T3-4'}
  )
  weight = 5.0 if arg.labels < 4000 else 10.0
  config.method.terms = dict(ns3l=families.ns3l_on_labels(weight))
  return common.finish(config, arg)
