r"""Supervised baseline of digits_ns3l.py: the same 50 labels only.

python -m nsl_jax.main --config=configs/digits_supervised.py:seeds=5

Paper: none, this row is ours.
Ours, test error in %: DIG-1 8.50 +- 2.12 at the full 2,000 steps, five seeds.
Time: 6 s a seed on two CPU cores.
Arguments: labels=50.
"""

from configs import digits_ns3l


def get_config(arg=None):
  config = digits_ns3l.get_config(arg)
  terms = config.method.terms
  config.method = dict(name='supervised', terms=terms)
  config.batch.unlabeled *= bool(terms)
  config.row = 'DIG-1' if config.row else ''
  return config
