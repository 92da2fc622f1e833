"""The pages: their commands are accepted, their blocks run, their links lead
somewhere, and what is written from the code is current.

A block is not run if the line before it is `<!-- not run: REASON -->`. Every
training in a block is shortened to one seed of a few steps.
"""

import ast
import contextlib
import importlib.util
import io
import os
import pathlib
import re
import shlex
import shutil
import sys
import tempfile
from unittest import mock

import folders
import numpy as np
from absl.testing import absltest, parameterized
from repository import ROOT

import nsl_jax
from configs import common
from nsl_jax import __main__ as main_lib, errors, main
from nsl_jax.commands import cli
from nsl_jax.training import (
  automatic,
  config as config_lib,
  config_options,
  experiment,
)

PAGES = ('README.md', *sorted(f'docs/{p.name}' for p in ROOT.glob('docs/*.md')))
_FENCE = re.compile(
  r'(?ms)^(?P<indent> *)(?:<!-- not run: (?P<reason>[^\n]+) -->\n(?P=indent))?'
  r'```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$'
)
# What a reader has to replace.
_PLACEHOLDERS = re.compile(r'FILE|DIR|NAME|my_package|…|\.\.\.')


class Parsed(Exception):
  """Raised once the options are read, before anything is done."""


def read(page):
  return (ROOT / page).read_text(encoding='utf-8')


def blocks(page):
  """(language, text, reason not to run it or None) of every block."""
  for found in _FENCE.finditer(read(page)):
    yield found['language'], found['text'], found['reason']


def lines_of(text):
  """The lines of a shell block, joined where they end by a backslash."""
  return [
    line.strip()
    for line in re.sub(r'\s*\\\n\s*', ' ', text).splitlines()
    if line.strip()
  ]


def words_of(line):
  """The command and its words, of `python -m nsl_jax[.main] ...`; else None."""
  words = shlex.split(line, comments=True)
  if words[:2] != ['python', '-m'] or words[2] not in (
    'nsl_jax',
    'nsl_jax.main',
  ):
    return None
  return words[3:] if words[2] == 'nsl_jax' else ['train', *words[3:]]


def commands():
  """(where, words after `python -m nsl_jax`) of every command."""
  texts = {
    page: '\n'.join(text for kind, text, _ in blocks(page) if kind == 'sh')
    for page in PAGES
  }
  for path in (
    *(ROOT / 'configs').glob('*.py'),
    *(ROOT / 'nsl_jax').rglob('*.py'),
  ):
    texts[path.name] = ast.get_docstring(ast.parse(path.read_text())) or ''
  for where, text in texts.items():
    for line in lines_of(text):
      words = words_of(line) if line.startswith('python -m nsl_jax') else None
      if words and not _PLACEHOLDERS.search(' '.join(words)):
        yield where, words


def command(name):
  module = 'main' if name == 'train' else f'commands.{name}'
  return importlib.import_module(f'nsl_jax.{module}')


class CommandsTest(absltest.TestCase):
  def test_every_command_is_accepted(self):
    parse = cli.Parser.parse_args

    def parse_and_stop(parser, argv=None):
      parse(parser, argv)
      raise Parsed

    count = 0
    for where, (name, *rest) in commands():
      with self.subTest(' '.join([where, name, *rest])):
        count += 1
        self.assertIn(name, main_lib.COMMANDS)
        with mock.patch.object(cli.Parser, 'parse_args', parse_and_stop):
          with self.assertRaises(Parsed):
            command(name).main(rest)
        words, overrides = main.split_overrides(rest)
        for word in words:
          if word.startswith('--config='):
            config_lib.load(word.removeprefix('--config='), overrides)
    self.assertGreater(count, 40)


def shortened(run):
  """`experiment.run` of a few steps, without convolutions where the network is
  no matter."""

  def short(config, workdir, source=None, **options):
    config = config.copy_and_resolve_references().unlock()
    if config.model.name in (config_options.AUTO, 'small_cnn'):
      config.model = dict(name='mlp', hidden=8, layers=1)
      config_options.complete(config)
    if automatic.is_open(config):
      config.steps = 4
      config.batch.labeled = config.batch.unlabeled = 8
    elif config.steps > 20:
      common.shrink(config)
    config.row = ''
    config.seeds = config.devices = 1
    return run(config.lock(), workdir, source, **options)

  return short


def _together():
  """Pages with blocks to run; what those of the first make is used by the
  second."""
  first = 'README.md', 'docs/own-images.md'
  yield first
  for page in PAGES:
    if page not in first and any(
      language in ('sh', 'python') and reason is None
      for language, _, reason in blocks(page)
    ):
      yield (page,)


class BlocksTest(parameterized.TestCase):
  @parameterized.parameters(*PAGES)
  def test_each_runs_or_says_why_not(self, page):
    for language, text, reason in blocks(page):
      self.assertIn(
        language, ('sh', 'python', 'text', *_DIRECTIVES), f'{page}: {text}'
      )
      if language == 'sh' and reason is None:
        for line in lines_of(text):
          self.assertIsNotNone(words_of(line), f'{page}: {line} cannot run')

  @parameterized.parameters(*_together())
  def test_run(self, *pages):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.enterContext(contextlib.chdir(folder))
    self.enterContext(_importable(folder))
    short = shortened(experiment.run)
    self.enterContext(mock.patch.object(experiment, 'run', short))
    self.enterContext(mock.patch.object(nsl_jax, 'run', short))
    names, done = prepare(folder), set()
    for page in pages:
      for language, text, reason in blocks(page):
        if reason is None:
          with self.subTest(f'{page}: {text}'):
            try:
              run_block(language, text, names, done)
            except errors.UserError as error:
              if ' is not in ' not in str(error) or _DATA_ARE_THERE:
                raise
              self.skipTest(str(error))


_DATA_ARE_THERE = 'TFDS_DATA_DIR' in os.environ
_DIRECTIVES = ('{eval-rst}', '{include} ../README.md', '{toctree}')


def prepare(folder):
  """What a reader has: pictures, arrays, the ledger. Returns the arrays."""
  folders.make(folder / 'photos')
  shutil.copytree(folder / 'photos' / 'unlabelled', folder / 'new_photos')
  folders.picture(0, 99).save(folder / 'new.jpg')
  (folder / 'docs').mkdir()
  shutil.copytree(ROOT / 'results', folder / 'results')
  rng = np.random.default_rng(0)
  X = rng.normal(size=(60, 4)) + 3 * (np.arange(60) % 2)[:, None]
  y = np.where(np.arange(60) < 30, np.arange(60) % 2, -1)
  return {'X': X, 'y': y, 'X_new': X[:5]}


@contextlib.contextmanager
def _importable(folder):
  """Modules in the folder, as when Python is started there."""
  before = set(sys.modules)
  sys.path.insert(0, str(folder))
  try:
    yield
  finally:
    sys.path.remove(str(folder))
    for name in set(sys.modules) - before:
      if name.partition('.')[0] == 'my_package':
        del sys.modules[name]


def run_block(language, text, names, done):
  """Runs a block in the current folder.

  Args:
    language: of the block; others than sh and python are not run.
    text: of the block. A first line `# my_package/name.py` is where to write
      it.
    names: variables of the blocks of Python so far.
    done: commands so far, which are not repeated.
  """
  if language == 'python':
    place = re.match(r'# (my_package/\w+\.py)\n', text)
    if place:
      path = pathlib.Path(place[1])
      path.parent.mkdir(exist_ok=True)
      path.write_text(text)
      importlib.invalidate_caches()
    else:
      exec(compile(text, '<block>', 'exec'), names)
  elif language == 'sh':
    for line in lines_of(text):
      if line in done:
        continue
      done.add(line)
      name, *rest = words_of(line)
      if name == 'plot':
        pathlib.Path('docs/images').mkdir(exist_ok=True)
      with contextlib.redirect_stdout(io.StringIO()):
        command(name).main(rest)


def _generator():
  spec = importlib.util.spec_from_file_location('pages', ROOT / 'docs/pages.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


class WrittenTest(absltest.TestCase):
  def test_pages_of_commands_and_configs_are_current(self):
    for name, page in _generator().PAGES.items():
      self.assertEqual(
        read(f'docs/{name}'), page(), 'run `python docs/pages.py`'
      )


def _anchors(page):
  """Anchors of the headings, as GitHub and the site make them."""
  for line in re.findall(r'(?m)^#+ (.*)$', _FENCE.sub('', read(page))):
    line = re.sub(r'\[(.*?)\]\(.*?\)', r'\1', line.lower())
    yield re.sub(r'[^\w\- ]', '', line).replace(' ', '-')


class LinksTest(parameterized.TestCase):
  @parameterized.parameters(*PAGES, 'CONTRIBUTING.md')
  def test_lead_somewhere(self, page):
    text = _FENCE.sub('', read(page))
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
      if re.match(r'https?:', target):
        continue
      path, _, anchor = target.partition('#')
      found = (ROOT / page).parent / path if path else ROOT / page
      self.assertTrue(found.exists(), f'{page}: {target}')
      if anchor:
        self.assertIn(anchor, list(_anchors(found)), f'{page}: {target}')

  def test_readme_links_every_page(self):
    for page in PAGES[1:]:
      if page != 'docs/index.md':  # which is the README
        self.assertIn(f']({page})', read('README.md'))
        stem = pathlib.Path(page).stem
        self.assertRegex(read('docs/index.md'), rf'(?m)^{stem}$')

  def test_citation_names_the_papers_and_the_version(self):
    text = read('CITATION.cff')
    self.assertIn(f'\nversion: {nsl_jax.__version__}\n', text)
    for paper in ('1911.05166', '2301.03976', '1912.10364'):
      self.assertIn(f'https://arxiv.org/abs/{paper}', text)
      self.assertIn(f'https://arxiv.org/abs/{paper}', read('README.md'))
    self.assertIn(f'## [{nsl_jax.__version__}]', read('CHANGELOG.md'))

  def test_readme_is_short(self):
    self.assertLessEqual(len(read('README.md').splitlines()), 150)
    pictures = list((ROOT / 'docs' / 'images').iterdir())
    for picture in pictures:
      self.assertLess(picture.stat().st_size, 150_000)


if __name__ == '__main__':
  absltest.main()
