"""A trained network as files that need no more than jax and numpy.

`model.json` says how inputs are made and what outputs mean, `program.bin` is
the network with its weights (`jax.export`, free batch size, for cpu, cuda and
tpu), `weights.safetensors` the weights alone, under the names of the network.
"""

import json
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from nsl_jax import errors, files
from nsl_jax.data import resize
from nsl_jax.inference.predictor import Predictor
from nsl_jax.models import weights
from nsl_jax.training import origin, workdir as workdir_lib

PROGRAM, WEIGHTS, FACTS = 'program.bin', 'weights.safetensors', 'model.json'
ONNX = 'model.onnx'
_CHECKED = 4  # inputs that an ONNX model is checked with
_TOLERANCE = 1e-5  # of probabilities; points are pixels
PLATFORMS = ('cpu', 'cuda', 'tpu')


def write(
  network: Predictor,
  folder: pathlib.Path,
  *,
  onnx: bool = False,
  labeled: Collection[bytes] = (),
) -> dict[str, Any]:
  """Writes the files.

  Args:
    network: the network.
    folder: is made if it is not there.
    onnx: whether to write `model.onnx` as well.
    labeled: hashes of its labeled training images, which a run that starts from
      the weights compares with its validation images, see `origin`.

  Returns:
    The content of `model.json`.

  Raises:
    errors.UserError: if the folder cannot be written, see also `onnx_program`.
  """
  files.make_folder(folder, '--out')
  content = describe(network)
  if onnx:
    files.write(folder / ONNX, onnx_program(network))
    content['onnx'] = {'file': ONNX}
  else:  # of an earlier export, and perhaps of another network
    files.remove(folder / ONNX)
  files.write(folder / PROGRAM, program(network))
  known = origin.metadata(network.facts, labeled)
  weights.write(folder / WEIGHTS, *network.network(), known)
  text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
  files.write(folder / FACTS, text.encode(errors='backslashreplace'))
  return content


def program(network: Predictor) -> bytes:
  """The serialized program: inputs u8[B, H, W, C] (f32[B, D] of features) ->
  f32[B, K] probabilities, or f32[B, P] coordinates in pixels of the image.
  """
  shape, run = _function(network)
  exported = jax_export.export(jax.jit(run), platforms=PLATFORMS)(shape)
  return bytes(exported.serialize())


def _function(
  network: Predictor,
) -> tuple[jax.ShapeDtypeStruct, Callable[[Any], jax.Array]]:
  """Shape of the inputs, of any number, and the function of them."""
  height, width, channels = network.facts.image_shape
  (batch,) = jax_export.symbolic_shape('b')
  if network.facts.of_features:
    shape = jax.ShapeDtypeStruct((batch, channels), np.float32)
    return shape, lambda x: network.apply(network.state, x[:, None, None, :])
  shape = jax.ShapeDtypeStruct((batch, height, width, channels), np.uint8)
  return shape, lambda x: network.apply(network.state, x)


def onnx_program(network: Predictor) -> bytes:
  """The same function as an ONNX model, checked by onnxruntime.

  Raises:
    errors.UserError: if jax2onnx or onnxruntime is not installed, or the model
      gives other numbers.
  """
  try:
    import jax2onnx
    import onnxruntime
  except ImportError as error:
    raise errors.UserError(
      f'--format=onnx needs {error.name}: pip install "nsl_jax[onnx]"'
    ) from error
  shape, run = _function(network)
  model = jax2onnx.to_onnx(run, [shape]).SerializeToString()
  session = onnxruntime.InferenceSession(model)
  inputs = _examples(network, shape.shape[1:])
  (onnx_outputs,) = session.run(None, {session.get_inputs()[0].name: inputs})
  difference = float(np.abs(onnx_outputs - np.asarray(run(inputs))).max())
  if not difference <= _TOLERANCE:
    raise errors.UserError(
      f'the ONNX model of {network.config.model.name} differs by '
      f'{difference:g}: use {PROGRAM}, or another version of jax2onnx'
    )
  return bytes(model)


def _examples(network: Predictor, shape: Sequence[int]) -> np.ndarray:
  """Random inputs; features on the scale of those that it was trained on, if
  its normalization knows it."""
  rng = np.random.default_rng(0)
  if not network.facts.of_features:
    return rng.integers(0, 256, (_CHECKED, *shape)).astype(np.uint8)
  arrays = network.facts.arrays
  mean, std = (np.ravel(arrays.get(k, d)) for k, d in (('mean', 0), ('std', 1)))
  return (mean + std * rng.normal(size=(_CHECKED, *shape))).astype(np.float32)


def describe(network: Predictor) -> dict[str, Any]:
  """The content of `model.json`."""
  facts, config = network.facts, network.config
  pictures: dict[str, Any] = {
    'color': 'gray' if facts.image_shape[2] == 1 else 'RGB',
    'exif_orientation': 'applied',
    'transparent_pixels': 'white',
    '16_bits': 'divided by 257',
    'resize': 'bicubic with antialiasing (Pillow)',
    'fit': {
      'crop': 'shorter side, then center crop',
      'pad': f'longer side, then borders of gray {resize.PADDING}',
    }[facts.fit],
  }
  points = facts.task == 'regression'
  return {
    'format': 1,
    'task': facts.task,
    'classes': list(facts.classes),
    'input': {
      'dtype': 'float32' if facts.of_features else 'uint8',
      'shape': ['batch', facts.image_shape[2]]
      if facts.of_features
      else ['batch', *facts.image_shape],
      'pictures': None if facts.of_features else pictures,
      'normalization': f'{facts.normalize}, inside of the program',
    },
    'output': {
      'dtype': 'float32',
      'shape': ['batch', facts.outputs],
      'meaning': 'x and y of each point in pixels of the image'
      if points
      else 'probability of each class',
    },
    'program': {'file': PROGRAM, 'platforms': list(PLATFORMS)},
    'weights': {
      'file': WEIGHTS,
      'which': network.weights,
      'step': network.step,
      'seed': network.seed,
    },
    'network': config.model.to_dict(),
    'method': config.method.name,
    'versions': workdir_lib.versions(),
  }


def check_folder(folder: pathlib.Path, overwrite: bool) -> None:
  """Refuses a folder that has files already.

  Raises:
    errors.UserError: if it has, without `overwrite`, or is a file.
  """
  errors.refuse_address(folder, '--out')
  if folder.exists() and not folder.is_dir():
    raise errors.UserError(f'--out={folder} is a file: name a folder')
  if folder.is_dir() and any(folder.iterdir()) and not overwrite:
    raise errors.UserError(
      f'--out={folder} has files: name another folder, or add --overwrite'
    )
