"""The public names: listed, described, in the reference, cheap to import."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import types

import fresh_process
from absl.testing import absltest, parameterized
from repository import ROOT

import nsl_jax

MODULES = tuple(
  name
  for name in nsl_jax.__all__
  if isinstance(getattr(nsl_jax, name), types.ModuleType)
)
_REFERENCE = (ROOT / 'docs' / 'api.md').read_text(encoding='utf-8')


def module(name):
  return importlib.import_module(f'nsl_jax.{name}')


def objects():
  """(name, object) of every public function and class."""
  for name in nsl_jax.__all__:
    if name not in (*MODULES, '__version__'):
      yield name, getattr(nsl_jax, name)
  for name in MODULES:
    for inner in module(name).__all__:
      value = getattr(module(name), inner)
      if inspect.isfunction(value) or (
        inspect.isclass(value) and value.__module__.startswith('nsl_jax')
      ):
        yield f'{name}.{inner}', value


class NamesTest(parameterized.TestCase):
  def test_the_promised_ones(self):
    promised = {'losses', 'methods', 'terms', 'models', 'data'}
    self.assertContainsSubset(
      {'load', 'SemiSupervisedClassifier', 'run', 'load_config', *promised},
      nsl_jax.__all__,
    )
    self.assertContainsSubset(promised, MODULES)
    self.assertEqual(dir(nsl_jax), sorted(set(dir(nsl_jax))))
    self.assertContainsSubset(nsl_jax.__all__, dir(nsl_jax))

  def test_an_unknown_one(self):
    with self.assertRaisesRegex(AttributeError, "no attribute 'lode'"):
      getattr(nsl_jax, 'lode')

  @parameterized.parameters(*MODULES)
  def test_all_are_there(self, name):
    listed = module(name).__all__
    self.assertLen(set(listed), len(listed))
    for inner in listed:
      self.assertTrue(hasattr(module(name), inner), inner)

  @parameterized.parameters('losses', 'types')
  def test_none_is_forgotten(self, name):
    """In a module all of whose names are public."""
    tree = ast.parse(inspect.getsource(module(name)))
    defined = set()
    for node in tree.body:
      if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        defined.add(node.name)
      elif isinstance(node, ast.Assign):
        defined |= {ast.unparse(target) for target in node.targets}
    defined = {one for one in defined if not one.startswith('_')}
    self.assertEqual(defined, set(module(name).__all__))


class DocstringsTest(absltest.TestCase):
  def test_each_has_one_that_is_its_own(self):
    for name, value in objects():
      with self.subTest(name):
        text = inspect.getdoc(value) or ''
        self.assertGreater(len(text), 20)
        self.assertNotRegex(text, r'^\w+\(.*\)$')  # a tuple's own

  def test_each_field_of_a_tuple_is_described(self):
    for name, value in objects():
      for field in getattr(value, '_fields', ()):
        self.assertRegex(inspect.getdoc(value), rf'(?m)^  {field}: ', name)

  def test_shapes_of_losses(self):
    for name in module('losses').__all__:
      text = inspect.getdoc(getattr(module('losses'), name))
      self.assertRegex(text, r'(f32|bool)\[N', name)


class ReferenceTest(parameterized.TestCase):
  """docs/api.md, from which the site's reference is made."""

  def test_names_of_the_package(self):
    for name in nsl_jax.__all__:
      if name == '__version__':
        self.assertIn('`nsl_jax.__version__`', _REFERENCE)
      elif name in MODULES:
        self.assertRegex(
          _REFERENCE, rf'\.\. automodule:: nsl_jax\.{name}\n   :members:\n'
        )
      else:
        self.assertRegex(_REFERENCE, rf'\.\. auto\w+:: {name}\n')
      self.assertIn(f'`nsl_jax.{name}`', _REFERENCE)

  @parameterized.parameters(*MODULES)
  def test_names_from_elsewhere(self, name):
    """Sphinx lists them where it is told to."""
    section = re.search(
      rf'automodule:: nsl_jax\.{name}\n(.*?)```', _REFERENCE, re.S
    )[1]
    path = module(name).__name__
    for inner in module(name).__all__:
      home = getattr(getattr(module(name), inner), '__module__', path)
      if home != path and home.startswith('nsl_jax'):
        self.assertIn(':imported-members:', section)


class ImportTest(absltest.TestCase):
  def run_fresh(self, code):
    done = subprocess.run(
      [sys.executable, '-c', code],
      cwd=ROOT,
      env=fresh_process.environment(),
      capture_output=True,
      text=True,
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    return done.stdout

  def test_takes_no_longer_than_jax(self):
    """Seconds of CPU, by which a busy machine does not count."""
    code = (
      'import resource, sys\n'
      'now = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_utime\n'
      'start = now()\n'
      'import {}\n'
      'print(now() - start, "jax" in sys.modules)\n'
    )
    ours, jax_too = self.run_fresh(code.format('nsl_jax')).split()
    self.assertEqual(jax_too, 'False')
    jax, _ = self.run_fresh(code.format('jax')).split()
    self.assertLess(float(ours), float(jax) + 0.2)


if __name__ == '__main__':
  absltest.main()
