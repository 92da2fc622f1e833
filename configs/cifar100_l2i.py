r"""Learning to Impute on CIFAR-100, alone and on its hosts.

python -m nsl_jax.main --config=configs/cifar100_l2i.py:host=mm,variant=v2

Paper, with 500, 1,000, 2,000 labels. 13-layer network, L2-T2-13 ... -24: SL
88.23, 82.32, 72.08; PL 85.00, 76.30, 67.32; +V1 84.41, 75.67, 66.03; +V2 84.04,
75.12, 64.37. WRN-28-2, L2-T3-19 ... -36: MT 88.44, 76.78, 64.01; +V1 87.05,
75.84, 62.88; +V2 85.96, 75.24, 61.45; MM 78.06, 65.45, 51.14; +V1 76.90, 63.62,
50.53; +V2 71.82, 61.98, 51.73. PL with a separate hold-out set, L2-T4-4 ... -6:
V1 84.18, 75.96, 65.41; -10 ... -12: V2 80.68, 75.80, 65.83.
Arguments: labels=500; host=mt, or mm, pl, sl; variant=v2, or v1, none;
separate=true; holdout=128; quick=true for a quarter of the steps.
"""

from configs import common, family_l


def get_config(arg=None):
  arg = family_l.parse(arg, 'cifar100')
  return common.finish(family_l.family_l('cifar100', arg), arg)
