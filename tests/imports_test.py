"""Data flows one way: a file imports only from files below it."""

import ast
import sys

import fresh_process
from absl.testing import absltest, parameterized
from repository import ROOT

PACKAGE = ROOT / 'nsl_jax'

# From the bottom: a file may import from its own folder and from earlier rows.
# Files of the package's own folder stand by their names.
FLOORS = (
  ('errors', 'types', 'memory'),
  ('files', 'options', 'losses', 'parameters', 'progress', 'references'),
  ('schedules',),
  ('papers', 'models', 'data', 'compose', 'optimizers'),
  ('terms',),
  ('methods',),
  ('training',),
  ('inference',),
  ('benchmarks',),
  ('reports',),
  ('commands',),
  ('main', '__main__'),
  ('',),  # the package itself: public names, imported when they are used
)
# Where TensorFlow may be imported inside a function, to read or to make
# files that nothing else can.
WITH_TENSORFLOW = ('data.download', 'data.records')


def modules():
  """Every module of the package by its name inside it, '' the package."""
  found = {}
  for path in sorted(PACKAGE.rglob('*.py')):
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    found['.'.join(p for p in parts if p != '__init__')] = path
  return found


def floor_of(name):
  """The number of the row that has the file's folder, or the file."""
  head = name.partition('.')[0]
  return next((n for n, row in enumerate(FLOORS) if head in row), None)


def imports(path):
  """(dotted name, whether at the top level) of everything a file imports."""
  tree = ast.parse(path.read_text(encoding='utf-8'))
  inside = set()
  for node in ast.walk(tree):
    if isinstance(node, (ast.FunctionDef, ast.Lambda)):
      inside |= set(ast.walk(node))
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: relative import'
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    else:
      continue
    yield from ((name, node not in inside) for name in names)


def own_imports(path, known):
  """Modules of the package that a file imports, at any level."""
  for name, _ in imports(path):
    if name.partition('.')[0] == 'nsl_jax':
      inner = name.partition('.')[2]
      yield inner if inner in known else inner.rpartition('.')[0]


class FloorTest(parameterized.TestCase):
  def test_every_file_has_a_floor(self):
    for name in modules():
      self.assertIsNotNone(floor_of(name), f'give {name} a row in {__file__}')

  def test_every_entry_has_files(self):
    heads = {name.partition('.')[0] for name in modules()}
    self.assertSameElements(heads, [entry for row in FLOORS for entry in row])

  def test_imports_come_from_below(self):
    known = modules()
    for name, path in known.items():
      for other in own_imports(path, known):
        self.assertIn(other, known, f'{name} imports {other}')
        if name.partition('.')[0] == other.partition('.')[0]:
          continue
        self.assertLess(
          floor_of(other),
          floor_of(name),
          f'{name} imports {other}, which is not below it',
        )

  def test_folders_say_what_lives_there(self):
    for path in PACKAGE.rglob('__init__.py'):
      tree = ast.parse(path.read_text(encoding='utf-8'))
      self.assertTrue(ast.get_docstring(tree), path)

  def test_the_reader_of_imports_sees_them(self):
    known = modules()
    found = set(own_imports(known['training.assembly'], known))
    self.assertContainsSubset(
      {'training.train_step', 'methods', 'data.splits', 'types'}, found
    )
    self.assertIn(
      'data.datasets.usps', set(own_imports(known['data.prepare'], known))
    )


class ForbiddenTest(parameterized.TestCase):
  def test_configs_import_no_code(self):
    allowed = set(sys.stdlib_module_names) | {'configs', 'ml_collections'}
    for path in (ROOT / 'configs').glob('*.py'):
      for name, _ in imports(path):
        self.assertIn(name.partition('.')[0], allowed, path.name)

  def test_tensorflow_only_where_it_must_be(self):
    for name, path in modules().items():
      for imported, at_top in imports(path):
        if imported.partition('.')[0] == 'tensorflow':
          self.assertIn(name, WITH_TENSORFLOW)
          self.assertFalse(at_top, f'{name} imports tensorflow when loaded')

  def test_loading_brings_in_no_tensorflow(self):
    """Nor does any public name start a backend, or the package import jax."""
    code = (
      'import importlib, sys, nsl_jax\n'
      'heavy = {"jax", "numpy", "sklearn"} & sys.modules.keys()\n'
      'assert not heavy, heavy\n'
      'assert set(nsl_jax.__all__) <= set(dir(nsl_jax))\n'
      'from nsl_jax import *\n'
      'from jax._src import xla_bridge\n'
      'assert losses.entropy\n'
      'assert not xla_bridge.backends_are_initialized()\n'
      'print(SemiSupervisedClassifier.__name__, load.__module__)\n'
      'print(load_config.__module__, run.__module__)\n'
      'for name in ("data.sources", "training.experiment", "main"):\n'
      '  importlib.import_module(f"nsl_jax.{name}")\n'
      '  bad = {"tensorflow", "tensorflow_datasets", "torch"} '
      '& sys.modules.keys()\n'
      '  if bad: sys.exit(f"{name} loaded {bad}")'
    )
    done = fresh_process.run('-c', code)
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertEqual(
      done.stdout,
      'SemiSupervisedClassifier nsl_jax.inference.loading\n'
      'nsl_jax.training.config nsl_jax.training.experiment\n',
    )

  @parameterized.parameters(
    # Devices are a mesh: no device axis in any array.
    (r'\b(pmap|pmean|psum|axis_name)\b', ()),
    (r'\bPartitionSpec\b', ('training.sharding',)),
    (r'\bPRNGKey\b', ()),
    (
      r'\borbax\b',
      ('training.checkpoint', 'training.workdir', 'models.weights'),
    ),  # workdir: its version; weights: of a checkpoint
  )
  def test_words(self, pattern, allowed):
    known = modules()
    for name in allowed:
      self.assertRegex(known[name].read_text(encoding='utf-8'), pattern)
    for name in known.keys() - set(allowed):
      text = known[name].read_text(encoding='utf-8')
      self.assertNotRegex(text, pattern, name)


if __name__ == '__main__':
  absltest.main()
