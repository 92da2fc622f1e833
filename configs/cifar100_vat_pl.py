r"""VAT + Pseudo-Label on CIFAR-100, 10,000 labels.

python -m nsl_jax.main --config=configs/cifar100_vat_pl.py:seeds=5

Paper: NS-T2-2, blank in every copy (F-N12); settings are ours (O-VATPL). The
rate, also that of VAT + NS3L, had the lowest mean validation error of three in
a small search on Fashion-MNIST (docs/readings.md, F-N12). On this data it is

python -m nsl_jax search --config=configs/cifar100_vat_pl.py \
    --grid optimizer.lr=3e-4,6e-4,3e-3

Arguments: labels=10000; lr=0.003; quick=true for a quarter of the steps.
"""

from configs import common, families


def get_config(arg=None):
  arg = common.parse(arg, labels=10_000, lr=0.003)
  config = families.vat_pl('cifar100', arg, row='NS-T2-2')
  return common.finish(config, arg)
