r"""Every method on Fashion-MNIST with few labels, at one budget.

python -m nsl_jax.main --config=configs/fashion_mnist_ssl.py:method=mixmatch

Rows FM-SSL-1 ... FM-SSL-9, profile FM-SSL (docs/readings.md); ours, not from a
paper: `python -m nsl_jax report --match FM-SSL`. Arguments: method=vat,
labels=250.

Weights and thresholds are those of the same method on CIFAR-10; ramps take the
same share of the run. The exception is VAT's eps: 6 on whitened images, with a
standard deviation near 1, is 6 / sqrt(32 * 32 * 3) of it per value; with that
of these images (0.353, 28 * 28 values) it is 1.07, rounded to 1.
"""

from configs import common, families

_O, _M = 200_000, 300 * 1024  # steps of families O and M on CIFAR-10


def _vat():
  return dict(
    name='vat',
    weight=0.3,
    eps=1.0,
    mode='exact',
    kl_direction='adversarial',
    **families.RAMP,
  )


def _pi():
  return dict(name='pi', weight=20.0, **families.RAMP)


def _mixmatch():
  return dict(
    name='mixmatch',
    weight=75.0,
    ramp='linear',
    ramp_steps=16_384,
    alpha=0.75,
    temperature=0.5,
    views=2,
    ratio_per_batch=False,
  )


def _ns3l(weight):
  return dict(ns3l=families.ns3l('cifar10', weight))


# Method, its terms, and length of the run for which its horizons are set.
_METHODS = {
  'supervised': (dict(name='supervised'), {}, _O),
  'pi': (_pi(), {}, _O),
  'mean_teacher': (
    dict(name='mean_teacher', weight=8.0, decay=0.95, **families.RAMP),
    {},
    _O,
  ),
  'vat': (_vat(), {}, _O),
  'vat_ns3l': (_vat(), _ns3l(0.3), _O),
  'mixmatch': (_mixmatch(), {}, _M),
  'mixmatch_ns3l': (_mixmatch(), dict(ns3l=families.ns3l_on_labels(5.0)), _M),
  'ns3l': (dict(name='ns3l', **families.ns3l('cifar10', 1.0)), {}, _O),
  'pi_ns3l': (_pi(), _ns3l(1.0), _O),
}


def get_config(arg=None):
  arg = common.parse(arg, method='vat_ns3l', labels=250)
  method, terms, steps = common.choose('method', arg.method, _METHODS)
  config = families.fm_ssl(arg, dict(terms=terms, **method), steps=steps)
  if arg.labels == 250:
    config.row = f'FM-SSL-{1 + list(_METHODS).index(arg.method)}'
  return common.finish(config, arg)
