"""Runs of a few steps on folders of pictures."""

from nsl_jax.training import config as config_lib, experiment

SMALL = (
  ('model.name', 'mlp'),
  ('model.hidden', '8'),
  ('batch.labeled', '8'),
  ('batch.unlabeled', '8'),
  ('eval.every_steps', '4'),
  ('log_every', '4'),
  ('checkpoint.every', '8'),
  ('devices', '1'),
)
BY_VALIDATION = (('ema_decay', '0.9'), ('protocol', 'best_validation'))


def train(photos, workdir, arguments='method=mean_teacher', overrides=()):
  """A run of eight steps."""
  config = config_lib.load(
    f'configs/folder.py:dir={photos},steps=8,{arguments}', [*SMALL, *overrides]
  )
  return experiment.run(config, workdir)
