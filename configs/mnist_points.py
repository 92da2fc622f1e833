r"""Where is the digit, and how large? Points of MNIST, few of them known.

python -m nsl_jax.main --config=configs/mnist_points.py:host=pl,variant=v1

Rows PTS-0 ... -4, ours, not from a paper: a check on real pictures of how
points are imputed. Every digit is drawn at a random place and size on 44x44
pixels; to be found are its center of mass and the corners of the 20x20 box
around that, as large as it is. Profile PTS (docs/readings.md). PTS-F2 draws
watch=true: losses of the hold-out batch and of 256 test images before and after
each of V1's steps, as L2-F2 does of faces. PTS-0, host=mean, is the mean of the
labeled points for every image, without any training. Arguments: labels=50;
host=pl, or sl, mt, mean; variant=v1, or v2, none; watch=true.
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
_INNER = 1.0  # of V2, times the rate; at L-REG's 10 it diverges, F-L4


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
