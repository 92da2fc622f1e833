"""Tiny data sets in the on-disk form of TFDS, written without TensorFlow."""

import io
import pathlib
import zipfile

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

Splits = dict[str, tuple[np.ndarray, np.ndarray]]


def write(
  data_dir: str | pathlib.Path,
  tfds_name: str,
  splits: Splits,
  num_classes: int,
  *,
  version: str = '1.0.0',
  encoding: str = 'png',
  file_format: str = 'array_record',
) -> pathlib.Path:
  """Writes one data set where TFDS would.

  Args:
    data_dir: as for `tfds.load`.
    tfds_name: name of the data set.
    splits: name -> (images uint8[N, H, W, C], labels int[N]), in this order.
    num_classes: K; labels lie in [0, K), or are -1.
    version: three numbers.
    encoding: 'png' or 'jpeg'.
    file_format: 'array_record', or 'tfrecord', which needs TensorFlow.

  Returns:
    The folder that holds the shards.
  """
  shape = next(iter(splits.values()))[0].shape[1:]
  image = {'encoding_format': 'jpeg'} if encoding == 'jpeg' else {}
  features = tfds.features.FeaturesDict(
    {
      'image': tfds.features.Image(shape=shape, **image),
      'label': tfds.features.ClassLabel(num_classes=num_classes),
    }
  )
  return _write(
    data_dir, tfds_name, splits, features, version, encoding, file_format
  )


def write_features(
  data_dir: str | pathlib.Path,
  tfds_name: str,
  splits: Splits,
  features: dict[str, tfds.features.FeatureConnector],
  *,
  version: str = '1.0.0',
  names: tuple[str, str] = ('image', 'label'),
) -> pathlib.Path:
  """Like `write`, of any features; an image may be the bytes of a file.

  Args:
    data_dir: as for `tfds.load`.
    tfds_name: name of the data set.
    splits: name -> (images, or bytes of their files; what TFDS encodes as the
      other feature).
    features: of the data set, by name.
    version: three numbers.
    names: of the two features.
  """
  return _write(
    data_dir,
    tfds_name,
    splits,
    tfds.features.FeaturesDict(features),
    version,
    'png',
    'array_record',
    names,
  )


def write_as_tfds(
  data_dir: str | pathlib.Path,
  tfds_name: str,
  splits: Splits,
  *,
  encoding: str = 'png',
) -> pathlib.Path:
  """Like `write`, with the version and all the features that TFDS gives it."""
  info = tfds.builder(tfds_name, data_dir=data_dir).info
  features = dict(info.features)
  if encoding == 'jpeg':
    features['image'] = tfds.features.Image(
      shape=features['image'].shape, encoding_format='jpeg'
    )
  return _write(
    data_dir,
    tfds_name,
    splits,
    tfds.features.FeaturesDict(features),
    str(info.version),
    encoding,
    'array_record',
  )


def _write(
  data_dir: str | pathlib.Path,
  tfds_name: str,
  splits: Splits,
  features: tfds.features.FeaturesDict,
  version: str,
  encoding: str,
  file_format: str,
  names: tuple[str, str] = ('image', 'label'),
) -> pathlib.Path:
  """Has TFDS write the splits; those of the features that are known."""

  def info(builder: tfds.core.DatasetBuilder) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=builder, features=features, disable_shuffling=True
    )

  def generators(builder, unused_manager):
    return {
      split: builder._generate_examples(split, *pair)
      for split, pair in splits.items()
    }

  def examples(unused_builder, split, images, labels):
    for row, pixels in enumerate(images):
      content = pixels
      if not isinstance(pixels, bytes):
        content = encode(pixels, encoding)
      example = {
        names[0]: io.BytesIO(content),
        names[1]: labels[row],
        'id': f'{split}_{row:05d}',
      }
      if 'coarse_label' in features:  # CIFAR-100 has 20 of them
        example['coarse_label'] = int(labels[row]) // 5
      yield row, {name: example[name] for name in features}

  with tfds.core.registered.skip_registration():
    builder_cls = type(
      'TinyBuilder',
      (tfds.core.GeneratorBasedBuilder,),
      {
        'name': tfds_name,
        'VERSION': tfds.core.Version(version),
        '__module__': __name__,
        '_info': info,
        '_split_generators': generators,
        '_generate_examples': examples,
      },
    )
  builder = builder_cls(data_dir=data_dir, file_format=file_format)
  tfds.disable_progress_bar()
  builder.download_and_prepare()
  return pathlib.Path(builder.data_dir)


def encode(pixels: np.ndarray, encoding: str) -> bytes:
  """Encodes uint8[H, W, C], C from 1 to 4, as a 'png' or 'jpeg' file."""
  if pixels.shape[-1] == 1:
    pixels = pixels[..., 0]
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, format=encoding)
  return file.getvalue()


def random_split(
  count: int, shape: tuple[int, int, int], num_classes: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Random images uint8[count, *shape] and labels int32[count] in [0, K)."""
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
  labels = rng.integers(0, num_classes, count, dtype=np.int32)
  return images, labels


def tiny_imagenet(*, per_class: int, validation: int) -> dict[str, bytes]:
  """The files of Tiny-ImageNet as it is distributed, but fewer, by path.

  Random images of 64x64, every seventh gray; validation image i is of class
  3 i modulo 200.
  """
  rng = np.random.default_rng(0)
  names = [f'n{k:08d}' for k in rng.permutation(200)]  # not sorted
  paths = [
    f'train/{name}/images/{name}_{i}.JPEG'
    for name in names
    for i in range(per_class)
  ]
  paths += [f'val/images/val_{i}.JPEG' for i in range(validation)]
  files = {}
  for number, path in enumerate(paths):
    shape = (64, 64, 1 if number % 7 == 0 else 3)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    files[path] = encode(pixels, 'jpeg')
  lines = [
    f'val_{i}.JPEG\t{names[3 * i % 200]}\t0\t0\t62\t62\n'
    for i in range(validation)
  ]
  files['wnids.txt'] = '\n'.join(names).encode()
  files['words.txt'] = b'n00001740\tentity\n'
  files['val/val_annotations.txt'] = ''.join(lines).encode()
  files[f'train/{names[0]}/{names[0]}_boxes.txt'] = b''
  return files


def put_tiny_imagenet(
  data_dir: pathlib.Path, files: dict[str, bytes], *, as_zip: bool = True
) -> pathlib.Path:
  """Writes those files into the manual folder; returns the zip or folder."""
  manual = data_dir / 'downloads' / 'manual'
  manual.mkdir(parents=True, exist_ok=True)
  top = 'tiny-imagenet-200'
  if as_zip:
    with zipfile.ZipFile(manual / f'{top}.zip', 'w') as archive:
      archive.mkdir(top)
      for path, content in files.items():
        archive.writestr(f'{top}/{path}', content)
    return manual / f'{top}.zip'
  for path, content in files.items():
    (manual / top / path).parent.mkdir(parents=True, exist_ok=True)
    (manual / top / path).write_bytes(content)
  return manual / top
