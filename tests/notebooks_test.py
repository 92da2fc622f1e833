"""The notebooks: as they are stored, and executed from scratch.

`python tests/notebooks_test.py --write` executes all, or those named behind it,
and stores their outputs without execution counts and names of folders.
"""

import ast
import importlib.util
import json
import os
import pathlib
import re
import sys
import tempfile
import time
import unittest

if __name__ == '__main__':
  import conftest  # noqa: F401 - the cache of the suite, before JAX starts

import pytest
from absl.testing import absltest, parameterized

import nsl_jax

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_FOLDER = _ROOT / 'notebooks'
# Name -> number of its figures.
_FIGURES = {
  '01_first_result': 4,
  '02_own_images': 3,
  '03_negative_labels_by_hand': 2,
  '04_learning_to_impute': 3,
  '05_paper_row': 1,
  '06_write_a_method': 3,
}
_BYTES = 400_000
_SECONDS = 600  # for a cell, on a busy machine
_COLAB = (
  'https://colab.research.google.com/github/nsl-jax/nsl_jax/blob/main/notebooks'
)
_INSTALL = """\
try:
  import nsl_jax
except ImportError:
  %pip install -q git+https://github.com/nsl-jax/nsl_jax
  import nsl_jax
"""
# Modules that are public beside `nsl_jax.__all__`.
_MODULES = {'compose', 'data', 'losses', 'methods', 'models', 'terms', 'types'}
_MACHINE = re.compile(r'/(home|Users|root|tmp|work|private|opt|usr|content)/')
_NEEDS = ('nbclient', 'nbformat', 'ipykernel')
_MISSING = [name for name in _NEEDS if not importlib.util.find_spec(name)]


def _path(name):
  return _FOLDER / f'{name}.ipynb'


def _read(name):
  return json.loads(_path(name).read_text(encoding='utf-8'))


def _code(notebook):
  """Sources of the cells of code."""
  cells = notebook['cells']
  return [''.join(c['source']) for c in cells if c['cell_type'] == 'code']


def _python(source):
  """A cell without its shell commands and magics."""
  source = re.sub(r'(?m)^( *)[!%](.*\\\n)*.*$', r'\1pass', source)
  return ast.parse(source)


def _outputs(notebook):
  return [out for c in notebook['cells'] for out in c.get('outputs', ())]


def _figures(notebook):
  """Number of figures, at most one a cell."""
  return sum('image/png' in out.get('data', ()) for out in _outputs(notebook))


def _errors(notebook):
  return [o for o in _outputs(notebook) if o['output_type'] == 'error']


def _environment():
  """That of a user: one device, optimized programs, the kernel's Python first,
  and the figures in the notebook."""
  path = os.pathsep.join([str(_ROOT), os.environ.get('PYTHONPATH', '')])
  programs = os.path.dirname(sys.executable)
  remove = ('MPLBACKEND', 'JAX_DISABLE_MOST_OPTIMIZATIONS')
  return {
    **{k: v for k, v in os.environ.items() if k not in remove},
    'XLA_FLAGS': '',
    'JAX_COMPILATION_CACHE_DIR': os.environ['NSL_JAX_TEST_PROGRAMS'],
    'PATH': os.pathsep.join([programs, os.environ.get('PATH', '')]),
    'PYTHONPATH': path.rstrip(os.pathsep),
  }


def _execute(name):
  """The executed notebook, as the JSON of a file.

  Raises:
    nbclient.exceptions.CellExecutionError: if a cell does.
  """
  import nbclient
  import nbformat

  notebook = nbformat.read(_path(name), as_version=4)
  with tempfile.TemporaryDirectory() as folder:
    client = nbclient.NotebookClient(
      notebook,
      timeout=_SECONDS,
      kernel_name='python3',
      resources={'metadata': {'path': folder}},
    )
    client.execute(env=_environment())
  return json.loads(nbformat.writes(notebook))


def _clean_text(text):
  """A stream as a terminal shows it in the end, without names of folders of
  this machine."""
  text = text.replace('\r\n', '\n')
  text = re.sub(r'[^\n]*\r(?=[^\n])', '', text).replace('\r', '')
  return re.sub(r'(?<![\w.])/\S*/(?=\S)', '', text)


def _clean(notebook):
  """Removes what differs between two executions or two machines."""
  for cell in notebook['cells']:
    cell['metadata'] = {}
    if cell['cell_type'] != 'code':
      continue
    cell['execution_count'] = None
    outputs = []
    for out in cell['outputs']:
      if 'execution_count' in out:
        out['execution_count'] = None
      same = outputs and out['output_type'] == 'stream'
      if same and outputs[-1].get('name') == out['name']:
        outputs[-1]['text'] += out['text']
      else:
        outputs.append(out)
    for out in outputs:
      if 'text' in out:
        out['text'] = _clean_text(''.join(out['text'])).splitlines(True)
    cell['outputs'] = outputs
  notebook['metadata'] = {
    'kernelspec': {
      'display_name': 'Python 3',
      'language': 'python',
      'name': 'python3',
    },
    'language_info': {'name': 'python'},
  }
  return notebook


class StoredTest(parameterized.TestCase):
  def test_all_are_here(self):
    found = {path.stem for path in _FOLDER.iterdir()}
    self.assertEqual(found - {'.ipynb_checkpoints'}, set(_FIGURES))

  @parameterized.parameters(*_FIGURES)
  def test_format(self, name):
    if 'nbformat' in _MISSING:
      self.skipTest('nbformat is not installed: pip install -e ".[test]"')
    import nbformat

    nbformat.validate(_read(name))
    self.assertLess(_path(name).stat().st_size, _BYTES)

  @parameterized.parameters(*_FIGURES)
  def test_begins_with_badge_and_installation(self, name):
    first, second = _read(name)['cells'][:2]
    badge = ''.join(first['source']).splitlines()[0]
    self.assertStartsWith(badge, '[![Open in Colab](https://colab.research')
    self.assertEndsWith(badge, f']({_COLAB}/{name}.ipynb)')
    self.assertStartsWith(''.join(second['source']), _INSTALL)

  @parameterized.parameters(*_FIGURES)
  def test_is_clean(self, name):
    notebook = _read(name)
    self.assertEqual(notebook, _clean(_read(name)))
    for cell in notebook['cells']:
      self.assertTrue(''.join(cell['source']).strip(), cell['id'])
    for out in _outputs(notebook):
      text = [out.get('text', ''), out.get('data', {}).get('text/plain', '')]
      text = ''.join(line for part in text for line in part)
      self.assertNotRegex(text, _MACHINE)

  @parameterized.parameters(*_FIGURES)
  def test_has_its_outputs(self, name):
    notebook = _read(name)
    self.assertEqual(_figures(notebook), _FIGURES[name])
    self.assertEmpty(_errors(notebook))

  @parameterized.parameters(*_FIGURES)
  def test_uses_public_names_alone(self, name):
    public = {*nsl_jax.__all__, *_MODULES}
    trees = [_python(source) for source in _code(_read(name))]
    for node in (node for tree in trees for node in ast.walk(tree)):
      if isinstance(node, ast.Import):
        for alias in node.names:
          if alias.name.partition('.')[0] == 'nsl_jax':
            self.assertEqual(alias.name, 'nsl_jax')
      elif isinstance(node, ast.ImportFrom):
        if node.module.partition('.')[0] == 'nsl_jax':
          self.assertEqual(node.module, 'nsl_jax')
          self.assertContainsSubset([a.name for a in node.names], public)
      elif isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == 'nsl_jax':
          self.assertIn(node.attr, public)

  @parameterized.parameters(*_FIGURES)
  def test_asserts_its_numbers(self, name):
    trees = [_python(source) for source in _code(_read(name))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    self.assertTrue(any(isinstance(node, ast.Assert) for node in nodes))


@pytest.mark.slow
@unittest.skipIf(
  _MISSING, f'{", ".join(_MISSING)} not installed: pip install -e ".[test]"'
)
class ExecutedTest(parameterized.TestCase):
  @parameterized.parameters(*_FIGURES)
  def test_runs_from_scratch(self, name):
    """An assertion or error in a cell is raised here."""
    notebook = _execute(name)
    self.assertEqual(_figures(notebook), _FIGURES[name])


def main(names):
  """Executes and stores these."""
  for name in names:
    start = time.monotonic()
    notebook = _clean(_execute(name))
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + '\n'
    _path(name).write_text(text, encoding='utf-8')
    seconds = time.monotonic() - start
    print(f'{name}: {seconds:.0f} s, {len(text):,} bytes', flush=True)
  return 0


if __name__ == '__main__':
  if sys.argv[1:2] == ['--write']:
    sys.exit(main(sys.argv[2:] or _FIGURES))
  absltest.main()
