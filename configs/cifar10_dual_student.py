r"""Dual Student and Mean Teacher on CIFAR-10, alone and with DNLL.

python -m nsl_jax.main \
    --config=configs/cifar10_dual_student.py:method=dual_student_dnll

Paper, DN-T7: seconds a step of Mean Teacher, Dual Student and DNLL, 0.072,
0.145, 0.143 on a GTX 3060; Figure 6 (DN-F6) has test curves without numbers.
Ours: DN-T7 is timed (docs/speed.md); DN-F6 is not run.
Time: 88,000 steps of the 13-layer network; mean_teacher takes 2.9 s on two CPU
cores, dual_student 6.7 s, three and seven days a seed; not measured on a GPU
(docs/speed.md).
Arguments: method=dual_student, dual_student_dnll, mean_teacher or
mean_teacher_dnll; labels=1000; quick=true for a quarter of the steps.

The setup of DNLL's released combinations (profile D-COMBO, docs/readings.md):
13-layer network with two heads, 100 epochs of 50 + 50 images.
"""

from configs import common

_VALIDATION = 5000


def _negatives(epoch):
  # The released code of the combinations draws m = 2 labels (F-D8).
  return dict(
    count=2,
    weight=2.0,  # after 16 epochs
    ramp='dnll',
    ramp_steps=100 * epoch,
    hold_steps=epoch,
  )


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
  epoch = (50_000 - _VALIDATION - arg.labels) // 50
  config = common.base('cifar10', steps=100 * epoch)
  config.protocol = 'best_validation'
  config.data.update(
    labeled=arg.labels,
    validation=_VALIDATION,
    normalize='standard',
    augment='flip,translate:4',
  )
  config.batch = dict(labeled=50, unlabeled=50)
  config.model = dict(name='cnn13', variant='dual_student')
  common.sgd(config, lr=0.1, weight_decay=1e-4)  # cosine decay to 0
  # In the released code the cosine lags by one epoch (F-D7).
  config.optimizer.update(cosine_lag_steps=epoch)
  config.method = method(epoch)
  config.eval.every_steps = epoch
  config.log_every = 100
  config.checkpoint.every = epoch
  return common.finish(config, arg)
