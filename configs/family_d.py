"""Family D, shared by DNLL's configs (docs/readings.md)."""

import ml_collections

from configs import common

# The strengths are ours; the paper gives none. For the 13-layer network its
# weak view is the "original" image, in the released code translated and flipped
# (F-D9).
_JITTER = 'jitter:0.4:0.4:0.4:0.1'
# Weak view, and strong view.
_VIEWS = {
  ('cifar10', 'cnn13'): ('flip,translate:4', 'flip,translate:4,noise:0.15'),
  ('cifar10', 'wrn'): ('flip,translate:4', f'flip,translate:4,{_JITTER}'),
  ('svhn', 'wrn'): ('', 'translate_x:4'),  # the paper gives no size (F-D15)
  ('mnist', 'cnn13'): ('', ''),  # the views differ by dropout only
}
_TRAIN = {'cifar10': 50_000, 'svhn': 73_257, 'mnist': 60_000}
# 500 images per class; on MNIST 50 per class (F-D13).
_VALIDATION = {'cifar10': 5000, 'svhn': 5000, 'mnist': 500}
_NETWORKS = {
  'cnn13': dict(name='cnn13', variant='dual_student'),
  'wrn': dict(name='wide_resnet', variant='oliver'),
}


def network(name: str) -> dict:
  """The network of this short name."""
  return common.choose('model', name, _NETWORKS)


def weight(epoch: int, value: float = 2.0) -> dict:
  """The weight of negative labels, which reaches `value` after 16 epochs: the
  schedule of the released combinations, as the paper gives none (F-D7).
  """
  return dict(
    weight=value, ramp='dnll', ramp_steps=100 * epoch, hold_steps=epoch
  )


def epoch_steps(data: str, labels: int, batch: int) -> int:
  """Steps of a pass over the unlabeled images."""
  return (_TRAIN[data] - _VALIDATION[data] - labels) // batch


def family_d(
  data: str, arg: ml_collections.ConfigDict, rows: dict[tuple, str]
) -> ml_collections.ConfigDict:
  """DNLL: SGD with momentum at 0.03 with cosine decay, 128 + 128 images, 300
  epochs of the 13-layer network or 2^18 steps of the WRN.

  The paper gives neither the number of epochs nor the split of the batch nor
  Nesterov's momentum; these are ours (F-D7).

  Args:
    data: data set.
    arg: parsed arguments `labels`, `model`, `selection`, `count`,
      `unsupervised`.
    rows: the papers' rows by those five.
  """
  epoch = epoch_steps(data, arg.labels, 128)
  config = common.base(data, steps=2**18 if arg.model == 'wrn' else 300 * epoch)
  config.protocol = 'best_validation'
  weak, strong = _VIEWS[data, arg.model]
  config.data.update(
    labeled=arg.labels,
    validation=_VALIDATION[data],
    normalize='standard',
    augment=weak,
    strong=strong,
  )
  config.batch = dict(labeled=128, unlabeled=128)
  config.model = network(arg.model)
  common.sgd(config, lr=0.03, weight_decay=5e-4)
  config.method = dict(
    name='dnll',
    selection=arg.selection,
    count=arg.count,
    unsupervised=arg.unsupervised,
    terms={},
    **weight(epoch),
  )
  config.eval.every_steps = 5 * epoch
  config.log_every = 100
  config.checkpoint.every = 5 * epoch
  config.row = rows.get(
    (arg.labels, arg.model, arg.selection, arg.count, arg.unsupervised), ''
  )
  return config
