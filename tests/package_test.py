"""The package as it is installed: what is in it, and that its commands run."""

import configparser
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import zipfile
from unittest import mock

import command
import fresh_process
from absl.testing import absltest, parameterized
from repository import ROOT

from nsl_jax import __main__ as command_line

_PACKAGE = ROOT / 'nsl_jax'
# What pip says where it finds nothing to build with.
_NO_BACKEND = re.compile(
  'No matching distribution found for (setuptools|wheel)'
  '|Could not find a version that satisfies the requirement (setuptools|wheel)'
)


def _run(*words, **options):
  """Status, stdout and stderr."""
  done = fresh_process.run('-m', *words, **options)
  return done.returncode, done.stdout, done.stderr


def _setup():
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg', encoding='utf-8')
  return parser['options']


class SetupTest(absltest.TestCase):
  def test_every_folder_is_a_package_and_is_named(self):
    found = {path.parent for path in _PACKAGE.rglob('*.py')}
    for folder in found:
      self.assertTrue((folder / '__init__.py').is_file(), folder)
    wanted = {'.'.join(f.relative_to(ROOT).parts) for f in found}
    named = _setup()['packages'].split()
    self.assertCountEqual(named, wanted | {'nsl_jax.configs'})

  def test_configs_are_those_of_the_repository(self):
    folders = [
      line.split(' = ') for line in _setup()['package_dir'].strip().splitlines()
    ]
    self.assertEqual(folders, [['nsl_jax.configs', 'configs']])


def _has_backend():
  """Whether wheels can be built with what is installed."""
  try:
    words = importlib.metadata.version('setuptools').split('.')
  except importlib.metadata.PackageNotFoundError:
    return False
  version = int(words[0]), int(words[1])
  wheel = importlib.util.find_spec('wheel') is not None
  return version >= (70, 1) or (version >= (68, 0) and wheel)


class WheelTest(parameterized.TestCase):
  """Built once, from a copy, since building leaves folders behind."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    if importlib.util.find_spec('pip') is None:
      raise absltest.SkipTest('no wheel can be built here: pip is missing')
    made = tempfile.TemporaryDirectory()
    cls.addClassCleanup(made.cleanup)
    folder = pathlib.Path(made.name)
    copy, cls.site = folder / 'copy', folder / 'site'
    skip = shutil.ignore_patterns('__pycache__')
    for name in ('nsl_jax', 'configs'):
      shutil.copytree(ROOT / name, copy / name, ignore=skip)
    for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
      shutil.copy(ROOT / name, copy)
    pip = lambda *words: _run(
      'pip',
      *words,
      cwd=copy,
      PIP_DISABLE_PIP_VERSION_CHECK='1',
      PIP_RETRIES='1',
    )
    own = ['--no-build-isolation'] if _has_backend() else []
    status, out, err = pip(
      'wheel', '--no-deps', *own, '-w', folder / 'wheels', '.'
    )
    if status and _NO_BACKEND.search(out + err):
      raise absltest.SkipTest(
        'no wheel can be built here: setuptools 68 or later is neither '
        'installed nor can pip reach it'
      )
    assert status == 0, out + err
    (cls.wheel,) = (folder / 'wheels').glob('*.whl')
    status, out, err = pip(
      'install', '--no-deps', '--target', cls.site, cls.wheel
    )
    assert status == 0, out + err
    with zipfile.ZipFile(cls.wheel) as file:
      cls.content = {name: file.read(name) for name in file.namelist()}

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def assert_same_files(self, under, paths, folder):
    """Files of the wheel are those of the repository, byte for byte."""
    wanted = {
      f'{under}/{p.relative_to(folder).as_posix()}': p.read_bytes()
      for p in paths
    }
    found = {n: c for n, c in self.content.items() if n in wanted}
    self.assertEqual(found.keys(), wanted.keys())
    for name, content in wanted.items():
      self.assertEqual(found[name], content, name)

  def test_configs(self):
    paths = list((ROOT / 'configs').glob('*.py'))
    self.assertNotEmpty(paths)
    self.assert_same_files('nsl_jax/configs', paths, ROOT / 'configs')

  def test_modules_and_data(self):
    paths = [*_PACKAGE.rglob('*.py')]
    paths += [_PACKAGE / 'papers' / 'rows.csv', _PACKAGE / 'py.typed']
    self.assert_same_files('nsl_jax', paths, _PACKAGE)

  def test_nothing_else(self):
    """No folder `configs`, `tests` or `results` of everybody's."""
    tops = {name.split('/')[0] for name in self.content}
    tops = {name for name in tops if not name.endswith('.dist-info')}
    self.assertEqual(tops, {'nsl_jax'})

  def test_entry_point(self):
    (text,) = (
      content.decode()
      for name, content in self.content.items()
      if name.endswith('.dist-info/entry_points.txt')
    )
    self.assertIn('nsl-jax = nsl_jax.__main__:main', text)

  def installed(self, *words):
    """A module in an empty folder that sees the installed package alone."""
    return _run(*words, cwd=self.folder, PYTHONPATH=str(self.site))

  def test_trains_in_an_empty_folder(self):
    status, out, err = self.installed(
      'nsl_jax.main', '--config=configs/digits_ns3l.py:smoke=true'
    )
    self.assertEqual(status, 0, err)
    workdir = pathlib.Path('runs') / 'digits_ns3l,smoke=true'
    self.assertRegex(out, r'^test_error [0-9.]+.* 1 seed, 20 steps\) -> ')
    self.assertIn(f'-> {workdir / "results.json"}\n', out)
    self.assertTrue((self.folder / workdir / 'results.json').is_file())
    self.assertEqual(os.listdir(self.folder), ['runs'])

  def test_is_what_is_imported(self):
    (self.folder / 'where.py').write_text(
      'import nsl_jax\n'
      'from nsl_jax.training import config\n'
      'print(nsl_jax.__file__)\n'
      'print(config.find("configs/digits_ns3l.py"))\n'
    )
    status, out, err = self.installed('where')
    self.assertEqual(status, 0, err)
    site = self.site.resolve() / 'nsl_jax'
    self.assertEqual(
      [pathlib.Path(line).resolve() for line in out.splitlines()],
      [site / '__init__.py', site / 'configs' / 'digits_ns3l.py'],
    )

  def test_own_config_imports_those_of_the_package(self):
    """And those beside it, which come first."""
    (self.folder / 'beside.py').write_text('STEPS = 7\n')
    (self.folder / 'mine.py').write_text(
      'from configs import beside, digits_ns3l\n'
      'def get_config(arg=None):\n'
      '  config = digits_ns3l.get_config(arg)\n'
      '  config.steps = beside.STEPS\n'
      '  return config\n'
    )
    status, out, err = self.installed(
      'nsl_jax', 'train', '--config=mine.py', '--print_config'
    )
    self.assertEqual(status, 0, err)
    config = json.loads(out)
    self.assertEqual((config['steps'], config['data']['name']), (7, 'digits'))
    self.assertFalse((self.folder / 'runs').exists())

  def test_results_of_the_papers_are_found(self):
    status, out, err = self.installed('nsl_jax', 'reproduce', '--list', 'DIG')
    self.assertEqual(status, 0, err)
    for row in ('DIG-1', 'DIG-2'):
      self.assertIn(row, out)


class CommandsTest(parameterized.TestCase):
  def called(self, *words):
    """Status, stdout and stderr of a command in this process."""
    with mock.patch.object(sys, 'argv', ['nsl_jax', *words]):
      return command.run(lambda _: command_line._run())

  def test_each_module_of_commands_is_one(self):
    names = {path.stem for path in (_PACKAGE / 'commands').glob('*.py')}
    self.assertEqual(
      set(command_line.COMMANDS), names - {'__init__', 'cli'} | {'train'}
    )

  def test_without_a_command_they_are_listed(self):
    for status, out, err in (_run('nsl_jax'), self.called('--help')):
      self.assertEqual((status, err), (0, ''))
      for name, what in command_line.COMMANDS.items():
        self.assertRegex(out, rf'(?m)^  {name} +{re.escape(what)}$')

  def test_each_has_help(self):
    for name in command_line.COMMANDS:
      with self.subTest(name):
        # One by a process; what the others import is imported already.
        run = (
          functools.partial(_run, 'nsl_jax') if name == 'bench' else self.called
        )
        status, out, err = run(name, '--help')
        self.assertEqual((status, err), (0, ''))
        self.assertStartsWith(out, f'usage: python -m nsl_jax {name} ')
        self.assertIn('--verbosity', out)

  def test_unknown_command(self):
    known = ', '.join(sorted(command_line.COMMANDS))
    hints = {'trian': "did you mean 'train'?", 'xyz': f'known: {known}'}
    for word in hints:
      with self.subTest(word):
        status, out, err = self.called(word, '--help')
        self.assertEqual((status, out), (2, ''))
        self.assertEqual(err, f'error: no command {word!r}: {hints[word]}\n')

  def test_status_of_what_a_command_refuses(self):
    status, out, err = _run('nsl_jax', 'train', '--config=configs/digit.py')
    self.assertEqual((status, out), (2, ''), err)
    self.assertStartsWith(err, 'error: no config file configs/digit.py: did ')
    self.assertLen(err.splitlines(), 1)


if __name__ == '__main__':
  absltest.main()
