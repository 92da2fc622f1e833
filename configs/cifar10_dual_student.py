r"""Dual Student and Mean Teacher on CIFAR-10, alone and with DNLL.

python -m nsl_jax.main \
    --config=configs/cifar10_dual_student.py:method=dual_student_dnll

The setup of DNLL's released combinations, its Figure 6 and Table 7 (profile
D-COMBO): 13-layer network with two heads, 100 epochs of 50 + 50 images.
Arguments: method=dual_student, dual_student_dnll, mean_teacher or
mean_teacher_dnll; labels=1000; quick=true for a quarter of the steps.
"""

from configs import common, family_d


def _negatives(epoch):
  # The released code of the combinations draws m = 2 labels (F-D8).
  return dict(count=2, **family_d.weight(epoch))


def _dual_student(epoch, negatives):
  return dict(
    name='dual_student',
    consistency=10.0,
    stabilization=100.0,
    tie=0.01,
    threshold=0.8,
    ramp='sigmoid',
    ramp_steps=5 * epoch,
    hold_steps=epoch,
    negatives=negatives,
    terms={},
  )


def _mean_teacher(epoch, terms):
  return dict(
    name='mean_teacher',
    weight=10.0,
    decay=0.999,
    warm_up_decay=True,
    eval_with='teacher',
    second_pass_rows='unlabeled',
    tie=0.01,
    ramp='sigmoid',
    ramp_steps=5 * epoch,
    hold_steps=epoch,
    terms=terms,
  )


_METHODS = {
  'dual_student': lambda epoch: _dual_student(epoch, None),
  'dual_student_dnll': lambda epoch: _dual_student(epoch, _negatives(epoch)),
  'mean_teacher': lambda epoch: _mean_teacher(epoch, {}),
  'mean_teacher_dnll': lambda epoch: _mean_teacher(
    epoch, dict(dnll=_negatives(epoch))
  ),
}


def get_config(arg=None):
  arg = common.parse(arg, method='dual_student_dnll', labels=1000)
  method = common.choose('method', arg.method, _METHODS)
  epoch = family_d.epoch_steps('cifar10', arg.labels, 50)
  config = common.base('cifar10', steps=100 * epoch)
  config.protocol = 'best_validation'
  config.data.update(
    labeled=arg.labels,
    validation=5000,
    normalize='standard',
    augment='flip,translate:4',
  )
  config.batch = dict(labeled=50, unlabeled=50)
  config.model = family_d.network('cnn13')
  common.sgd(config, lr=0.1, weight_decay=1e-4)
  # In the released code the cosine lags by one epoch (F-D7).
  config.optimizer.update(cosine_lag_steps=epoch)
  config.method = method(epoch)
  config.eval.every_steps = epoch
  config.log_every = 100
  config.checkpoint.every = epoch
  return common.finish(config, arg)
