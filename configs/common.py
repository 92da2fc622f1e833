"""Shared by all configs: arguments, defaults, reduced runs."""

import difflib

import ml_collections

# Terms that `terms=` adds to a method, at the values of family O; every field
# can be set, as --config.method.terms.ns3l.weight=0.3. The ramp takes the same
# share of the run as in family O: 50,000 of 200,000 steps. NS3L's threshold and
# VAT's eps follow from the number of classes and the scale of the images.
TERMS = {
  'ns3l': dict(weight=1.0, ramp='sigmoid', sampler='threshold', passes=2),
  'pseudo_label': dict(weight=1.0, ramp='sigmoid', threshold=0.95),
  'entropy': dict(weight=0.06, ramp='none'),
  'pi': dict(weight=20.0, ramp='sigmoid'),
  'vat': dict(weight=0.3, ramp='sigmoid', mode='exact'),
  # Not in family O: values of DNLL's and FreeMatch's papers.
  'dnll': dict(weight=2.0, ramp='dnll'),
  'fairness': dict(weight=0.001, ramp='none'),
}
_RAMP_SHARE = 0.25


def parse(arg: str | None, **defaults) -> ml_collections.ConfigDict:
  """Reads `k=v,k=v` into the types of the defaults.

  Every config takes `seeds=N`, `smoke=true` (20 steps as a check, which take a
  minute or two, mostly to compile), `reduced=STEPS` (a shorter run with every
  horizon scaled), `quick=true` (a quarter of the steps) and `terms=NAME+NAME`
  (more losses on the unlabeled images, see `TERMS`).

  Raises:
    ValueError: for an unknown name or a value of the wrong type, in one line.
  """
  known = {
    'seeds': 1,
    'smoke': False,
    'quick': False,
    'reduced': 0,
    'terms': '',
    **defaults,
  }
  values = dict(known)
  for word in filter(None, (arg or '').split(',')):
    name, _, text = word.partition('=')
    if name not in known:
      near = difflib.get_close_matches(name, known, n=1)
      hint = (
        f'did you mean {near[0]!r}?'
        if near
        else ('known: ' + ', '.join(sorted(known)))
      )
      if '=' not in word and 'dir' in known:
        hint += '; a path with a comma is set by --config.data.dir=PATH'
      raise ValueError(f'unknown config argument {name!r}: {hint}')
    values[name] = _convert(name, text, type(known[name]))
  return ml_collections.ConfigDict(values)


def _convert(name: str, text: str, kind: type):
  if kind is bool:
    if text.lower() not in ('true', 'false', ''):
      raise ValueError(f'config argument {name}={text}: must be true or false')
    return text.lower() != 'false'
  try:
    return kind(text)
  except ValueError:
    raise ValueError(
      f'config argument {name}={text!r}: must be {kind.__name__}'
    ) from None


def choose(name: str, value: str, options: dict):
  """The option of this name; ValueError with a hint if there is none."""
  if value not in options:
    near = difflib.get_close_matches(value, options, n=1)
    hint = (
      f'did you mean {near[0]!r}?' if near else ('known: ' + ', '.join(options))
    )
    raise ValueError(f'unknown {name} {value!r}: {hint}')
  return options[value]


def base(data: str, *, steps: int) -> ml_collections.ConfigDict:
  """Every field with its default.

  A field named `steps` or `*_steps` is a horizon or a tuple of horizons. For a
  reduced run `finish` scales all of them, except those in `passes`.
  """
  config = ml_collections.ConfigDict()
  config.row = ''  # id of the paper's result that this run reproduces
  config.seed = 0  # first seed
  config.seeds = 1
  config.steps = steps
  config.full_steps = steps  # `steps` of the full protocol
  config.scheduled_steps = steps  # the length for which horizons are set
  # Horizons that count passes over the data, such as 'method.ramp_steps'; a
  # reduced run keeps them.
  config.passes = ()
  config.protocol = 'last'  # or best_validation, median_last_20
  config.task = 'classification'  # or regression: points in images
  config.data = dict(
    name=data,
    dir='',  # TFDS data directory; '' for TFDS_DATA_DIR or TFDS's own
    labeled=0,
    validation=0,
    holdout=0,  # validation images used as L2I's separate hold-out set
    rule='balanced',  # or proportional, uniform
    validation_rule='balanced',
    unlabeled_includes_labeled=False,
    normalize='unit',  # or signed, standard, gcn_zca
    augment='',  # such as 'flip,translate:2,noise:0.15'
    # The strong view of methods with two, such as 'randaugment:2,cutout:0.5';
    # '' for augment.
    strong='',
    # Size of the largest class divided by that of the smallest one, of the
    # labeled and of the unlabeled images: 1 leaves them as they are.
    imbalance=1.0,
    imbalance_unlabeled=1.0,
    # Classes of which no label is known, and those that unlabeled images may
    # have; () for all.
    unknown_classes=(),
    unlabeled_classes=(),
    limit=0,  # images kept of each split; 0 for all
    on_device_mb=0,  # of images; more are streamed. 0 for half of its memory
  )
  config.batch = dict(labeled=0, unlabeled=0)
  config.model = dict(name='small_cnn')
  config.method = dict(name='supervised', terms={})
  config.optimizer = dict(name='adam', lr=1e-3, drop_steps=0, drop_factor=0.2)
  config.ema_decay = 0.0  # of the evaluated weights; 0 evaluates the raw ones
  config.weight_decay = 0.0  # weights * (1 - this * lr) after each step
  # MixMatch decays kernels only; L2I's released code decays all (F-L21).
  config.weight_decay_on = 'kernels'
  config.eval = dict(
    every_steps=max(steps // 50, 1),
    batch=1000,
    # Batch-normalization statistics for evaluation: running, as in the papers,
    # or recomputed over training images, as short runs need.
    batch_norm='running',
  )
  config.log_every = 50
  # Where lines are sent, too: a project of Weights & Biases, a URI of MLflow.
  config.log = dict(wandb='', mlflow='')
  config.checkpoint = dict(every=500, keep=2)
  config.steps_per_call = 0  # 0: 1 on CPU, 25 elsewhere
  config.devices = 0  # 0: all
  config.precision = 'float32'  # or tf32, bfloat16
  # Convolution kernels on a CPU: default (XLA's choice), eigen (the older
  # ones), or measured (the faster of both, measured once per machine).
  config.kernels = 'measured'
  return config


def sgd(
  config: ml_collections.ConfigDict,
  *,
  lr: float,
  weight_decay: float,
  momentum: float = 0.9,
  nesterov: bool = True,
  cosine_steps: int | None = None,
) -> None:
  """Replaces the optimizer by SGD with momentum.

  Args:
    config: config to change.
    lr: initial learning rate.
    weight_decay: added to the gradient, times the parameter, before momentum.
    momentum: decay of the momentum buffer.
    nesterov: whether to use Nesterov momentum.
    cosine_steps: length of the cosine decay to 0; None for the whole run, 0 for
      a constant rate.
  """
  config.optimizer = dict(
    name='sgd',
    lr=lr,
    momentum=momentum,
    nesterov=nesterov,
    weight_decay=weight_decay,
    cosine_steps=config.steps if cosine_steps is None else cosine_steps,
  )


_COUNTS = ('full_steps', 'scheduled_steps')  # not horizons


def _scaled(value, factor: float):
  """A horizon, or each of a tuple; 0 and -1, which is open, stay, others are at
  least 1.
  """
  if isinstance(value, tuple):
    return tuple(_scaled(one, factor) for one in value)
  return value if value <= 0 else max(1, round(value * factor))


def scale(config: ml_collections.ConfigDict, factor: float) -> None:
  """Multiplies every horizon; nonzero ones stay at least 1.

  Evaluated weights are averaged over the same share of the run, so that a short
  run is not evaluated with its initial weights. The decay of a teacher belongs
  to the method and is not scaled, nor are horizons that count passes over the
  data.
  """
  _scale(config, factor, '', tuple(config.get('passes', ())))


def _scale(
  config: ml_collections.ConfigDict,
  factor: float,
  path: str,
  kept: tuple[str, ...],
) -> None:
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      _scale(value, factor, f'{path}{name}.', kept)
    elif name == 'ema_decay':
      config[name] = value ** (1 / factor)
    elif (
      path + name not in kept
      and name not in _COUNTS
      and (name == 'steps' or name.endswith('_steps'))
    ):
      config[name] = _scaled(value, factor)


# Widths and depths for networks that train in seconds.
_SMALL = {
  'cnn13': dict(width=0.125),
  'wide_resnet': dict(depth=10, width=1),
  'resnet26': dict(width=0.125, blocks=1),
}


def shrink(config: ml_collections.ConfigDict) -> None:
  """Makes any config a run of seconds that still uses every part: a few steps
  with few images and a narrow network.
  """
  scale(config, 20 / config.steps)
  config.data.limit = 2000
  config.data.labeled = min(config.data.labeled, 200)
  config.data.validation = min(config.data.validation, 200)
  config.data.holdout = min(config.data.holdout, 100)
  config.batch = {k: min(v, 16) for k, v in config.batch.items()}
  config.model.update(_SMALL.get(config.model.name, {}))
  config.eval.every_steps = 10
  config.log_every = 5
  config.checkpoint.every = 10


# Minimum interval of evaluations in a reduced run, where thousands of test
# images every few steps would cost more than training. It does not apply to the
# median of the last 20, which must be the end of a run and not all of it.
_APART = 40


def _finish_open(
  config: ml_collections.ConfigDict, arg: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
  """Applies the arguments to a config whose length follows from the images."""
  if arg.reduced or arg.quick:
    raise ValueError(
      'config arguments reduced and quick are for a config whose steps are '
      'known: use steps=N'
    )
  if arg.smoke:
    config.steps = 20
    config.data.limit = 2000
  return config


def _fields_of(term: str, host: str, images: ml_collections.ConfigDict) -> dict:
  """The values of a term on a method and the images of `config.data`."""
  fields, data = choose('term', term, TERMS), images.name
  if term == 'ns3l' and data in ('folder', 'npz'):
    return {}  # the defaults on the method, which may follow from the images
  if term == 'ns3l' and host == 'mixmatch':  # else the defaults there
    if data.startswith(('svhn', 'stl10')):
      return dict(threshold=0.05, weight=2.0)
    if data == 'cifar10' and images.labeled >= 4000:
      return dict(threshold=0.05, weight=10.0)
    return dict(threshold=0.05)
  if term == 'vat' and data.startswith('svhn'):
    return dict(fields, eps=1.0)
  return fields


def finish(
  config: ml_collections.ConfigDict, arg: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
  """Applies the arguments that every config takes."""
  config.seeds = arg.seeds
  host = config.method.get('host', config.method)
  for name in filter(None, arg.terms.split('+')):
    fields = _fields_of(name, host.name, config.data)
    host.terms[name] = dict(fields)
    if fields.get('ramp', 'none') != 'none':
      ramp = round(_RAMP_SHARE * config.steps) if config.steps > 0 else -1
      host.terms[name].ramp_steps = ramp  # -1 until steps are known
  if arg.terms or arg.smoke:
    config.row = ''  # no longer what the paper ran
  if config.steps < 0:  # open until the images are read
    return _finish_open(config, arg)
  if not 0 <= arg.reduced <= config.steps:
    raise ValueError(
      f'config argument reduced={arg.reduced}: the whole run has '
      f'{config.steps} steps'
    )
  if arg.quick:
    arg.reduced = arg.reduced or config.steps // 4
  if arg.reduced == config.steps:
    arg.reduced = 0
  if arg.reduced or arg.smoke:
    config.eval.batch_norm = 'recomputed'
  if arg.reduced:
    scale(config, arg.reduced / config.steps)
    config.steps = arg.reduced
    if config.protocol != 'median_last_20':
      config.eval.every_steps = max(config.eval.every_steps, _APART)
  if arg.smoke:
    shrink(config)
  config.scheduled_steps = config.steps
  return config
