r"""MixMatch + NS3L on STL-10.

python -m nsl_jax.main \
    --config=configs/stl10_mixmatch_ns3l.py:labels=1000,seeds=5

Paper: NS-T5-2, 1,000 labels, 21.74 +- .33 %.
Arguments: labels=1000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_m(arg, 'stl10')
  config = families.family_m('stl10', arg, weight=50.0, rows={1000: 'NS-T5-2'})
  config.method.terms = dict(ns3l=families.ns3l_on_labels(2.0))
  return common.finish(config, arg)
