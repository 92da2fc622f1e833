r"""Pseudo-Label on SVHN, 1,000 labels.

python -m nsl_jax.main --config=configs/svhn_pseudo_label.py:seeds=5

Paper: NS-T1-10, 7.70 +- .22 %.
Arguments: labels=1000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'svhn')
  config = families.family_o('svhn', arg, lr=0.0003, row='NS-T1-10')
  config.method = dict(
    name='pseudo_label', weight=1.0, threshold=0.95, terms={}, **families.RAMP
  )
  return common.finish(config, arg)
