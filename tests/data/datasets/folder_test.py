"""A folder of pictures as a data set: decoded once, nothing silently wrong."""

import os
import pathlib
import shutil
import tempfile
from unittest import mock

import folders
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from nsl_jax import errors
from nsl_jax.data import decoded, resize, sources
from nsl_jax.data.datasets import folder as folder_lib


class FolderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.photos, self.cache = self.root / 'photos', self.root / 'cache'

  def make(self, **sizes):
    folders.make(self.photos, **sizes)

  def load(self, **options):
    return sources.load(
      'folder', str(self.photos), cache_dir=str(self.cache), **options
    )

  def refused(self, *words, **options):
    with self.assertRaises(errors.UserError) as caught:
      self.load(**options)
    for word in words:
      self.assertIn(word, str(caught.exception))
    self.assertNotIn('\n', str(caught.exception))

  def test_images_labels_and_files(self):
    self.make(validation=1)
    source = self.load()
    self.assertEqual(source.classes, folders.CLASSES)
    self.assertEqual(source.train.images.shape, (12 + 3 + 9, 12, 12, 3))
    self.assertEqual(source.test.images.shape, (6, 12, 12, 3))
    np.testing.assert_array_equal(
      source.train.labels, [0] * 4 + [1] * 4 + [2] * 4 + [0, 1, 2] + [-1] * 9
    )
    np.testing.assert_array_equal(source.validation, [12, 13, 14])
    for part, files in (
      (source.train, source.files.train),
      (source.test, source.files.test),
    ):
      self.assertLen(files, len(part.images))
      for path, image in zip(files, part.images):
        with Image.open(self.photos / path) as picture:
          np.testing.assert_array_equal(image, np.asarray(picture))

  def test_report(self):
    self.make(test=0, labeled=1)
    (self.photos / 'labelled' / 'cat' / 'readme.txt').write_text('')
    report = '\n'.join(self.load().report)
    self.assertIn('3 classes', report)
    self.assertIn('cat 1, dog 1, owl 1', report)
    self.assertIn('9 unlabeled images', report)
    self.assertIn('no validation images', report)
    self.assertIn('no test images', report)
    self.assertIn('12x12 color', report)
    self.assertIn('1 files that are not images', report)
    self.assertIn('single labeled image of class cat, dog, owl', report)

  def test_classes_that_differ_in_case_only(self):
    self.make()
    self.assertNotIn('case only', '\n'.join(self.load().report))
    kept = self.photos / 'labelled'
    shutil.copytree(kept / 'cat', kept / 'Cat')
    if (kept / 'Cat').samefile(kept / 'cat'):
      self.skipTest('the file system does not tell them apart')
    for at, path in enumerate((kept / 'Cat').iterdir()):
      Image.new('RGB', (12, 12), (at, 9, 9)).save(path)
    self.assertIn('Cat and cat are 2 classes', '\n'.join(self.load().report))

  def test_decoded_once_until_something_changes(self):
    self.make()
    first = self.load()
    calls = []
    make = decoded._make

    def count(*words):
      calls.append(words)
      make(*words)

    with absltest.mock.patch.object(decoded, '_make', count):
      again = self.load()
      self.assertEmpty(calls)
      np.testing.assert_array_equal(first.train.images, again.train.images)
      folders.save(
        folders.picture(0, 99), self.photos / 'unlabelled' / 'new.png'
      )
      self.assertLen(self.load().train.images, len(first.train.images) + 1)
      self.assertLen(calls, 1)
      self.load(size=8)
      self.assertLen(calls, 2)

  def test_what_a_killed_process_left_is_removed(self):
    self.make()
    self.load()
    (file,) = self.cache.glob('*.images')
    old, new = (file.with_name(f'{file.name}.{name}') for name in 'ab')
    for path in (old, new):
      path.write_bytes(b'half')
    os.utime(old, (0, 0))
    folders.save(folders.picture(0, 99), self.photos / 'unlabelled' / 'n.png')
    self.load()
    self.assertEqual((old.exists(), new.exists()), (False, True))

  def test_a_damaged_cache_is_made_again(self):
    self.make()
    first = self.load().train.images.copy()
    (file,) = self.cache.glob('*.images')
    for content in (b'', b'junk', file.read_bytes()[:-1]):
      file.write_bytes(content)
      np.testing.assert_array_equal(self.load().train.images, first)

  def test_images_are_mapped(self):
    self.make()
    self.assertIsInstance(self.load().train.images, np.memmap)

  def test_a_cache_that_cannot_be_written(self):
    self.make()
    self.cache.write_text('a file')
    self.refused('cannot write the decoded images', 'NSL_JAX_CACHE')

  def test_damaged_files_are_all_named(self):
    self.make()
    bad = ('labelled/cat/bad.png', 'unlabelled/bad.jpg', 'test/dog/bad.gif')
    for path in bad:
      (self.photos / path).write_bytes(b'junk')
    self.refused('3 of 30 files', *bad, 'skip_damaged=true')
    source = self.load(skip_damaged=True)
    self.assertLen(source.train.images, 21)
    self.assertIn('3 damaged files', '\n'.join(source.report))
    for path, image in zip(source.files.train, source.train.images):
      with Image.open(self.photos / path) as picture:
        np.testing.assert_array_equal(image, np.asarray(picture))
    self.assertEqual(source.test.labels.tolist(), [0, 0, 1, 1, 2, 2])

  def test_a_file_that_can_be_read_again_is(self):
    """A failure of the disk does not make a file a damaged one."""
    self.make()
    path = self.photos / 'labelled' / 'cat' / '1.png'
    read = resize.read

    def failing(source, form):
      if source == path:
        raise ValueError('Input/output error')
      return read(source, form)

    with mock.patch.object(resize, 'read', failing):
      self.refused('cat/1.png (Input/output error)')
    self.assertLen(self.load().train.images, 21)

  def test_all_files_are_damaged(self):
    for name in ('cat', 'dog'):
      path = self.photos / 'labelled' / name / 'a.png'
      path.parent.mkdir(parents=True)
      path.write_bytes(b'junk')
    self.refused('none of the 2 files')

  def test_all_files_of_a_class_are_damaged(self):
    self.make(labeled=1)
    (self.photos / 'labelled' / 'owl' / '0.png').write_bytes(b'junk')
    self.refused('class owl', 'is damaged', skip_damaged=True)

  @parameterized.parameters(
    ('labelled/cat', 'test/cat'),
    ('labelled/cat', 'validation/cat'),
    ('labelled/cat', 'labelled/dog'),
    ('validation/dog', 'test/dog'),
  )
  def test_copies_that_deceive(self, one, other):
    self.make(validation=1)
    picture = folders.picture(0, 1234)
    for place in (one, other):
      folders.save(picture, self.photos / place / 'same.png')
    self.refused('1 pair of', f'{one}/same.png', f'{other}/same.png')

  def test_copies_are_left_out_where_nothing_is_unlabeled(self):
    self.make(unlabeled=0)
    one = self.photos / 'labelled' / 'cat' / '0.png'
    (one.parent / '9.png').write_bytes(one.read_bytes())
    source = self.load()
    self.assertLen(source.train.images, 12)
    self.assertLen(source.files.train, 12)
    self.assertTrue((source.train.labels >= 0).all())
    self.assertIn('they are left out', '\n'.join(source.report))

  def test_the_report_counts_readable_images(self):
    self.make(labeled=2, validation=1)
    for path in ('labelled/cat/0.png', 'unlabelled/0.png', 'test/dog/0.png'):
      (self.photos / path).write_bytes(b'')
    report = '\n'.join(self.load(skip_damaged=True).report)
    for line in (
      'cat 1, dog 2, owl 2',
      '8 unlabeled images',
      '5 test images',
      'a single labeled image of class cat',
    ):
      self.assertIn(line, report)
    for name in folders.CLASSES:
      (self.photos / f'validation/{name}/0.png').write_bytes(b'')
    self.refused('every validation image', 'is damaged', skip_damaged=True)

  def test_copies_of_one_class_are_used_once(self):
    self.make()
    first = self.photos / 'labelled' / 'cat' / '0.png'
    (self.photos / 'labelled' / 'cat' / 'copy.png').write_bytes(
      first.read_bytes()
    )
    source = self.load()
    self.assertEqual((source.train.labels == 0).sum(), 4)
    self.assertIn('1 labeled images are copies', '\n'.join(source.report))

  def test_copies_among_test_images_are_counted(self):
    self.make()
    first = self.photos / 'test' / 'cat' / '0.png'
    for name in 'ab':
      first.with_name(f'{name}.png').write_bytes(first.read_bytes())
    source = self.load()
    self.assertLen(source.test.labels, 8)
    self.assertIn('2 test images are copies', '\n'.join(source.report))

  @parameterized.parameters(
    ([(20, 20)], 20),  # all squares of one size
    ([(300, 300)], 224),
    ([(70, 50)], 32),
    ([(70, 80), (64, 90), (500, 400)], 64),
    ([(10, 9)], 32),
  )
  def test_size_follows_from_the_pictures(self, sizes, wanted):
    paths = []
    for i, (width, height) in enumerate(sizes):
      path = self.root / f'{i}.png'
      Image.new('RGB', (width, height)).save(path)
      paths.append(path.name)
    form = folder_lib.choose_form(self.root, paths, 0, 'crop', 0)
    self.assertEqual(form.shape, (wanted, wanted, 3))

  def test_gray_if_all_are(self):
    names = ('a.png', 'b.png')
    for name, mode in zip(names, ('L', '1')):
      Image.new(mode, (8, 8)).save(self.root / name)
    choose = folder_lib.choose_form
    self.assertEqual(choose(self.root, names, 0, 'crop', 0).channels, 1)
    self.assertEqual(choose(self.root, names, 0, 'crop', 3).channels, 3)
    Image.new('RGB', (8, 8)).save(self.root / 'c.png')
    names = (*names, 'c.png')
    self.assertEqual(choose(self.root, names, 0, 'crop', 0).channels, 3)


if __name__ == '__main__':
  absltest.main()
