r"""Your own images, or features, of which some have labels.

python -m nsl_jax train --config=configs/folder.py:dir=photos

photos/ holds labelled/<class>/..., unlabelled/... and, if you have them,
validation/<class>/... and test/<class>/...; or labels.csv with the columns
path,label in place of labelled/. dir=data.npz reads arrays x and y instead
(images, or features), y = -1 where unknown.

Paper: none. Ours: your own.
Time: it follows from the images; a thousand pictures of 64 pixels take minutes
on a CPU (docs/own-images.md).
Arguments: dir=photos, method (auto: mixmatch; or ns3l, mean_teacher, vat,
supervised, ...), size (pixels; 0: by the images), fit=crop or pad, steps (0: by
the number of images), validation (number of labeled images to hold out; -1: a
fifth), skip_damaged=true. What is left open follows from the images, and the
run prints what it chose. The strong view of fixmatch, flexmatch, freematch and
softmatch is that of all methods with RandAugment and Cutout on top; another one
is --config.data.strong=flip,randaugment:2,cutout:0.5.
"""

from configs import common


def get_config(arg=None):
  arg = common.parse(
    arg,
    dir='',
    method='auto',
    size=0,
    fit='crop',
    steps=0,
    validation=-1,
    skip_damaged=False,
  )
  if not arg.dir:
    raise ValueError(
      'name your folder of images, as configs/folder.py:dir=photos'
    )
  features = arg.dir.endswith('.npz')
  config = common.base('npz' if features else 'folder', steps=-1)
  config.protocol = 'auto'
  config.data.update(
    dir=arg.dir,
    labeled=-1,
    validation=arg.validation,
    rule='uniform',
    validation_rule='proportional',
    normalize='auto',
    augment='auto',
    strong='auto',
  )
  if not features:
    config.data.update(
      size=arg.size, fit=arg.fit, channels=0, skip_damaged=arg.skip_damaged
    )
  config.batch = dict(labeled=-1, unlabeled=-1)
  config.model = dict(name='auto')
  config.method = dict(name=arg.method, terms={})
  config.ema_decay = -1.0
  config.eval.update(every_steps=-1, batch_norm='recomputed')
  config.log_every = -1
  config.checkpoint.every = -1
  config = common.finish(config, arg)
  if arg.steps and not arg.smoke:
    config.steps = arg.steps  # other horizons stay open and follow from it
  return config
