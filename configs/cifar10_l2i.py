r"""Learning to Impute on CIFAR-10, alone and on its hosts.

python -m nsl_jax.main --config=configs/cifar10_l2i.py:host=mt,variant=v2

Paper, with 250, 500, 1,000 labels. 13-layer network, L2-T2-1 ... -12: SL 57.95,
46.06, 37.21; PL 45.19, 36.58, 27.19; +V1 43.74, 35.76, 26.46; +V2 42.51, 35.43,
26.38. WRN-28-2, L2-T3-1 ... -18: MT 38.90, 28.45, 19.36; +V1 34.72, 27.25,
18.07; +V2 27.72, 21.05, 14.93; MM 12.33, 10.14, 8.68; +V1 11.60, 10.24, 9.60;
+V2 10.92, 10.80, 9.54. PL with a separate hold-out set, L2-T4-1 ... -3: V1
43.26, 34.77, 26.95; -7 ... -9: V2 38.07, 33.12, 25.44. PL with 250 labels and
hold-out batches of 25, 50, 100, L2-F6: V1 43.4, 43.74, 43.72; V2 42.7, 42.51,
42.47.
Arguments: labels=250; host=mt, or mm, pl, sl; variant=v2, or v1, none;
separate=true; holdout=25; quick=true for a quarter of the steps.
"""

from configs import common, family_l


def get_config(arg=None):
  arg = family_l.parse(arg, 'cifar10')
  return common.finish(family_l.family_l('cifar10', arg), arg)
