"""Image files decoded once, in parallel, into a file that is mapped to memory.

Images are read from the map page by page, so that memory stays flat however
many they are.
"""

import hashlib
import json
import math
import os
import pathlib
import time
import uuid
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from nsl_jax import errors, files
from nsl_jax.data import cache, pictures, resize

_FORMAT = 'nsl_jax images 2'  # changes whenever older files must not be read
_HOUR_S = 3600
_LENGTH = 16  # digits, at the end, of the length of the text before them


class Decoded(NamedTuple):
  """Images of a folder.

  Attributes:
    images: u8[N, H, W, C], in memory or mapped; read only. Without the damaged
      ones.
    damaged: row of the list of paths -> why it cannot be read.
    facts: keys of `pictures.FACTS` -> of how many images.
  """

  images: np.ndarray
  damaged: dict[int, str]
  facts: dict[str, int]


def read(
  folder: pathlib.Path,
  paths: Sequence[str],
  form: resize.Form,
  cache_dir: str | None = None,
) -> Decoded:
  """Reads images in a form, from the cache if nothing has changed.

  The cache is keyed by the names, sizes and times of the files, by whether they
  may be read, and by the form.

  Args:
    folder: that the paths are relative to.
    paths: of the images.
    form: of the result.
    cache_dir: folder of the cache; None for the default of `cache`.

  Raises:
    errors.UserError: if the cache cannot be written.
  """
  images = [folder / path for path in paths]
  key = _key(folder, paths, images, form)
  name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:12]
  sides = 'x'.join(map(str, form.shape))
  path = cache.directory(cache_dir) / f'{name}-{sides}-{form.fit}.images'
  decoded_images = _mapped(path, key, form)
  if decoded_images is None or _changed(decoded_images.damaged, images, form):
    _make(path, key, images, form)
    decoded_images = _mapped(path, key, form)
  if decoded_images is None:
    raise errors.UserError(f'{path} has just been changed: start again')
  return decoded_images


def _changed(
  damaged: dict[int, str], images: Sequence[pathlib.Path], form: resize.Form
) -> bool:
  """Whether a file that could not be read can be read now, or fails for another
  reason: a disk or the memory may have been at fault."""
  rows = sorted(damaged)
  results = resize.read_all(
    [images[row] for row in rows], form, title='retrying damaged files'
  )
  return any(damaged[row] != result for row, result in zip(rows, results))


def _key(
  folder: pathlib.Path,
  paths: Sequence[str],
  images: Sequence[pathlib.Path],
  form: resize.Form,
) -> str:
  digest = hashlib.sha256(repr((str(folder.absolute()), tuple(form))).encode())
  for path, file in zip(paths, images):
    try:
      status = file.stat()
      facts = status.st_size, status.st_mtime_ns, os.access(file, os.R_OK)
      digest.update(repr((path, *facts)).encode())
    except OSError as error:  # such as a link to nothing: damaged, not fatal
      digest.update(repr((path, error.errno)).encode())
  return digest.hexdigest()


def _mapped(path: pathlib.Path, key: str, form: resize.Form) -> Decoded | None:
  """The content of a file with this key, else None."""
  try:
    with path.open('rb') as file:
      end = file.seek(-_LENGTH, os.SEEK_END)
      size = int(file.read(_LENGTH))
      file.seek(end - size)
      facts = json.loads(file.read(size))
    if (facts['format'], facts['key']) != (_FORMAT, key):
      return None
    shape = (facts['count'], *form.shape)
    if end - size != math.prod(shape):
      return None
    damaged = {int(row): reason for row, reason in facts['damaged'].items()}
    counts = dict(facts['facts'])
  except (OSError, ValueError, KeyError, TypeError):
    return None
  images = np.zeros(shape, np.uint8)
  if math.prod(shape):
    images = np.memmap(path, np.uint8, mode='r', shape=shape)
  return Decoded(images, damaged, counts)


def _make(
  path: pathlib.Path,
  key: str,
  images: Sequence[pathlib.Path],
  form: resize.Form,
) -> None:
  """Writes the pixels, then what `_mapped` must know and its length."""
  part = path.with_name(f'{path.name}.{uuid.uuid4().hex}')
  for other in path.parent.glob(f'{path.name}.*'):
    if _is_old(other):  # of a process that was killed
      files.remove(other)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open('wb') as out:
      damaged, counts = _decode(out, images, form)
      facts = {
        'format': _FORMAT,
        'key': key,
        'count': len(images) - len(damaged),
        'damaged': damaged,
        'facts': counts,
      }
      text = json.dumps(facts).encode()
      out.write(text + b'%*d' % (_LENGTH, len(text)))
    os.replace(part, path)
  except OSError as error:
    raise errors.UserError(
      f'cannot write the decoded images to {path} ({error.strerror}): set '
      'NSL_JAX_CACHE to a folder with enough space'
    ) from error
  finally:
    files.remove(part)


def _is_old(path: pathlib.Path) -> bool:
  """Whether nothing was written to a file for an hour."""
  try:
    return time.time() - path.stat().st_mtime > _HOUR_S
  except OSError:  # its process has just removed it
    return False


def _decode(
  out: BinaryIO, images: Sequence[pathlib.Path], form: resize.Form
) -> tuple[dict[int, str], dict[str, int]]:
  """Writes the pixels of all good files, in their order."""
  damaged: dict[int, str] = {}
  facts = dict.fromkeys(pictures.FACTS, 0)
  for row, image in enumerate(
    resize.read_all(images, form, title='decoding images, once')
  ):
    if isinstance(image, str):
      damaged[row] = image
      continue
    for fact in image.facts:
      facts[fact] += 1
    out.write(image.values.tobytes())
  return damaged, facts
