"""The site: built without a warning, complete, and served by one host."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.parse

import fresh_process
from absl.testing import absltest
from repository import ROOT

import nsl_jax

_NEEDS = ('sphinx', 'myst_parser', 'furo')
_MISSING = [name for name in _NEEDS if not importlib.util.find_spec(name)]
# What a page loads when it is opened; links are followed by a reader only.
_LOADED = re.compile(
  r'<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc="([^"]*)"'
  r'|<link\b(?![^>]*rel="(?:canonical|search|next|prev|index|author)")'
  r'[^>]*?\bhref="([^"]*)"'
)
_OF_STYLES = re.compile(r'@import\s+["\']([^"\']+)|url\(["\']?([^"\')]+)')


def _is_elsewhere(address):
  parts = urllib.parse.urlsplit(address)
  return bool(parts.netloc) and parts.scheme != 'data'


@unittest.skipIf(
  _MISSING, f'{", ".join(_MISSING)} not installed: pip install -e ".[docs]"'
)
class SiteTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    made = tempfile.TemporaryDirectory()
    cls.addClassCleanup(made.cleanup)
    cls.folder = pathlib.Path(made.name)
    done = subprocess.run(
      [sys.executable, '-m', 'sphinx', '-q', '-W', 'docs', made.name],
      cwd=ROOT,
      env=fresh_process.environment(PYTHONPATH=str(ROOT)),
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr

  def test_every_page_is_there(self):
    for page in (ROOT / 'docs').glob('*.md'):
      self.assertTrue((self.folder / f'{page.stem}.html').is_file(), page)

  def test_every_public_name_is_in_the_reference(self):
    from sphinx.util import inventory

    with (self.folder / 'objects.inv').open('rb') as file:
      listed = inventory.InventoryFile.load(file, '', lambda a, b: b)
    names = {
      name
      for kind, found in listed.items()
      if kind.startswith('py:')
      for name in found
    }
    for name in nsl_jax.__all__:
      if name == '__version__':
        continue
      self.assertIn(f'nsl_jax.{name}', names)
      for inner in getattr(getattr(nsl_jax, name), '__all__', ()):
        self.assertIn(f'nsl_jax.{name}.{inner}', names)

  def test_nothing_comes_from_another_host(self):
    pages = list(self.folder.rglob('*.html'))
    self.assertGreater(len(pages), 10)
    for page in pages:
      for found in _LOADED.finditer(page.read_text(encoding='utf-8')):
        self.assertFalse(_is_elsewhere(found[1] or found[2]), found[0])
    for sheet in self.folder.rglob('*.css'):
      for found in _OF_STYLES.finditer(sheet.read_text(encoding='utf-8')):
        self.assertFalse(_is_elsewhere(found[1] or found[2]), found[0])

  def test_what_would_be_found(self):
    for text in (
      '<script defer src="https://cdn.example/x.js"></script>',
      '<link rel="stylesheet" href="//fonts.example/css" />',
    ):
      found = _LOADED.search(text)
      self.assertTrue(_is_elsewhere(found[1] or found[2]))


if __name__ == '__main__':
  absltest.main()
