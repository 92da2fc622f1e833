"""Commands in README, docs and the headers of configs are accepted."""

import ast
import importlib
import re
import shlex
from unittest import mock

from absl.testing import absltest
from repository import ROOT

from nsl_jax import __main__ as main_lib, main
from nsl_jax.commands import cli
from nsl_jax.training import config as config_lib

# What a reader has to replace.
_PLACEHOLDERS = re.compile(r'FILE|DIR|NAME|my_package|…|\.\.\.')


class Parsed(Exception):
  """Raised once the options are read, before anything is done."""


def commands():
  """(where, words after `python -m nsl_jax`) of every command."""
  pages = {
    path: '\n'.join(re.findall(r'```sh\n(.*?)```', path.read_text(), re.S))
    for path in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'))
  }
  for path in (
    *(ROOT / 'configs').glob('*.py'),
    *(ROOT / 'nsl_jax').rglob('*.py'),
  ):
    pages[path] = ast.get_docstring(ast.parse(path.read_text())) or ''
  for path, text in pages.items():
    text = re.sub(r'\s*\\\n\s*', ' ', text)
    for line in re.findall(r'(?m)^python -m nsl_jax[ .].*$', text):
      words = shlex.split(line, comments=True)[3:]
      if line.startswith('python -m nsl_jax.main'):
        words = ['train', *words]
      if not _PLACEHOLDERS.search(' '.join(words)):
        yield path.name, words


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
        module = 'main' if name == 'train' else f'commands.{name}'
        command = importlib.import_module(f'nsl_jax.{module}')
        with mock.patch.object(cli.Parser, 'parse_args', parse_and_stop):
          with self.assertRaises(Parsed):
            command.main(rest)
        words, overrides = main.split_overrides(rest)
        for word in words:
          if word.startswith('--config='):
            config_lib.load(word.removeprefix('--config='), overrides)
    self.assertGreater(count, 40)


if __name__ == '__main__':
  absltest.main()
