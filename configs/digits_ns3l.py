r"""NS3L on scikit-learn's digits, 50 labels: the default job, no download.

python -m nsl_jax.main --config=configs/digits_ns3l.py:seeds=5

Paper: none, this row is ours.
Ours, test error in %: DIG-2 4.83 +- .70 at the full 2,000 steps, five seeds.
Time: 24 s a seed on two CPU cores.
Arguments: labels=50.

Profile DIG (docs/readings.md): 1,797 images of 8x8, 360 of them for testing,
180 for validation.
"""

from configs import common


def get_config(arg=None):
  arg = common.parse(arg, labels=50)
  config = common.base('digits', steps=2000)
  config.row = 'DIG-2' if arg.labels == 50 else ''
  config.protocol = 'best_validation'
  config.eval.batch_norm = 'recomputed'
  config.data.update(labeled=arg.labels, validation=180, augment='translate:1')
  config.batch = dict(labeled=50, unlabeled=50)
  config.method = dict(
    name='ns3l',
    weight=1.0,
    ramp='sigmoid',
    ramp_steps=500,
    sampler='threshold',
    threshold=0.04,
    passes=2,
    terms={},
  )
  return common.finish(config, arg)
