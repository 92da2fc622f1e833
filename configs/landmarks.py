"""Profile L-REG, shared by the configs of points (docs/readings.md)."""

import ml_collections

from configs import common, family_l

STEPS = 22_500  # on AFLW
_DECAY = 0.999  # of the averaged weights on AFLW
# Inner rate / current learning rate in the released code, for a mean loss; the
# paper gives none (F-L4).
_INNER = {'v1': 1.0, 'v2': 10.0}


def _hosts(ramp_steps: int, decay: float) -> dict[str, dict]:
  """Hosts by name; without batch normalization all images form one batch."""
  # The paper ramps the weight to 1, the released code to 75 (F-L11).
  common_fields = dict(weight=1.0, interleave=False)
  return {
    'mean': dict(name='mean_label', terms={}),
    'sl': dict(name='supervised', terms={}),
    'pl': dict(family_l.pseudo_label(ramp_steps), **common_fields),
    'mt': dict(family_l.mean_teacher(ramp_steps), **common_fields, decay=decay),
  }


def l_reg(
  data: str, arg: ml_collections.ConfigDict, *, steps: int, batch: int
) -> ml_collections.ConfigDict:
  """TCDCN, SGD with momentum, crops shifted by up to 4 pixels, averaged
  weights, test error at the lowest validation error.

  The rate drops once after two thirds of the run, as in the released code; the
  paper's drop every 750 steps would reach 1e-30 (F-L11).

  Args:
    data: data set.
    arg: parsed arguments `labels`; `host`, one of `mean` (of the labels,
      without training), `sl`, `pl` and `mt`; `variant`, one of `none`, `v1` and
      `v2`; `watch`, whether to log the losses before and after each step of the
      variant.
    steps: length of the run; the ramp takes 40 % of it.
    batch: number of labeled, of unlabeled and of held-out images per step.
  """
  decay = _DECAY ** (STEPS / steps)  # over the same share of the run
  hosts = _hosts(round(0.4 * steps), decay)
  host = common.choose('host', arg.host, hosts)
  alone = arg.host in ('mean', 'sl')
  if arg.variant != 'none' and alone:
    raise ValueError(f'host={arg.host} imputes nothing: give variant=none')
  if arg.watch and arg.variant == 'none':
    raise ValueError('watch=true needs variant=v1 or v2')
  config = common.base(data, steps=steps)
  config.task = 'regression'
  config.protocol = 'best_validation'
  config.data.update(
    labeled=arg.labels,
    rule='uniform',
    validation_rule='uniform',
    normalize='unit',
    augment='translate:4',
  )
  config.batch = dict(labeled=batch, unlabeled=batch)
  if alone:
    config.batch.unlabeled = 0
  config.model = dict(name='tcdcn')
  method = family_l.impute(host, arg.variant, 1.0)
  if arg.variant != 'none':
    config.batch.holdout = batch
    method.update(
      inner_rate=_INNER[arg.variant], follow_rate=True, log_test_loss=arg.watch
    )
  config.method = method
  common.sgd(config, lr=0.03, weight_decay=5e-4, nesterov=False, cosine_steps=0)
  config.optimizer.update(drop_steps=round(steps * 2 / 3), drop_factor=0.1)
  config.ema_decay = decay
  return config
