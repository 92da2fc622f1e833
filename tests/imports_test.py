"""Data flows one way: a file imports only from files below it."""

import ast
import fnmatch
import os
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'nsl_jax'

# From the bottom: a module may import from earlier rows only. A new file
# belongs into the lowest row that lets it import what it needs.
ROWS = (
  (
    '',
    'data',
    'errors',
    'types',
    'memory',
    'figures.style',
    'data.pictures',
    'data.duplicates',
    'data.versions',
  ),
  ('files', 'data.cache'),
  ('kernels',),
  (
    'losses',
    'schedules',
    'mesh',
    'config_files',
    'rows',
    'startup',
    'summary',
    'step_times',
    'log',
    'workdir',
    'bilevel',
    'data.splits',
    'data.sampler',
    'data.augment',
    'data.digits',
    'data.download',
    'data.manual',
    'data.face_lists',
    'data.features',
    'data.normalise',
    'data.points',
    'models.layers',
  ),
  ('tasks',),
  (
    'negatives',
    'optimizers',
    'compose',
    'imputation',
    'perturb',
    'checkpoint',
    'lock',
    'data.aflw',
    'data.tiny_imagenet',
    'data.usps',
    'data.views',
    'models.*',
    'figures.toy',
  ),
  ('perception', 'pair', 'models', 'data.prepare'),
  ('terms',),
  ('term_configs',),
  ('methods.supervised', 'data.records'),
  ('methods.*', 'data.sources'),
  ('methods.soft_label',),
  ('methods.l2i',),
  ('methods', 'train'),
  ('evaluate', 'loop'),
  ('checks', 'feed', 'stopwatch', 'breakdown'),
  ('run_warnings',),
  ('experiment',),
  ('cli',),
  ('search', 'timing', 'figures.cells'),
  ('figures.*',),
  ('figures',),
  ('main', 'report', 'reproduce', 'bench', 'data.__main__'),
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


def row_of(name):
  """The row that names the module, else that whose pattern it matches."""
  for match in (str.__eq__, fnmatch.fnmatchcase):
    for number, row in enumerate(ROWS):
      if any(match(name, entry) for entry in row):
        return number
  return None


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


class RowTest(parameterized.TestCase):
  def test_every_file_has_a_row(self):
    for name in modules():
      self.assertIsNotNone(row_of(name), f'give {name} a row in {__file__}')

  def test_every_entry_has_a_file(self):
    for row in ROWS:
      for entry in row:
        self.assertNotEmpty(fnmatch.filter(modules(), entry), entry)

  def test_imports_come_from_rows_below(self):
    known = modules()
    for name, path in known.items():
      for other in own_imports(path, known):
        self.assertIn(other, known, f'{name} imports {other}')
        self.assertLess(
          row_of(other),
          row_of(name),
          f'{name} imports {other}, which is not below it',
        )

  def test_the_reader_of_imports_sees_them(self):
    known = modules()
    found = set(own_imports(known['experiment'], known))
    self.assertContainsSubset(
      {'train', 'methods', 'data.splits', 'types'}, found
    )
    self.assertIn('data.usps', set(own_imports(known['data.prepare'], known)))


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

  @parameterized.parameters('data.sources', 'experiment', 'main')
  def test_loading_brings_in_no_tensorflow(self, name):
    code = (
      f'import sys, nsl_jax.{name}\n'
      'bad = {"tensorflow", "tensorflow_datasets", "torch"} '
      '& sys.modules.keys()\n'
      'sys.exit(f"loaded {bad}" if bad else 0)'
    )
    done = subprocess.run(
      [sys.executable, '-c', code],
      cwd=ROOT,
      env=dict(os.environ),
      capture_output=True,
      text=True,
    )
    self.assertEqual(done.returncode, 0, done.stderr)

  @parameterized.parameters(
    # Devices are a mesh: no device axis in any array.
    (r'\b(pmap|pmean|psum|axis_name)\b', ()),
    (r'\bPartitionSpec\b', ('mesh',)),
    (r'\bPRNGKey\b', ()),
    (r'\borbax\b', ('checkpoint', 'workdir')),  # workdir: its version
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
