"""Which images a folder holds, by names alone."""

import contextlib
import os
from unittest import mock

import numpy as np
import temporary
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.data import listing


class ListingTest(temporary.FolderTestCase):
  def touch(self, *paths):
    for path in paths:
      file = self.folder / path
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(b'')

  def table(self, text):
    (self.folder / 'labels.csv').write_text(text, encoding='utf-8')

  def refused(self, *words):
    with self.assertRaises(errors.UserError) as caught:
      listing.scan(self.folder)
    for word in words:
      self.assertIn(word, str(caught.exception))
    self.assertNotIn('\n', str(caught.exception))

  def two_classes(self):
    self.touch('labelled/dog/b.jpg', 'labelled/cat/a.jpg')

  def test_folders(self):
    self.two_classes()
    self.touch(
      'labelled/cat/deeper/c.PNG',
      'unlabelled/x.webp',
      'unlabelled/y/z.gif',
      'validation/dog/v.bmp',
      'test/cat/t.tiff',
    )
    found = listing.scan(self.folder)
    self.assertEqual(found.classes, ('cat', 'dog'))
    self.assertEqual(
      found.paths['labeled'],
      ('labelled/cat/a.jpg', 'labelled/cat/deeper/c.PNG', 'labelled/dog/b.jpg'),
    )
    np.testing.assert_array_equal(found.labels['labeled'], [0, 0, 1])
    self.assertEqual(
      found.paths['unlabeled'], ('unlabelled/x.webp', 'unlabelled/y/z.gif')
    )
    np.testing.assert_array_equal(found.labels['unlabeled'], [-1, -1])
    np.testing.assert_array_equal(found.labels['validation'], [1])
    np.testing.assert_array_equal(found.labels['test'], [0])

  @parameterized.parameters(
    ('train', 'unlabeled', 'val'),
    ('labeled', 'unlabelled', 'valid'),
    ('Labelled', 'Unlabelled', 'Validation'),
  )
  def test_spellings(self, labeled, unlabeled, validation):
    self.touch(
      f'{labeled}/a/1.png',
      f'{labeled}/b/2.png',
      f'{unlabeled}/3.png',
      f'{validation}/a/4.png',
    )
    found = listing.scan(self.folder)
    sizes = {part: len(paths) for part, paths in found.paths.items()}
    self.assertEqual(
      sizes, {'labeled': 2, 'unlabeled': 1, 'validation': 1, 'test': 0}
    )

  def test_two_spellings_of_one_part(self):
    self.two_classes()
    self.touch('train/cat/c.png')
    self.refused('labelled/ and train/', 'move all images into one')

  def test_what_is_skipped(self):
    self.two_classes()
    self.touch(
      'labelled/cat/.hidden.jpg',
      'labelled/cat/Thumbs.db',
      'labelled/cat/notes.txt',
      'labelled/.git/x.png',
      'unlabelled/__MACOSX/y.png',
      'labelled/@eaDir/z.png',
      'labelled/cat/b.HEIC',
    )
    found = listing.scan(self.folder)
    self.assertEqual(found.skipped['hidden files'], 2)
    self.assertEqual(found.skipped['files that are not images'], 1)
    self.assertEqual(found.skipped['hidden folders'], 3)
    self.assertEqual(
      listing.skipped_lines(found.skipped),
      [
        'skipped: 3 hidden folders, 2 hidden files, 1 .heic pictures, which '
        'must be converted to be read, 1 files that are not images'
      ],
    )
    self.assertEqual(listing.skipped_lines({'x': 0}), [])

  def test_links_to_a_folder_above_end(self):
    self.two_classes()
    os.symlink(self.folder, self.folder / 'labelled' / 'cat' / 'loop')
    os.symlink(
      self.folder / 'labelled' / 'dog' / 'b.jpg',
      self.folder / 'labelled' / 'cat' / 'link.jpg',
    )
    found = listing.scan(self.folder)
    self.assertIn('labelled/cat/link.jpg', found.paths['labeled'])
    self.enterContext(contextlib.chdir(self.folder))
    self.assertEqual(listing.scan('.').paths, found.paths)

  def test_two_links_to_one_folder_are_both_read(self):
    self.touch('elsewhere/a.png', 'labelled/dog/b.jpg')
    for name in ('cat', 'dog/more'):
      link = self.folder / 'labelled' / name
      link.symlink_to(self.folder / 'elsewhere', target_is_directory=True)
    found = listing.scan(self.folder)
    self.assertEqual(found.classes, ('cat', 'dog'))
    np.testing.assert_array_equal(found.labels['labeled'], [0, 1, 1])

  def test_a_part_in_two_cases(self):
    self.two_classes()
    self.touch('Test/cat/a.png', 'test/cat/b.png')
    self.refused('Test/ and test/, which mean the same')

  def test_errors_of_reading_are_not_ignored(self):
    self.two_classes()
    gone = OSError(13, 'Permission denied', str(self.folder / 'labelled'))
    with mock.patch.object(os, 'scandir', side_effect=gone):
      self.refused('labelled cannot be read (Permission denied)')

  @parameterized.parameters('labelled', 'test')
  def test_minus_one_is_no_class(self, part):
    """It may be one of -1, 0, 1, which would lose its images."""
    self.two_classes()
    self.touch(f'{part}/-1/c.jpg')
    self.refused(f'{part}/-1 is not a class', 'such as to minus_1')

  @parameterized.parameters(
    ('', 'test/cat/t.png,cat\n'),
    (',split', 'test/cat/t.png,cat,train\n'),
    ('', 'test/cat/t.png,\n'),
  )
  def test_a_table_that_trains_on_test_images(self, columns, line):
    self.touch('a.png', 'b.png', 'test/cat/t.png', 'test/dog/u.png')
    end = ',' * columns.count(',')
    self.table(f'path,label{columns}\na.png,cat{end}\nb.png,dog{end}\n{line}')
    self.refused('makes training images of 1 in test/', 'test/cat/t.png')

  def test_a_table_of_test_images(self):
    self.touch('a.png', 'b.png', 'test/t.png')
    self.table(
      'path,label,split\na.png,cat,\nb.png,dog,\ntest/t.png,cat,test\n'
    )
    self.assertEqual(listing.scan(self.folder).paths['test'], ('test/t.png',))

  def test_table(self):
    self.touch('a.png', 'b.png', 'c.png', 'd.png', 'in/e.png', 'unlisted.png')
    self.table(
      '\ufeffpath, label\na.png,cat\nb.png, dog\nc.png,\nd.png,-1\n'
      'in/e.png,cat\n'
    )
    found = listing.scan(self.folder)
    self.assertEqual(found.paths['labeled'], ('a.png', 'b.png', 'in/e.png'))
    np.testing.assert_array_equal(found.labels['labeled'], [0, 1, 0])
    self.assertEqual(found.paths['unlabeled'], ('c.png', 'd.png'))

  def test_table_beside_folders(self):
    self.touch('a.png', 'b.png', 'unlabelled/c.png', 'test/cat/t.png')
    self.table('path,label\na.png,cat\nb.png,dog\nunlabelled/c.png,dog\n')
    found = listing.scan(self.folder)
    self.assertLen(found.paths['labeled'], 3)
    self.assertEqual(found.paths['unlabeled'], ())
    self.assertEqual(found.paths['test'], ('test/cat/t.png',))

  def test_images_that_the_table_does_not_list(self):
    self.touch('a.png', 'b.png', 'c/d.png', 'unlabelled/e.png')
    self.table('path,label\na.png,0\nb.png,1\n')
    found = listing.scan(self.folder)
    self.assertEqual(
      listing.skipped_lines(found.skipped),
      [
        'skipped: 1 images that labels.csv does not list (the first is c/d.png)'
      ],
    )
    self.assertLen(found.paths['unlabeled'], 1)

  def test_images_beside_the_parts(self):
    self.two_classes()
    self.touch('unlabelled/a.png', 'unlabelled_2/b.png', 'c.png', 'notes.txt')
    found = listing.scan(self.folder)
    self.assertEqual(
      listing.skipped_lines(found.skipped),
      [
        'skipped: 1 files that are not images, 2 images in none of labelled/, '
        'unlabelled/ (the first is c.png)'
      ],
    )

  def test_what_is_skipped_beside_a_table(self):
    self.touch('a.png', 'b', 'c.txt', '.hidden/d.png')
    self.table('path,label\na.png,0\nb,1\n')
    self.assertEqual(
      listing.skipped_lines(listing.scan(self.folder).skipped),
      ['skipped: 1 hidden folders, 1 files that are not images'],
    )

  def test_a_column_twice(self):
    self.touch('a.png', 'b.png')
    self.table('path,label,label\na.png,0,1\nb.png,1,0\n')
    self.refused("two columns 'label'")

  def test_an_open_quote(self):
    self.touch('a.png', 'b.png', 'c.png')
    self.table('path,label\na.png,0\nb.png,"1\nc.png,1\n')
    self.refused('labels.csv cannot be read')

  def test_table_with_splits(self):
    self.touch('a.png', 'b.png', 'c.png', 'd.png', 'e.png')
    self.table(
      'path,label,split\na.png,x,train\nb.png,y,\nc.png,x,val\nd.png,y,test\n'
      'e.png,,train\n'
    )
    found = listing.scan(self.folder)
    self.assertEqual(found.paths['labeled'], ('a.png', 'b.png'))
    self.assertEqual(found.paths['validation'], ('c.png',))
    self.assertEqual(found.paths['test'], ('d.png',))
    self.assertEqual(found.paths['unlabeled'], ('e.png',))

  @parameterized.parameters(
    ('path,class\na.png,x\n', "no column 'label'", 'path, class'),
    ('path,label,extra\na.png,x,1\n', "column 'extra'"),
    ('path,label\na.png,x\na.png,y\n', 'a.png is in line 2 and in line 3'),
    ('path,label\na.png,x\ngone.png,y\n', 'gone.png (line 3)'),
    ('path,label\n,x\n', 'line 2: the path is empty'),
    ('path,label\na.png\n', 'line 2: has no cell for the label'),
    ('path,label,split\na.png,x,tset\n', "split='tset'"),
    ('path,label,split\na.png,,test\n', 'needs a label'),
    ('', "no column 'path'"),
  )
  def test_wrong_tables(self, text, *words):
    self.touch('a.png')
    self.table(text)
    self.refused('labels.csv', *words)

  def test_a_table_that_is_no_text(self):
    (self.folder / 'labels.csv').write_bytes(b'\xff\xfe\x00')
    self.refused('labels.csv cannot be read')

  def test_hidden_labels_are_not_used(self):
    self.touch(*(f'{n}.jpg' for n in range(4)))
    self.table(
      'path,label,split\n0.jpg,cat,train\n1.jpg,dog,\n2.jpg,cat,unlabelled\n'
      '3.jpg,dog,unlabeled\n'
    )
    found = listing.scan(self.folder)
    self.assertEqual(found.paths['unlabeled'], ('2.jpg', '3.jpg'))
    np.testing.assert_array_equal(found.labels['unlabeled'], [-1, -1])
    self.assertEqual(
      listing.skipped_lines(found.skipped),
      ['skipped: 2 labels of images that are to be unlabeled'],
    )

  def test_ways_to_write_a_path(self):
    """None of them makes two images of one."""
    self.touch('a.jpg', 'b.jpg', 'unlabelled/c.jpg', 'unlabelled/d.jpg')
    inside = self.folder / 'unlabelled' / 'd.jpg'
    self.table(
      f'path,label\n./a.jpg,cat\nb.jpg,dog\n./unlabelled//c.jpg,\n{inside},\n'
    )
    found = listing.scan(self.folder)
    self.assertEqual(found.paths['labeled'], ('a.jpg', 'b.jpg'))
    self.assertEqual(
      found.paths['unlabeled'], ('unlabelled/c.jpg', 'unlabelled/d.jpg')
    )
    self.table('path,label\na.jpg,cat\n./a.jpg,dog\n')
    self.refused('a.jpg is in line 2 and in line 3')

  def test_absolute_paths_and_links(self):
    """The same images, whichever name of the folder the table has."""
    data, link = self.folder / 'data', self.folder / 'link'
    self.touch('data/img/a.jpg', 'data/img/b.jpg', 'data/img/c.jpg')
    self.touch('photos/d.jpg', 'photos/e.jpg')
    link.symlink_to(data)
    (data / 'unlabelled').symlink_to(self.folder / 'photos')
    (data / 'labels.csv').write_text(
      f'path,label\n{data}/img/a.jpg,cat\n{link}/img/b.jpg,dog\n'
      f'img/c.jpg,dog\n{self.folder}/photos/d.jpg,cat\n'
    )
    for folder in data, link:
      found = listing.scan(folder)
      labeled = found.paths['labeled']
      self.assertEqual(labeled[-3:], ('img/a.jpg', 'img/b.jpg', 'img/c.jpg'))
      self.assertEndsWith(labeled[0], '/photos/d.jpg')
      self.assertEqual(found.paths['unlabeled'], ('unlabelled/e.jpg',))
      self.assertEqual(listing.skipped_lines(found.skipped), [])

  @parameterized.parameters('-1.0', 'nan', 'NaN', '<NA>')
  def test_what_pandas_writes_for_no_label_is_no_class(self, label):
    self.touch('a.jpg', 'b.jpg', 'c.jpg')
    self.table(f'path,label\na.jpg,0.0\nb.jpg,1.0\nc.jpg,{label}\n')
    self.refused(f'line 4: the label {label} is not a class', 'an empty one')

  def test_one_unicode_form(self):
    composed, separate = 'T\u00fcr', 'Tu\u0308r'
    self.touch('a.jpg', 'b.jpg', 'c.jpg', f'eval/{separate}/d.jpg')
    self.table(
      f'path,label,split\na.jpg,{composed},\nb.jpg,{separate},\nc.jpg,x,\n'
      f'eval/{separate}/d.jpg,,\n'
    )
    classes = listing.scan(self.folder).classes
    self.assertEqual(classes, (composed, 'x'))
    for known in classes, (separate, 'x'):  # of an older run
      _, labels, _ = listing.scan_labeled(self.folder / 'eval', known)
      self.assertEqual(labels.tolist(), [0])

  def test_other_separators(self):
    self.touch('a.jpg', 'cat/b.jpg')
    for text, words in (
      ('path;label\na.jpg;cat\n', 'with commas'),
      ('path\tlabel\na.jpg\tcat\n', 'with commas'),
      ('sep=,\npath,label\na.jpg,cat\n', 'its first line must be'),
      ('path,label\ncat\\b.jpg,cat\n', 'with / between folders'),
    ):
      self.table(text)
      self.refused(words)

  def test_cells_without_a_column(self):
    self.touch('a.jpg', 'b.jpg')
    self.table('path,label\na.jpg,cat, black\nb.jpg,cat, white\n')
    self.refused('line 2: more cells than the 2 columns')

  def test_a_table_of_all_images_in_the_folder(self):
    self.touch('train/a.jpg', 'train/b.jpg')
    self.table('path,label\ntrain/a.jpg,cat\ntrain/b.jpg,dog\n')
    found = listing.scan(self.folder)
    self.assertEqual(found.paths['labeled'], ('train/a.jpg', 'train/b.jpg'))
    self.assertEqual(found.classes, ('cat', 'dog'))
    self.touch('train/new.jpg')
    self.refused('both labels.csv and train/', '1 images', 'train/new.jpg')

  def test_table_and_folder(self):
    self.two_classes()
    self.table('path,label\n')
    self.refused('both labels.csv and labelled/')

  def test_empty_folder(self):
    self.refused('has no labels', 'labelled/<class>/')

  def test_no_image(self):
    self.touch('labelled/notes.txt')
    self.refused('no image', '1 files that are not images')

  def test_no_labeled_image(self):
    self.touch('unlabelled/a.png')
    self.refused('no labeled image')

  def test_one_class(self):
    self.touch('labelled/cat/a.png')
    self.refused("one class, 'cat'")

  def test_empty_class(self):
    self.two_classes()
    (self.folder / 'labelled' / 'owl').mkdir()
    self.refused('folder of class owl')

  def test_an_image_in_no_class(self):
    self.two_classes()
    self.touch('labelled/a.png')
    self.refused('labelled/a.png', 'labelled/<class>/')

  @parameterized.parameters('test', 'validation')
  def test_a_class_without_a_label(self, part):
    self.two_classes()
    self.touch(f'{part}/owl/a.png')
    self.refused(f'the {part} images', 'owl')

  def test_an_empty_part(self):
    self.two_classes()
    (self.folder / 'test').mkdir()
    self.refused('test has no image')

  def test_no_folder(self):
    self.folder = self.folder / 'gone'
    self.refused('gone is not a folder')

  def test_an_address(self):
    with self.assertRaisesRegex(errors.UserError, 'only local folders'):
      listing.scan('gs://bucket/photos')

  def test_images_to_evaluate_on(self):
    self.touch('dog/b.png', 'cat/a.png', 'cat/notes.txt')
    paths, labels, skipped = listing.scan_labeled(
      self.folder, ('ape', 'cat', 'dog')
    )
    self.assertEqual(paths, ('cat/a.png', 'dog/b.png'))
    np.testing.assert_array_equal(labels, [1, 2])
    self.assertEqual(skipped['files that are not images'], 1)

  def test_a_table_to_evaluate_on(self):
    self.touch('a.png', 'b.png', 'c.png', 'd/e.png')
    self.table('path,label\na.png,dog\nb.png,\n')
    paths, labels, skipped = listing.scan_labeled(self.folder, ('cat', 'dog'))
    self.assertEqual(paths, ('a.png',))
    np.testing.assert_array_equal(labels, [1])
    self.assertEqual(skipped['images without a label'], 1)
    reason = 'images that labels.csv does not list (the first is c.png)'
    self.assertEqual(skipped[reason], 2)

  def test_a_table_with_splits_to_evaluate_on(self):
    self.touch('a.jpg', 'b.jpg', 'c.jpg')
    self.table(
      'path,label,split\na.jpg,cat,test\nb.jpg,dog,train\nc.jpg,dog,\n'
    )
    paths, labels, skipped = listing.scan_labeled(self.folder, ('cat', 'dog'))
    self.assertEqual((paths, labels.tolist()), (('a.jpg',), [0]))
    self.assertIn(
      '2 images that are not for testing', listing.skipped_lines(skipped)[0]
    )

  @parameterized.parameters(
    (('owl/a.png',), 'class owl', 'it knows cat, dog'),
    (('a.png',), 'a.png is in no folder of a class'),
    ((), 'no labeled image'),
    (('labelled/cat/a.png', 'test/cat/b.png'), '--images=', '/test'),
    (('labels.csv', 'a.png', 'test/cat/b.png'), 'does not list', '/test'),
  )
  def test_wrong_images_to_evaluate_on(self, paths, *words):
    self.touch(*paths)
    if 'labels.csv' in paths:
      self.table('path,label\na.png,cat\n')
    with self.assertRaises(errors.UserError) as caught:
      listing.scan_labeled(self.folder, ('cat', 'dog'))
    for word in words:
      self.assertIn(word, str(caught.exception))


if __name__ == '__main__':
  absltest.main()
