r"""NS3L's Table 6: which negative labels help? Fashion-MNIST, 2,000 labels.

python -m nsl_jax.main \
    --config=configs/fashion_mnist_table6.py:negatives=threshold03,seeds=5

Rows NS-T6-1 ... NS-T6-10, profile FM (docs/readings.md). Test error in % of the
paper: none 17.25, uniform1 18.64, uniform3 19.35, exclude_nearest 17.12,
exclude_4_nearest 17.13, furthest 16.76, threshold03 16.47, threshold05 16.59,
oracle1 16.37, oracle3 15.20. The paper names neither network nor optimizer nor
batch size (F-N13). Our network is better, so compare differences from `none`;
ours: `python -m nsl_jax report --match NS-T6`.
Arguments: negatives=threshold05, labels=2000.

NS3L's second pass (F-N2) is omitted: without augmentation, dropout or batch
normalization both passes are equal.
"""

from configs import common

_NEGATIVES = {
  'none': None,
  'uniform1': dict(sampler='uniform', count=1),
  'uniform3': dict(sampler='uniform', count=3),
  'exclude_nearest': dict(sampler='exclude_nearest', exclude=1, count=1),
  'exclude_4_nearest': dict(sampler='exclude_nearest', exclude=4, count=1),
  'furthest': dict(sampler='furthest'),
  'threshold03': dict(sampler='threshold', threshold=0.03),
  'threshold05': dict(sampler='threshold', threshold=0.05),
  'oracle1': dict(sampler='oracle', count=1),
  'oracle3': dict(sampler='oracle', count=3),
}
_EPOCH = 580  # steps of 100 over 58,000 unlabeled images


def get_config(arg=None):
  arg = common.parse(arg, negatives='threshold05', labels=2000)
  negatives = common.choose('negatives', arg.negatives, _NEGATIVES)
  config = common.base('fashion_mnist', steps=50 * _EPOCH)
  config.data.labeled = arg.labels
  config.batch = dict(labeled=100, unlabeled=100)
  if negatives is None:
    config.batch.unlabeled = 0
  else:
    config.method = dict(
      name='ns3l',
      weight=1.0,
      ramp='none',
      ramp_steps=0,
      passes=1,
      terms={},
      **negatives,
    )
  config.eval.every_steps = 2 * _EPOCH
  config.log_every = 100
  config.checkpoint.every = 2 * _EPOCH
  if arg.labels == 2000:
    config.row = f'NS-T6-{1 + list(_NEGATIVES).index(arg.negatives)}'
  return common.finish(config, arg)
