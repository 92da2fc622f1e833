"""From a folder of pictures to a labeled table, by commands alone."""

import contextlib
import csv
import json
import os
import pathlib
import tempfile
from unittest import mock

import command
import fresh_process
import numpy as np
import real_data
from absl.testing import absltest, parameterized
from PIL import Image
from repository import ROOT

from nsl_jax import errors, main
from nsl_jax.commands import evaluate, export, predict
from nsl_jax.data import sources

_NAMES = ('one bag', 'naïve', 'x,y', 'dé"f')  # of classes, hard on a CSV file
_PLACES = {'labelled': 12, 'unlabelled': 100, 'test': 20}


def real_images():
  """Images of each of four classes: two of CIFAR-10 and two of Fashion-MNIST
  where they are there, else scikit-learn's digits.
  """
  found = []
  for name in ('cifar10', 'fashion_mnist'):
    pair = real_data.first(name, 1500)
    if pair is None:
      images, labels = sources.load('digits').train
      pair = images, labels - 2 * (len(found) > 0)
    images, labels = pair
    found += [images[labels == k] for k in range(2)]
  return found


def write_photos(folder):
  """A folder of pictures of mixed modes, sizes, formats and names.

  Returns:
    The paths of three damaged files in it.
  """
  rng = np.random.default_rng(0)
  queues = [iter(images) for images in real_images()]
  for part, number in _PLACES.items():
    for k, name in enumerate(_NAMES):
      for i in range(number // (1 if part != 'unlabelled' else len(_NAMES))):
        picture = Image.fromarray(next(queues[k]).squeeze()).convert('RGB')
        width, height = rng.integers(30, 90, 2)
        picture = picture.resize((int(width), int(height)))
        place = folder / part
        if part != 'unlabelled':
          place /= name
        _save(picture, place, f'{part} {k} nr. {i}', i)
  bad = [
    folder / 'labelled' / _NAMES[0] / 'empty.jpg',
    folder / 'unlabelled' / 'half.png',
    folder / 'test' / _NAMES[1] / 'text.webp',
  ]
  bad[0].write_bytes(b'')
  whole = next((folder / 'unlabelled').glob('*.png')).read_bytes()
  bad[1].write_bytes(whole[: len(whole) // 2])
  bad[2].write_text('no picture')
  (folder / 'labelled' / _NAMES[0] / '.DS_Store').write_bytes(b'')
  (folder / 'notes.txt').write_text('not looked at')
  (folder / 'unlabelled' / 'list.txt').write_text('no image')
  return bad


def _save(picture, place, stem, i):
  """Another mode and format each time; JPEG mostly."""
  place.mkdir(parents=True, exist_ok=True)
  kinds = (
    lambda: picture.save(place / f'{stem}.jpg', quality=90),
    lambda: picture.save(place / f'{stem}.JPEG', quality=80),
    lambda: picture.convert('CMYK').save(place / f'{stem}.jpg', quality=95),
    lambda: picture.convert('RGBA').save(place / f'{stem}.png'),
    lambda: picture.convert('P').save(place / f'{stem}.gif'),
    lambda: picture.save(place / f'{stem}.webp', quality=90),
    lambda: picture.save(place / f'{stem}.bmp'),
    lambda: picture.convert('L').save(place / f'{stem}.tif'),
  )
  kinds[i % len(kinds)]()


def called(main, *words, folder, status):
  """Runs a command there in this process; gives what it printed."""
  cache = os.path.join(folder, 'cache')
  with (
    contextlib.chdir(folder),
    mock.patch.dict(os.environ, NSL_JAX_CACHE=cache),
  ):
    done = command.run(main, *words)
  assert done.status == status, (words, done)
  return done.out, done.err


def process(*words, folder, status=0):
  """Runs `python -m nsl_jax` there; gives what it printed, out and err."""
  done = fresh_process.run(
    '-m',
    'nsl_jax',
    *words,
    cwd=folder,
    NSL_JAX_CACHE=os.path.join(folder, 'cache'),
    PYTHONPATH=str(ROOT),
  )
  assert done.returncode == status, (words, done.returncode, done.stderr)
  return done.stdout, done.stderr


class CommandsTest(absltest.TestCase):
  def test_from_a_folder_to_a_table(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    photos = folder / 'photos'
    bad = write_photos(photos)
    train = (
      '--config=configs/folder.py:dir=photos,steps=30,size=16',
      '--workdir=run',
      '--config.model.name=mlp',
      '--config.eval.every_steps=10',
      '--config.kernels=default',
      '--config.devices=1',
    )

    _, err = called(main.main, *train, folder=folder, status=2)
    (line,) = [one for one in err.splitlines() if one.startswith('error')]
    for path in bad:
      self.assertIn(str(path.relative_to(photos)), line)
    self.assertIn('--config.data.skip_damaged=true', line)
    self.assertFalse((folder / 'run').exists())

    train += ('--config.data.skip_damaged=true',)
    out, err = process('train', *train, folder=folder)
    self.assertIn('4 classes', err)
    self.assertIn('3 damaged files', err)
    self.assertIn('trains mixmatch', err)
    self.assertIn('test_error', out)
    results = json.loads((folder / 'run' / 'results.json').read_text())
    self.assertIn('3 damaged files', ' '.join(results['data_report']))

    same = 'photos/../photos/test'
    words = ('--workdir=run', '--images', 'photos/test', same)
    out, err = called(
      predict.main, *words, '--out=all.csv', folder=folder, status=65
    )
    self.assertIn('1 of 81 files could not be read', err)
    self.assertIn('81 images are named more than once', err)
    with open(folder / 'all.csv', encoding='utf-8', newline='') as file:
      lines = list(csv.DictReader(file))
    self.assertLen(lines, 81)
    right = [
      line['class'] == pathlib.Path(line['path']).parent.name
      for line in lines
      if not line['error']
    ]
    self.assertLen(right, 80)
    self.assertAlmostEqual(
      100.0 - 100.0 * np.mean(right), results['score']['mean'], places=4
    )
    (damaged,) = [line for line in lines if line['error']]
    self.assertEndsWith(damaged['path'], 'text.webp')
    self.assertEqual(damaged['class'], '')

    _, err = called(
      predict.main, *words, '--out=all.csv', folder=folder, status=2
    )
    self.assertIn('add --overwrite', err)

    out, _ = called(
      evaluate.main, '--workdir=run', '--images=photos/test', '--out=report',
      folder=folder, status=65,
    )  # fmt: skip
    accuracy = 100.0 * np.mean(right)
    self.assertIn(f'accuracy {accuracy:.2f} %', out)
    found = json.loads((folder / 'report' / 'evaluation.json').read_text())
    self.assertAlmostEqual(found['scores']['accuracy'], accuracy, places=4)
    self.assertIn('text.webp', ' '.join(found['notes']))
    self.assertTrue((folder / 'report' / 'report.html').exists())

    called(export.main, '--workdir=run', '--out=model', folder=folder, status=0)
    content = json.loads((folder / 'model' / 'model.json').read_text())
    self.assertEqual(content['classes'], sorted(_NAMES))

    # Damaged weights are one line, whatever else orbax has to say.
    weights = folder / 'run' / 'seed_0' / 'final'
    for file in weights.rglob('d/*'):
      os.truncate(file, 20)
    _, err = process(
      'predict',
      *words,
      '--out=none.csv',
      '--weights=last',
      folder=folder,
      status=2,
    )
    (line,) = err.strip().splitlines()
    self.assertIn(f'{weights}', line)
    self.assertIn('restore it, or name other weights', line)
    self.assertFalse((folder / 'none.csv').exists())

    # The run is found finished, and a changed folder is another run.
    out, _ = called(main.main, *train, folder=folder, status=0)
    self.assertIn('test_error', out)
    next((photos / 'labelled' / 'x,y').glob('*.jpg')).unlink()
    _, err = called(main.main, *train, folder=folder, status=2)
    self.assertIn('belongs to another config', err)


class RefusalTest(parameterized.TestCase):
  """One line each, in this process; nothing is written."""

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.root = pathlib.Path(folder)

  def refused(self, argv, *words):
    modules = {'predict': predict, 'evaluate': evaluate, 'export': export}
    with self.assertRaises(errors.UserError) as caught:
      modules[argv[0]].main([str(word) for word in argv[1:]])
    for word in words:
      self.assertIn(word, str(caught.exception))

  def test_predict(self):
    images = self.root / 'images'
    images.mkdir()
    gone = self.root / 'gone'
    self.refused(
      ['predict', '--workdir', gone, '--images', gone, '--out', gone / 'a.csv'],
      '--images', 'does not exist',
    )  # fmt: skip
    self.refused(
      ['predict', '--workdir', gone, '--images', images,
       '--out', self.root / 'a.csv'],
      'no image in',
    )  # fmt: skip
    Image.new('L', (8, 8)).save(images / 'a.png')
    self.refused(
      ['predict', '--workdir', gone, '--images', images,
       '--out', self.root / 'a.csv'],
      'gone is not a folder',
    )  # fmt: skip
    self.refused(
      ['predict', '--workdir', images, '--images', images,
       '--out', self.root / 'a.csv'],
      'no config.json',
    )  # fmt: skip
    self.refused(
      ['predict', '--workdir', images, '--images', self.root / 'a.npz', images,
       '--out', self.root / 'a.csv'],
      'name it alone',
    )  # fmt: skip
    self.assertFalse((self.root / 'a.csv').exists())

  def test_evaluate_and_export(self):
    self.refused(
      ['evaluate', '--workdir', self.root, '--images', self.root],
      'no config.json',
    )
    self.refused(['export', '--workdir', self.root], 'no config.json')
    file = self.root / 'file'
    file.write_text('')
    self.refused(['export', '--workdir', self.root, '--out', file], 'is a file')


if __name__ == '__main__':
  absltest.main()
