r"""MixMatch + NS3L on SVHN.

python -m nsl_jax.main \
    --config=configs/svhn_mixmatch_ns3l.py:labels=250,seeds=5

Paper: NS-T4-2, 250 labels, 3.38 +- .08 %.
Paper: NS-T4-4, 1,000 labels, 3.14 +- .11 %.
Arguments: labels=250; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_m(arg, 'svhn')
  config = families.family_m(
    'svhn', arg, weight=250.0, rows={250: 'NS-T4-2', 1000: 'NS-T4-4'}
  )
  config.method.terms = dict(ns3l=families.ns3l_on_labels(2.0))
  return common.finish(config, arg)
