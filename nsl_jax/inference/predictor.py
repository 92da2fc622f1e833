"""A trained network, which predicts for arrays, pictures and files."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from nsl_jax import errors, methods, references
from nsl_jax.compose import tasks
from nsl_jax.data import normalize, on_demand, resize
from nsl_jax.data.datasets import npz
from nsl_jax.training import assembly, kernels, network_file
from nsl_jax.types import Components, Outputs, Params, State, Stats

_BATCH = 256


class Read(NamedTuple):
  """What became of one file.

  Attributes:
    path: of the file.
    outputs: f32[K] probabilities, or f32[P] coordinates in pixels of the
      picture; None where it cannot be read.
    error: why it cannot be read; '' where it can.
    facts: keys of `pictures.FACTS` that hold for it.
    code: hash of the pixels that the network sees, see `split_file.load_codes`.
  """

  path: str
  outputs: np.ndarray | None
  error: str = ''
  facts: tuple[str, ...] = ()
  code: bytes = b''


class Predictor:
  """A trained network.

  Attributes:
    classes: names of the classes; () for points.
    facts: how its inputs are made, see `network_file.Facts`.
    config: of its run.
    step: of the weights.
    weights: `best` (lowest validation error) or `last`.
    seed: number of the seed.
    submodel: name of the network, of a method that trains two: the first
      where no image chose; '' for one.
  """

  def __init__(
    self,
    facts: network_file.Facts,
    config: ml_collections.ConfigDict,
    components: Components,
    state: State,
    *,
    step: int,
    weights: str,
    seed: int,
    submodel: str | None = '',
  ):
    """Use `loading.load`; a `submodel` of None is the first, or ''."""
    self.facts, self.config = facts, config
    self.classes = facts.classes
    self.step, self.weights, self.seed = step, weights, seed
    self.state = state
    self._arrays = {k: jnp.asarray(v) for k, v in facts.arrays.items()}
    self._components = components
    self._method = methods.build(config.method.to_dict(), components)
    self.submodel = self._first_submodel() if submodel is None else submodel
    self._compiled = jax.jit(self.apply, compiler_options=_kernels(config))

  def __reduce__(self) -> tuple[Any, ...]:
    """Is pickled as arrays and settings, without compiled programs."""
    arrays = [_as_numpy(leaf) for leaf in jax.tree.leaves(self.state)]
    fields = dict(
      step=self.step,
      weights=self.weights,
      seed=self.seed,
      submodel=self.submodel,
    )
    return _unpickle, (self.facts, self.config.to_dict(), arrays, fields)

  def __repr__(self) -> str:
    outputs = ', '.join(self.classes) or f'{self.facts.outputs // 2} points'
    return (
      f'<{self.config.model.name} by {self.config.method.name}, step '
      f'{self.step}: {_shape(self.facts.image_shape)} -> {outputs}>'
    )

  def _first_submodel(self) -> str:
    """Of several networks; '' for one."""
    images = jax.ShapeDtypeStruct((1, *self.facts.image_shape), jnp.float32)
    predicted = jax.eval_shape(self._method.predict, self.state, images)
    return next(iter(predicted)) if isinstance(predicted, dict) else ''

  def apply(self, state: State, inputs: jax.Array) -> jax.Array:
    """The network as a pure function.

    Args:
      state: `Predictor.state`.
      inputs: u8[B, H, W, C] images of `facts.image_shape`, or f32[B, 1, 1, D].

    Returns:
      f32[B, K] probabilities, or f32[B, P] coordinates in pixels of the image.
    """
    facts = self.facts
    images = normalize.apply(facts.normalize, self._arrays, inputs)
    precision = 'highest' if self.config.precision == 'float32' else 'default'
    with jax.default_matmul_precision(precision):
      outputs = self._method.predict(state, images)
    if isinstance(outputs, dict):
      outputs = outputs[self.submodel]
    if facts.task == tasks.REGRESSION.name:
      return tasks.points_of(self._arrays, outputs)
    return jax.nn.softmax(outputs.astype(jnp.float32))

  def network(self) -> tuple[Params, Stats]:
    """Parameters and batch-normalization statistics that `apply` uses.

    A method may keep those that it is evaluated with anywhere in its state: the
    network is replaced by one that takes note of what it is given.
    """
    applied: list[tuple[Params, Stats]] = []

    def note(params, stats, images, **_):
      applied.append((params, stats))
      zeros = jnp.zeros((images.shape[0], self.facts.outputs))
      return Outputs(zeros, zeros, zeros), stats

    model = self._components.model._replace(apply=note)
    method = methods.build(
      self.config.method.to_dict(), self._components._replace(model=model)
    )
    images = jnp.zeros((1, *self.facts.image_shape))
    predicted = method.predict(self.state, images)
    place = (
      list(predicted).index(self.submodel) if isinstance(predicted, dict) else 0
    )
    return applied[place]

  def outputs(self, inputs: np.ndarray) -> np.ndarray:
    """`apply` of any number of inputs, in batches of one size."""
    batches = [np.zeros((0, self.facts.outputs), np.float32)]
    size = _batch_size(len(inputs))
    for at in range(0, len(inputs), size):
      batches.append(self._one_batch(inputs[at : at + size], size))
    return np.concatenate(batches)

  def _one_batch(self, inputs: np.ndarray, size: int) -> np.ndarray:
    """`apply` of at most `size` inputs, by the program for that many."""
    short = size - len(inputs)
    padding = np.zeros((short, *inputs.shape[1:]), inputs.dtype)
    result = self._compiled(self.state, np.concatenate([inputs, padding]))
    return np.asarray(result)[: len(inputs)]

  def images_of(self, inputs: Any) -> np.ndarray:
    """Arrays, files or pictures as the network's inputs.

    Args:
      inputs: u8[N, H, W] or u8[N, H, W, C] images of the network's size, f[N,
        D] features, or paths and Pillow pictures, one or any number, which are
        resized. Of a picture with several frames the current one counts, of a
        path the first.

    Returns:
      u8[N, H, W, C], or f32[N, 1, 1, D].

    Raises:
      errors.UserError: naming the wrong input.
    """
    if _is_picture(inputs):
      inputs = [inputs]
    if hasattr(inputs, '__array__'):  # also data frames, and columns of paths
      inputs = np.asarray(inputs)
      if inputs.dtype.kind in 'OUS' and inputs.ndim == 1:
        inputs = inputs.tolist()
    if not isinstance(inputs, np.ndarray):
      if not isinstance(inputs, Iterable):
        raise errors.UserError(
          f'inputs={inputs!r} are neither arrays, nor paths, nor pictures'
        )
      inputs = list(inputs)
      if not inputs:
        kind = np.float32 if self.facts.of_features else np.uint8
        return np.zeros((0, *self.facts.image_shape), kind)
      if _is_picture(inputs[0]):
        return self._pictures(inputs)
    images = npz.as_images(inputs)
    if images.shape[1:] != self.facts.image_shape:
      shape = images.shape[1:]
      raise errors.UserError(
        f'inputs of shape {_shape(shape)}, but the network is for '
        f'{_shape(self.facts.image_shape)}: give such inputs'
        + ', or pictures, which are resized'
        * (not self.facts.of_features)
      )
    return images

  def _pictures(self, inputs: Sequence[Any]) -> np.ndarray:
    self._refuse_features()
    images = np.empty((len(inputs), *self.facts.image_shape), np.uint8)
    for row, item in enumerate(inputs):
      try:
        if hasattr(item, 'convert'):  # reading changes a picture: it is copied
          images[row] = resize.fit(item.copy(), self.facts.form).values
        else:
          images[row] = resize.read(item, self.facts.form).values
      except (ValueError, OSError) as error:
        raise errors.UserError(
          f'input {row} ({item}) cannot be read: {error}'
        ) from error
    return images

  def _refuse_features(self) -> None:
    if self.facts.of_features:
      raise errors.UserError(
        f'this network is for features f[N, {self.facts.image_shape[2]}], not '
        'for pictures: name an .npz file with x'
      )

  def predict_proba(self, inputs: Any) -> np.ndarray:
    """Probabilities of the classes, f32[N, K]; `inputs` as in `images_of`.

    Raises:
      errors.UserError: for a network of points, or wrong inputs.
    """
    if not self.classes:
      raise errors.UserError(
        'this network finds points, which have no probabilities: use predict'
      )
    return self.outputs(self.images_of(inputs))

  def predict(self, inputs: Any) -> np.ndarray:
    """Names of the classes [N], or points f32[N, P] in pixels of the images.

    Raises:
      errors.UserError: for wrong inputs, see `images_of`.
    """
    outputs = self.outputs(self.images_of(inputs))
    if not self.classes:
      return outputs
    return np.array(self.classes)[outputs.argmax(1)]

  def read(
    self, paths: Iterable[str], folder: pathlib.Path = pathlib.Path()
  ) -> Iterator[Read]:
    """Predicts files one after another, in flat memory.

    Args:
      paths: relative to `folder`.
      folder: that holds them.

    Yields:
      What became of each, in order. Points are in pixels of the picture.

    Raises:
      errors.UserError: for a network of features.
    """
    self._refuse_features()
    form = self.facts.form

    def load(path: str) -> resize.Image | str:
      try:
        return resize.read(folder / path, form)
      except ValueError as error:
        return str(error)
      except MemoryError:
        return 'too large for the memory'

    with futures.ThreadPoolExecutor(resize.num_threads()) as pool:
      ahead: list[tuple[list[str], list[futures.Future]]] = []
      size = 0  # of the first batch, which is the largest
      for some in _in_batches(paths, _BATCH):
        size = size or _batch_size(len(some))
        ahead.append((some, [pool.submit(load, path) for path in some]))
        if len(ahead) > 1:
          yield from self._predicted(*ahead.pop(0), size)
      for some, loading in ahead:
        yield from self._predicted(some, loading, size)

  def _predicted(
    self, paths: list[str], loading: list[futures.Future], size: int
  ) -> Iterator[Read]:
    loaded = [future.result() for future in loading]
    images = np.zeros((len(loaded), *self.facts.image_shape), np.uint8)
    for row, image in enumerate(loaded):
      if not isinstance(image, str):
        images[row] = image.values
    outputs = self._one_batch(images, size)
    for row, (path, image) in enumerate(zip(paths, loaded)):
      if isinstance(image, str):
        yield Read(path, None, image)
        continue
      result = outputs[row]
      if not self.classes:
        points = image.placement.to_picture(result.reshape(-1, 2))
        result = points.reshape(-1)
      code = on_demand.code(images[row])
      yield Read(path, result, facts=image.facts, code=code)


def _is_picture(item: Any) -> bool:
  """Whether it is a path or a picture of Pillow's."""
  return isinstance(item, (str, os.PathLike)) or hasattr(item, 'convert')


def _batch_size(count: int) -> int:
  """A power of two up to `_BATCH`, each of which is one program to compile."""
  return min(_BATCH, 1 << max(count - 1, 0).bit_length())


def _kernels(config: ml_collections.ConfigDict) -> dict[str, Any] | None:
  """The run's own where this machine has them: others round differently."""
  try:
    return kernels.options(kernels.choose(config.kernels))
  except errors.UserError:
    return None


def _shape(shape: Sequence[int]) -> str:
  if tuple(shape[:2]) == (1, 1):
    return f'{shape[2]} features'
  return 'x'.join(map(str, shape))


def _in_batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
  some: list[str] = []
  for item in items:
    some.append(item)
    if len(some) == size:
      yield some
      some = []
  if some:
    yield some


def components_and_shapes(
  config: ml_collections.ConfigDict, facts: network_file.Facts
) -> tuple[Components, State]:
  """What the method of a run is built from, and the shapes of its state without
  the optimizer's.
  """
  references.check_sources(config.get('objects', {}))
  components = assembly.components_of(
    config,
    facts.outputs,
    facts.image_shape,
    fitted=lambda: facts.arrays,
    num_images=facts.num_images,
  )
  method = methods.build(config.method.to_dict(), components)
  like = jax.eval_shape(method.init, jax.random.key(0)).replace(opt=())
  return components, like


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_numpy(leaf: jax.Array) -> np.ndarray:
  return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _unpickle(
  facts: network_file.Facts,
  fields: Mapping[str, Any],
  arrays: Sequence[np.ndarray],
  attributes: Mapping[str, Any],
) -> Predictor:
  config = ml_collections.ConfigDict(fields)
  components, like = components_and_shapes(config, facts)
  leaves, structure = jax.tree.flatten(like)
  leaves = [
    jax.random.wrap_key_data(array) if _is_key(leaf) else array
    for leaf, array in zip(leaves, map(jnp.asarray, arrays), strict=True)
  ]
  state = jax.tree.unflatten(structure, leaves)
  return Predictor(facts, config, components, state, **attributes)
