"""Assembly: from a config to the method, the compiled steps and the data."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from nsl_jax import (
  errors,
  files,
  memory,
  methods,
  models,
  optimizers,
  schedules,
)
from nsl_jax.compose import tasks
from nsl_jax.data import normalize, sources, splits, views
from nsl_jax.training import (
  config_checks,
  config_options,
  evaluate,
  feed,
  kernels,
  loop,
  origin,
  pipeline,
  programs,
  sharding as mesh_lib,
  trackers,
  train_step,
)
from nsl_jax.types import Components, Data, Method, Task

_OLDEST = 0, 8, 3  # jax; as setup.cfg says


class _Programs(NamedTuple):
  """What is traced and compiled, as in `Parts`."""

  method: Method
  parameters: int
  normalize: train_step.Normalize
  chunk: train_step.TrainSteps
  evaluate: Any
  recompute: Any


class Parts(NamedTuple):
  """What all seeds of a run share.

  Attributes:
    source: the images.
    method: the method.
    kernels: what convolutions run by, see `kernels.choose`.
    parameters: number of trained parameters.
    normalize: `(fitted, u8 images) -> f32 images`.
    fitted: arrays of the normalization, on the devices.
    images: all training images, on the devices; none where they are streamed.
    streamed: whether the images of each step are read from the host.
    task: what their labels are.
    plan: when things happen.
    chunk: the compiled step.
    evaluate: the compiled evaluation.
    recompute: gives a state the batch-normalization statistics to evaluate it
      by; None where the running ones are used.
    test: the test images; None where there are none.
    mesh: the devices.
  """

  source: sources.Source
  method: Method
  kernels: str
  parameters: int
  normalize: train_step.Normalize
  fitted: dict[str, jax.Array]
  images: jax.Array
  streamed: bool
  task: Task
  plan: loop.Plan
  chunk: train_step.TrainSteps
  evaluate: Any
  recompute: Any
  test: evaluate.Batches | None
  mesh: Mesh


def components_of(
  config: ml_collections.ConfigDict,
  outputs: int,
  image_shape: tuple[int, int, int],
  fitted: views.Fitted = dict,
  num_images: int = 0,
  new_head: bool = False,
) -> Components:
  """The network, optimizer and views of a config.

  Args:
    config: the config.
    outputs: K, number of network outputs per image.
    image_shape: (H, W, C).
    fitted: see `views.build`.
    num_images: number of training images.
    new_head: see `weights.start_from`.

  Raises:
    errors.UserError: for a name or a field that does not exist.
  """
  task = tasks.find(config.task)
  weak, strong = views.build(config, image_shape, fitted)
  moving = None
  if task is tasks.REGRESSION:
    moving = views.moving(config, fitted)
  model = models.build(
    config.model.to_dict(),
    outputs,
    precision='bfloat16' if config.precision == 'bfloat16' else 'float32',
    new_head=new_head,
  )
  return Components(
    model=model,
    tx=optimizers.build(config.optimizer),
    augment=weak,
    strong=strong,
    image_shape=image_shape,
    ema_decay=config.ema_decay,
    weight_decay=config.weight_decay,
    weight_decay_on=config.weight_decay_on,
    learning_rate=schedules.learning_rate(config.optimizer),
    task=task,
    moving=moving,
    num_images=num_images,
    num_devices=config.devices,
  )


def build_method(
  config: ml_collections.ConfigDict,
  outputs: int,
  image_shape: tuple[int, int, int],
  fitted: views.Fitted = dict,
  num_images: int = 0,
  new_head: bool = False,
) -> Method:
  """The method of a config; arguments and errors as in `components_of`."""
  components = components_of(
    config, outputs, image_shape, fitted, num_images, new_head
  )
  return methods.build(config.method.to_dict(), components)


def prepare(
  config: ml_collections.ConfigDict,
  workdir: files.Path | None = None,
  source: sources.Source | None = None,
) -> Parts:
  """Loads the data and builds everything that the seeds share.

  Args:
    config: the config.
    workdir: the run's folder, whose kernels it goes on with if it has begun.
    source: the data, where they are loaded already.

  Raises:
    errors.UserError: for anything wrong in the config or the data.
  """
  _check_version()
  config_checks.check(config)
  trackers.check(config)
  train_step.use_precision(config.precision)
  task = tasks.find(config.task)
  source = source or pipeline.load_source(config)  # before a device is taken
  config_checks.check_task_of_data(task, source)
  mesh = mesh_lib.make(config.devices)
  mesh_lib.check_batch(
    mesh, {f'batch.{name}': size for name, size in config.batch.items()}
  )
  shape = source.train.images.shape[1:]
  kind = config.data.normalize

  @functools.cache
  def fitted() -> Mapping[str, Any]:
    return mesh_lib.broadcast_from_first_process(
      normalize.fit(kind, source.train.images)
    )

  plan = loop.Plan(
    steps=config.steps,
    log_every=config.log_every,
    eval_every=config.eval.every_steps,
    checkpoint_every=config.checkpoint.every,
    steps_per_call=config.steps_per_call or loop.default_steps_per_call(),
    keep=config.checkpoint.keep,
  )
  chosen = kernels.of_run(config.kernels, workdir)
  inputs = (
    source.outputs,
    shape,
    len(source.train.labels),
    bool(origin.of_classes(config, source.class_names)),
  )
  built = programs.shared(
    config,
    (*inputs, chosen, mesh),
    lambda arrays: _build(config, *inputs, chosen, mesh, arrays),
    fitted,
  )
  replicated = mesh_lib.replicated_sharding(mesh)
  size = source.train.images.nbytes + source.test.images.nbytes
  streamed = size > memory.device_limit(config.data.on_device_mb)
  images = source.train.images[: 0 if streamed else None]
  return Parts(
    **built._asdict(),
    source=source,
    kernels=chosen,
    fitted=mesh_lib.put(fitted(), replicated),
    images=mesh_lib.put(images, replicated),
    streamed=streamed,
    task=task,
    plan=plan,
    test=evaluate.on_device(
      *source.test, config.eval.batch, mesh, stream=streamed
    )
    if len(source.test.labels)
    else None,
    mesh=mesh,
  )


def _build(
  config: ml_collections.ConfigDict,
  outputs: int,
  image_shape: tuple[int, int, int],
  num_images: int,
  new_head: bool,
  kernels_name: str,
  mesh: Mesh,
  fitted: views.Fitted,
) -> _Programs:
  method = build_method(
    config, outputs, image_shape, fitted, num_images, new_head
  )
  compiled = kernels.options(kernels_name)
  apply = functools.partial(normalize.apply, config.data.normalize)
  make_batch = functools.partial(train_step.make_batch, apply)
  shapes = jax.eval_shape(method.init, jax.random.key(0))
  recompute = None
  if config.eval.batch_norm == 'recomputed' and (
    method.recompute and jax.tree.leaves(shapes.stats)
  ):
    recompute = evaluate.make_recompute(
      method, make_batch, mesh, compiler_options=compiled
    )
  return _Programs(
    method=method,
    parameters=sum(leaf.size for leaf in jax.tree.leaves(shapes.params)),
    normalize=apply,
    chunk=train_step.make_train_steps(
      train_step.one_step(method, make_batch),
      mesh=mesh,
      compiler_options=compiled,
    ),
    evaluate=evaluate.make_evaluate(
      method, apply, tasks.find(config.task), compiler_options=compiled
    ),
    recompute=recompute,
  )


def _check_version() -> None:
  if jax.__version_info__ < _OLDEST:
    oldest = '.'.join(map(str, _OLDEST))
    raise errors.UserError(
      f'jax {jax.__version__} is too old: on a CPU it evaluates weights '
      f'wrongly (seen with 0.7.2 and 0.8.0); install jax>={oldest}'
    )


def data_of(parts: Parts, split: splits.Split) -> Data:
  """What the steps of a seed read."""
  replicated = mesh_lib.replicated_sharding(parts.mesh)
  tables = mesh_lib.broadcast_from_first_process(
    pipeline.per_image_tables(
      parts.method.per_image_tables, parts.source, split
    )
  )
  labels = parts.source.train.labels
  fitted = parts.task.fit(labels[split.labeled])
  probe_images = None
  if parts.method.num_probe_images:
    if parts.test is None:
      raise errors.UserError(
        'log_test_loss=true of this method needs test images, and there are '
        'none: add some, or set it to false'
      )
    images, probe_labels = (
      part[: parts.method.num_probe_images] for part in parts.source.test
    )
    probe_images = mesh_lib.put(
      (images, parts.task.encode(fitted, probe_labels)), replicated
    )
  label_shares = None
  if parts.source.num_classes:
    counts = np.bincount(
      labels[split.labeled], minlength=parts.source.num_classes
    )
    label_shares = mesh_lib.put(
      (counts / counts.sum()).astype(np.float32), replicated
    )
  return Data(
    images=parts.images,
    labels=mesh_lib.put(parts.task.encode(fitted, labels), replicated),
    normalization={**parts.fitted, **mesh_lib.put(fitted, replicated)},
    per_image_tables=mesh_lib.put(tables, replicated),
    probe_images=probe_images,
    num_unlabeled=mesh_lib.put(np.int32(len(split.unlabeled)), replicated),
    label_shares=label_shares,
  )


def check_step(
  config: ml_collections.ConfigDict, parts: Parts, seed: int
) -> None:
  """Traces the first call of a seed; jax keeps the trace for the call itself.

  Raises:
    errors.UserError: for what a method, term, network or view refuses, or if a
      method does not use a term.
  """
  split = pipeline.split_of(config, parts.source, seed)
  rows = feed.rows_at(
    pipeline.index_iterators(config, split, seed),
    next(parts.plan.calls(0)),
    parts.mesh,
    parts.source.train.images if parts.streamed else None,
  )
  replicated = mesh_lib.replicated_sharding(parts.mesh)
  state = jax.tree.map(
    lambda leaf: leaf.update(sharding=replicated),  # or it is traced twice
    jax.eval_shape(parts.method.init, jax.random.key(seed)),
  )
  _, metrics = jax.eval_shape(parts.chunk, state, data_of(parts, split), rows)
  terms = config_options.learner_of(config.method).get('terms', {})
  unused = [  # a pair of networks has ns3l_weight_a and ns3l_weight_b
    name for name in terms if not any(f'{name}_weight' in m for m in metrics)
  ]
  if unused:
    raise errors.UserError(
      f'the method {config.method.name} does not use the terms '
      f'{", ".join(unused)}: add them to its loss, see '
      'nsl_jax.terms.from_config, or leave them out'
    )
