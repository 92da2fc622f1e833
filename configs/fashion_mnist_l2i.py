r"""Learning to Impute on Fashion-MNIST with few labels, alone and on its hosts.

python -m nsl_jax.main --config=configs/fashion_mnist_l2i.py:host=mt,variant=v2

Rows FM-SSL100-1 ... -9, profile FM-SSL (docs/readings.md); ours, not from a
paper. Arguments: host=mt, or mm, pl; variant=v2, or v1, none; labels=100;
gradient=nested, or tangent, the same number in another way, to measure.

Weights are those of the same host on CIFAR-10, ramps the same share of the run.
The inner rates are F-L4's until they are searched by validation error, which
they should be: at them V2's inner step overshoots and the network diverges.

python -m nsl_jax.search \
    --config=configs/fashion_mnist_l2i.py:host=mt,variant=v2 \
    --grid method.inner_rate=1e-5,3e-5,1e-4,3e-4 --reduced 2000
"""

from configs import common, families, family_l

# Host, steps of the run that its horizons are written for.
_HOSTS = {
    'pl': (family_l.pseudo_label(16_000), 40_000),
    'mt': (family_l.mean_teacher(400_000), 1_000_000),
    'mm': (family_l.mixmatch(16 * 1024, 75.0), 1024 * 1024),
}
_VARIANTS = ('none', 'v1', 'v2')
_GRADIENTS = ('nested', 'tangent')


def get_config(arg=None):
  arg = common.parse(
      arg, host='mt', variant='v2', labels=100, gradient='nested'
  )
  host, steps = common.choose('host', arg.host, _HOSTS)
  method = family_l.impute(host, arg.variant, 1e-3)
  common.choose('gradient', arg.gradient, dict.fromkeys(_GRADIENTS))
  if arg.variant != 'none':
    method.update(gradient=arg.gradient)
  config = families.fm_ssl(
      arg, method, steps=steps, holdout=0 if arg.variant == 'none' else 64
  )
  if arg.labels == 100:
    number = 3 * list(_HOSTS).index(arg.host) + _VARIANTS.index(arg.variant)
    config.row = f'FM-SSL100-{1 + number}'
  return common.finish(config, arg)
