r"""Pi model on SVHN, 1,000 labels.

python -m nsl_jax.main --config=configs/svhn_pi.py:seeds=5

Paper: NS-T1-14, the value is missing (F-N12).
Arguments: labels=1000; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = families.parse_o(arg, 'svhn')
  config = families.family_o('svhn', arg, lr=0.0003, row='NS-T1-14')
  config.method = dict(name='pi', weight=20.0, terms={}, **families.RAMP)
  return common.finish(config, arg)
