r"""MixMatch on STL-10.

python -m nsl_jax.main \
    --config=configs/stl10_mixmatch.py:labels=1000,seeds=5

Paper: NS-T5-1, 1,000 labels, 22.20 +- .89 %.
Arguments: labels=1000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_m(arg, 'stl10')
  config = families.family_m('stl10', arg, weight=50.0, rows={1000: 'NS-T5-1'})
  return common.finish(config, arg)
