r"""Position and size of MNIST digits as five points, with few labels.

python -m nsl_jax.main --config=configs/mnist_points.py:host=pl,variant=v1

Rows PTS-0 ... -4, ours, not from a paper: a test of imputed points on real
images. Every digit is drawn at a random place and size on 44x44 pixels; the
points are its center of mass and the corners of the 20x20 box around it, scaled
with the digit. Profile PTS (docs/readings.md). PTS-F2 plots watch=true: losses
of the hold-out batch and of 256 test images before and after each step of V1,
as L2-F2 for faces. PTS-0, host=mean, is the mean of the labeled points for
every image, without training. Arguments: labels=50; host=pl, or sl, mt, mean;
variant=v1, or v2, none; watch=true.
"""

from configs import common, landmarks

_ROWS = {
  ('mean', 'none'): 'PTS-0',
  ('sl', 'none'): 'PTS-1',
  ('pl', 'none'): 'PTS-2',
  ('pl', 'v1'): 'PTS-3',
  ('pl', 'v2'): 'PTS-4',
}
_LABELS = 50
# V2's inner rate / learning rate. The 10 of L2I's released code diverges on one
# of two seeds (docs/readings.md, F-L4).
_INNER = 1.0


def get_config(arg=None):
  arg = common.parse(arg, labels=_LABELS, host='pl', variant='v1', watch=False)
  steps = 100 if arg.host == 'mean' else 2000
  config = landmarks.l_reg('mnist_points', arg, steps=steps, batch=32)
  config.data.update(validation=500, limit=4000)
  if arg.variant == 'v2':
    config.method.inner_rate = _INNER
  if arg.labels == _LABELS and not arg.watch:
    config.row = _ROWS.get((arg.host, arg.variant), '')
  config.eval.every_steps = 100
  return common.finish(config, arg)
