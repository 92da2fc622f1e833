r"""Learning to Impute on Fashion-MNIST with few labels, alone and on its hosts.

python -m nsl_jax.main --config=configs/fashion_mnist_l2i.py:host=mt,variant=v2

Paper: none, these rows are ours.
Ours, test error in % over 3 seeds at 1,200 steps: FM-SSL100-1 26.64 +- 0.44, -2
26.67 +- 0.88, -3 26.50 +- 0.39, -4 28.25 +- 1.59, -5 28.63 +- 1.44, -6 28.28 +-
1.19, -7 30.19 +- 2.12, -8 27.53 +- 0.78, -9 25.10 +- 2.16, -10 26.11 +- 0.29,
-11 27.87 +- 2.05, -12 27.31 +- 0.93.
Time: 20,000 steps; at 1,200 a seed took 10 to 21 minutes for pl on one CPU
core, 12 to 26 for mt and 9 to 20 for mm, with pauses.
Arguments: host=mt, or mm, pl; variant=v2, or v1, none, or still for V1's second
update with unchanged labels; labels=100.

Profile FM-SSL (docs/readings.md). Weights are those of the same host on
CIFAR-10; ramps take the same share of the run. With the inner rates of the
released code (100 and 50 times the learning rate) V2 diverges on this network;
those here had the lowest validation error in a small search of one seed on mt,
tied with another, before short runs were evaluated as they are now (F-L4).
"""

from configs import common

# Host, and length of the run for which its horizons are set.
_HOSTS = {
  'pl': (
    dict(
      name='pseudo_label_l2i',
      weight=75.0,
      ramp='linear',
      ramp_steps=16_000,
      teacher=False,
      hard=False,
      interleave=True,
      terms={},
    ),
    40_000,
  ),
  'mt': (
    dict(
      name='pseudo_label_l2i',
      weight=50.0,
      ramp='linear',
      ramp_steps=400_000,
      teacher=True,
      decay=0.999,
      interleave=True,
      terms={},
    ),
    1_000_000,
  ),
  'mm': (
    dict(
      name='mixmatch',
      weight=75.0,
      ramp='linear',
      ramp_steps=16 * 1024,
      alpha=0.75,
      temperature=0.5,
      views=2,
      ratio_per_batch=True,
      moved_by='all',
      terms={},
    ),
    1024 * 1024,
  ),
}
# Variant, inner rate.
_VARIANTS = {'none': 0.0, 'v1': 0.01, 'v2': 3e-4, 'still': 0.01}


def _method(host, variant, rate):
  if variant == 'none':
    return host
  return dict(
    name='l2i',
    host=host,
    variant='v1' if variant == 'still' else variant,
    inner_rate=rate,
    label_rate=0.0 if variant == 'still' else 1.0,
    label_space='logits',
    log_test_loss=False,
  )


def _row(arg):
  at, variants = list(_HOSTS).index(arg.host), list(_VARIANTS)
  still = arg.variant == 'still'
  number = 10 + at if still else 1 + 3 * at + variants.index(arg.variant)
  return f'FM-SSL100-{number}'


def get_config(arg=None):
  arg = common.parse(arg, host='mt', variant='v2', labels=100)
  host, steps = common.choose('host', arg.host, _HOSTS)
  rate = common.choose('variant', arg.variant, _VARIANTS)
  config = common.base('fashion_mnist', steps=steps)
  config.protocol = 'best_validation'
  config.data.update(
    labeled=arg.labels, validation=500, augment='flip,translate:2'
  )
  config.batch = dict(labeled=64, unlabeled=64)
  if arg.variant != 'none':
    config.batch.holdout = 64
  config.model = dict(name='small_cnn', batch_norm=True)
  config.optimizer.update(name='adam', lr=1e-3)  # constant
  config.method = _method(host, arg.variant, rate)
  common.scale(config, 20_000 / steps)
  config.steps = config.full_steps = 20_000
  config.ema_decay = 0.999  # of the evaluated weights
  config.eval.update(every_steps=1000, batch_norm='recomputed')
  config.log_every = 100
  config.checkpoint.every = 1000
  if arg.labels == 100:
    config.row = _row(arg)
  return common.finish(config, arg)
