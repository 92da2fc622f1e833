"""The report of an evaluation: what it says, and that it needs nothing else."""

import html.parser
import io
import json
import os
import pathlib
import re
import subprocess
import tempfile
import warnings
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from page_inputs import LINES, PNG
from PIL import Image

from nsl_jax import errors
from nsl_jax.reports import style
from nsl_jax.reports.evaluation import markup, page

_HOSTILE = '<script>alert("x")</script>&\'"'
_VOID = ('meta', 'link', 'img', 'br')


class Reader(html.parser.HTMLParser):
  """What a page has; fails where a tag is not closed."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.texts, self.open = [], {}, []
    self.feed(text)
    self.close()
    assert not self.open, f'not closed: {self.open}'

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in _VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag, tag

  def handle_data(self, data):
    inside = self.open[-1] if self.open else ''
    self.texts.setdefault(inside, []).append(data)

  def of(self, tag):
    """The attributes of every tag of that name."""
    return [attrs for name, attrs in self.tags if name == tag]


def _image(row):
  return Image.new('RGB', (12, 8), (row % 256, 100, 50))


def _inputs(images=60, size=4, seed=0, **other):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, size, images)
  odds = np.exp(rng.normal(size=(images, size)) + np.eye(size)[labels])
  return {
    'title': 'A report',
    'facts': {'Method': 'mixmatch', 'Seed': '0'},
    'classes': [f'class_{n}' for n in range(size)],
    'labels': labels,
    'probabilities': (odds / odds.sum(1, keepdims=True)).astype(np.float32),
    'paths': [f'photos/{n:03}.png' for n in range(images)],
    'thumbnail': _image,
    'metric_lines': LINES,
    'notes': ['2 files were skipped.'],
    **other,
  }


def _png(figure):
  """An empty picture of the size of a figure, much faster."""
  buffer = io.BytesIO()
  size = (figure.get_size_inches() * 150).astype(int).tolist()
  Image.new('L', size).save(buffer, format='png')
  return buffer.getvalue()


class PageTest(parameterized.TestCase):
  drawn = False  # whether the pictures are

  def setUp(self):
    super().setUp()
    if not self.drawn:
      self.enterContext(mock.patch.object(style, 'png', _png))
    temporary = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(temporary) / 'report'

  def write(self, **inputs):
    """The page, read."""
    self.content = page.write(self.folder, **_inputs(**inputs))
    self.text = (self.folder / page.PAGE).read_text(encoding='utf-8')
    return Reader(self.text)


class DrawnTest(PageTest):
  drawn = True

  def test_names(self):
    self.write()
    self.assertCountEqual(
      [path.name for path in self.folder.iterdir()], self.content['files']
    )
    self.assertCountEqual(
      self.content['files'],
      [
        'report.html',
        'evaluation.json',
        'confusion.png',
        'reliability.png',
        'curves.png',
      ],
    )
    for path in self.folder.glob('*.png'):
      self.assertStartsWith(path.read_bytes(), PNG)

  def test_size_with_large_photos(self):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 400, 3), np.uint8)
    self.write(images=300, size=100, thumbnail=lambda _: Image.fromarray(noise))
    self.assertLess((self.folder / page.PAGE).stat().st_size, 3e6)

  def test_names_that_no_font_or_encoding_has(self):
    names = ['\u5b57\u0627', 'a\nb', '$x_1', os.fsdecode(b'\xff.png')]
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      read = self.write(classes=names, paths=[names[3]] * 60)
    self.assertIn('\u5b57\u0627', read.texts['th'])
    self.assertIn('\\udcff.png', read.texts['span'])


class FilesTest(PageTest):
  def test_json_is_what_is_returned(self):
    self.write()
    text = (self.folder / page.NUMBERS).read_text()
    self.assertEqual(json.loads(text), self.content)
    self.assertEqual(self.content['facts'], {'Method': 'mixmatch', 'Seed': '0'})
    self.assertEqual(
      self.content['best'], {'step': 20, 'validation_error': 10.0}
    )
    self.assertEqual(self.content['scores']['images'], 60)

  def test_no_curves_without_lines(self):
    read = self.write(metric_lines=[])
    self.assertFalse((self.folder / 'curves.png').exists())
    self.assertNotIn('curves.png', self.content['files'])
    self.assertIn('The run has no measured loss or error.', read.texts['p'])

  def test_nothing_is_written_where_an_image_cannot_be_read(self):
    def fail(row):
      raise OSError(f'no image {row}')

    with self.assertRaisesRegex(OSError, 'no image'):
      self.write(thumbnail=fail)
    self.assertFalse(self.folder.exists())

  def test_wrong_input_writes_nothing(self):
    for wrong in (
      {'paths': ['one']},
      {'labels': np.full(60, 9)},
      {'classes': ['one']},
    ):
      with self.assertRaises(errors.UserError) as raised:
        self.write(**wrong)
      self.assertNotIn('\n', str(raised.exception))
    self.assertFalse(self.folder.exists())

  def test_folder_that_is_a_file(self):
    self.folder.write_text('')
    with self.assertRaisesRegex(errors.UserError, 'cannot make the folder'):
      self.write()


class SelfContainedTest(PageTest):
  def assert_self_contained(self, read):
    """No script, no address of anything but data."""
    names = {name for name, _ in read.tags}
    self.assertNoCommonElements(
      names, {'script', 'iframe', 'object', 'embed', 'base', 'form', 'video'}
    )
    for tag, attrs in read.tags:
      for name, value in attrs.items():
        where = f'{tag} {name}={value[:40]}'
        self.assertFalse(name.startswith('on'), where)
        if name in ('src', 'srcset', 'href', 'data', 'action', 'poster'):
          self.assertRegex(value, '^(data:|#)', where)
        if not value.startswith('data:') and name != 'alt':
          self.assertNotRegex(value, r'//|url\(|https?:|javascript:', where)
    (css,) = read.texts['style']
    self.assertNotRegex(css, r'//|url\(|@import|http')
    for attrs in read.of('link'):
      self.assertEqual(attrs, {'rel': 'icon', 'href': 'data:,'})
    policy = [a for a in read.of('meta') if 'http-equiv' in a]
    self.assertIn("default-src 'none'", policy[0]['content'])

  def test_nothing_from_outside(self):
    read = self.write()
    self.assert_self_contained(read)
    plain = re.sub('data:[a-z/]+;base64,[A-Za-z0-9+/=]+', '', self.text)
    self.assertNotRegex(
      plain.replace('http-equiv', ''), r'http|//|url\(|<script|@import'
    )

  def test_what_is_given_is_escaped(self):
    read = self.write(
      title=_HOSTILE,
      facts={_HOSTILE: _HOSTILE},
      classes=[f'{_HOSTILE}{n}' for n in range(4)],
      paths=[f'{_HOSTILE}" onerror="x{n}' for n in range(60)],
      notes=[_HOSTILE, '</ul><img src=http://a.b/c>'],
    )
    self.assert_self_contained(read)
    self.assertEqual(read.texts['title'], [_HOSTILE])
    self.assertEqual(read.texts['h1'], [_HOSTILE])
    self.assertIn(_HOSTILE, read.texts['td'])
    self.assertIn(f'{_HOSTILE}0', read.texts['b'])
    self.assertIn('</ul><img src=http://a.b/c>', read.texts['li'])
    alts = [attrs['alt'] for attrs in read.of('img')]
    self.assertTrue(any(_HOSTILE in alt for alt in alts))


class ContentTest(PageTest):
  def test_head(self):
    read = self.write()
    self.assertEqual(read.of('html'), [{'lang': 'en'}])
    self.assertIn({'charset': 'utf-8'}, read.of('meta'))
    self.assertTrue(any(a.get('name') == 'viewport' for a in read.of('meta')))
    self.assertEqual(read.texts['title'], ['A report'])
    self.assertIn('prefers-color-scheme: dark', self.text)

  def test_headline(self):
    read = self.write(
      images=10,
      size=2,
      labels=np.array([0] * 10),
      probabilities=np.array([[0.9, 0.1]] * 8 + [[0.2, 0.8]] * 2),
    )
    self.assertEqual(read.texts['strong'], ['80.0\u00a0%'])
    self.assertIn(
      'accuracy, 95\u00a0% interval 49.0 to 94.3\u00a0%', read.texts['span']
    )
    self.assertIn('10 images of 2 classes, 2 mistakes.', read.texts['p'])
    self.assertIn('No image, hence no recall: class_1.', read.texts['li'])

  def test_tables_have_captions_and_heads(self):
    read = self.write()
    self.assertLen(read.of('table'), 3)
    self.assertLen(read.texts['caption'], 3)
    for attrs in read.of('th'):
      self.assertIn(attrs['scope'], ('row', 'col'))
    self.assertIn('Method', read.texts['th'])
    self.assertIn('mixmatch', read.texts['td'])

  def test_every_picture_has_a_text_and_a_size(self):
    read = self.write()
    for attrs in read.of('img'):
      self.assertNotEmpty(attrs['alt'])
      self.assertGreater(int(attrs['width']), 0)
      self.assertGreater(int(attrs['height']), 0)

  def test_links_lead_somewhere(self):
    read = self.write()
    known = {attrs['id'] for _, attrs in read.tags if 'id' in attrs}
    links = {attrs['href'].removeprefix('#') for attrs in read.of('a')}
    self.assertLen(links, 9)
    self.assertContainsSubset(links, known)
    for _, attrs in read.tags:
      if 'aria-labelledby' in attrs:
        self.assertIn(attrs['aria-labelledby'], known)

  def test_classes_by_recall_and_what_is_undefined(self):
    # Recall 1/2 of b, 1 of a, none of c, which nobody has.
    read = self.write(
      images=4,
      size=3,
      labels=np.array([0, 0, 1, 1]),
      probabilities=np.eye(3)[[0, 0, 1, 0]],
    )
    heads = [t for t in read.texts['th'] if t.startswith('class_')]
    self.assertEqual(heads[:3], ['class_1', 'class_0', 'class_2'])
    self.assertEqual(read.texts['td'].count('–'), 3)

  def test_images_shown(self):
    requested = []

    def thumbnail(row):
      requested.append(row)
      return _image(row)

    read = self.write(images=200, thumbnail=thumbnail)
    self.assertLen(read.of('li'), 9 + 24 + 24 + 1)
    self.assertLen(requested, 48)
    for name in ('mistakes', 'least_sure'):
      self.assertLen(self.content[name], 24)
    wrong = [e['probability'] for e in self.content['mistakes']]
    self.assertEqual(wrong, sorted(wrong, reverse=True))
    self.assertFalse(any(e['correct'] for e in self.content['mistakes']))
    unsure = [e['probability'] for e in self.content['least_sure']]
    self.assertEqual(unsure, sorted(unsure))
    first = self.content['mistakes'][0]
    self.assertEqual(first['path'], f'photos/{first["image"]:03}.png')
    self.assertIn(first['path'], read.texts['span'])

  def test_no_mistake(self):
    read = self.write(
      images=3, labels=np.arange(3), probabilities=np.eye(4)[:3]
    )
    self.assertEqual(self.content['mistakes'], [])
    self.assertIn('No mistakes.', read.texts['p'])
    self.assertIn(
      'No image is taken for one of another class.', read.texts['p']
    )

  def test_one_image(self):
    read = self.write(images=1, size=2, facts={}, notes=[], metric_lines=[])
    self.assertIn('1 image of 2 classes', ''.join(read.texts['p']))

  def test_probability_of_zero_is_told(self):
    read = self.write(
      images=1, labels=np.array([1]), probabilities=np.eye(4)[:1]
    )
    self.assertIn(
      'The probability of the true class is 0 in 1 image',
      ''.join(read.texts['li']),
    )


class ThumbnailTest(parameterized.TestCase):
  def read(self, image):
    (attrs,) = Reader(markup.thumbnail(image, 'x')).of('img')
    return int(attrs['width']), int(attrs['height']), attrs['src']

  def test_at_most_160_pixels(self):
    width, height, source = self.read(Image.new('RGB', (800, 400)))
    self.assertEqual((width, height), (160, 80))
    self.assertStartsWith(source, 'data:image/jpeg;base64,')

  def test_a_small_one_stays_as_it_is(self):
    image = _image(7)
    width, height, source = self.read(image)
    self.assertEqual((width, height), (12, 8))
    self.assertStartsWith(source, 'data:image/png;base64,')
    self.assertEqual(image.size, (12, 8))

  @parameterized.parameters('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK')
  def test_modes(self, mode):
    self.read(Image.new(mode, (200, 100)))

  def test_transparent_becomes_white(self):
    with mock.patch.object(Image.Image, 'save', autospec=True) as save:
      markup.thumbnail(Image.new('RGBA', (4, 4), (0, 0, 0, 0)), 'x')
    self.assertEqual(save.call_args.args[0].getpixel((0, 0)), (255,) * 3)

  @parameterized.parameters(20, 200)
  def test_a_color_profile_is_left_out(self, size):
    image = Image.new('RGB', (size, size))
    image.info['icc_profile'] = b'x' * 100_000
    _, _, source = self.read(image)
    self.assertLess(len(source), 5000)
    self.assertIn('icc_profile', image.info)

  def test_the_image_given_is_not_changed(self):
    image = Image.new('RGB', (800, 400))
    self.read(image)
    self.assertEqual(image.size, (800, 400))


@absltest.skipIf(
  'NSL_JAX_BROWSER' not in os.environ,
  'NSL_JAX_BROWSER names no browser, such as chromium, to open the page with',
)
class BrowserTest(PageTest):
  drawn = True

  def open(self, *words):
    root = ['--no-sandbox'] if os.geteuid() == 0 else []
    address = (self.folder / page.PAGE).resolve().as_uri()
    done = subprocess.run(
      [
        os.environ['NSL_JAX_BROWSER'],
        '--headless',
        '--disable-gpu',
        f'--user-data-dir={self.folder.parent / "profile"}',
        *root,
        *words,
        address,
      ],
      capture_output=True,
      timeout=60,
      check=True,
    )
    return done.stdout.decode()

  def test_title_and_images(self):
    self.write(images=200)
    read = Reader(self.open('--dump-dom'))
    self.assertEqual(read.texts['title'], ['A report'])
    self.assertLen(read.of('img'), 3 + 48)

  def test_picture_of_the_page(self):
    self.write()
    path = self.folder.parent / 'page.png'
    self.open(f'--screenshot={path}', '--window-size=360,2000')
    with Image.open(io.BytesIO(path.read_bytes())) as image:
      self.assertEqual(image.size, (360, 2000))
      self.assertGreater(len(image.convert('RGB').getcolors(1 << 20)), 50)


if __name__ == '__main__':
  absltest.main()
