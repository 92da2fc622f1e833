r"""Supervised baseline of digits_ns3l.py: the same 50 labels only.

python -m nsl_jax.main --config=configs/digits_supervised.py:seeds=5
"""

from configs import digits_ns3l


def get_config(arg=None):
  config = digits_ns3l.get_config(arg)
  terms = config.method.terms
  config.method = dict(name='supervised', terms=terms)
  config.batch.unlabeled *= bool(terms)
  config.row = 'DIG-1' if config.row else ''
  return config
