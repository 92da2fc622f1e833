"""The first lines of a config say what it costs and gives; they are true."""

import ast
import collections
import re

from absl.testing import absltest, parameterized
from repository import ROOT

from nsl_jax.papers import rows
from nsl_jax.reports import ledger
from nsl_jax.training import config as config_lib

NAMES = sorted(
  path.stem
  for path in (ROOT / 'configs').glob('*.py')
  if path.stem not in ('common', 'folder')  # the latter: a user's own images
)


def header(name):
  return ast.get_docstring(ast.parse(_text(name))) or ''


def numbers(text):
  """Every number in a text, those without a leading 0 too."""
  text = re.sub(r'(?<=\d),(?=\d{3})', '', text)
  return {float(word) for word in re.findall(r'(?<![\w.-])\d*\.?\d+', text)}


def arguments(name):
  """What follows the colon of --config: the keywords of `common.parse`."""
  for node in ast.walk(ast.parse(_text(name))):
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'common.parse':
      return [keyword.arg for keyword in node.keywords]
  return ['labels']  # digits_supervised, which calls digits_ns3l


def _text(name):
  return (ROOT / 'configs' / f'{name}.py').read_text(encoding='utf-8')


def rows_of(name):
  path = f'configs/{name}.py'
  return [
    row
    for row in rows.read().values()
    if row.config.partition(':')[0] == path and row.kind != 'cited'
  ]


def results_by_row():
  """Row id -> its results."""
  found = collections.defaultdict(list)
  for result in ledger.read(ROOT / 'results'):
    for row_id in result['row'].split():
      found[row_id].append(result)
  return found


class HeaderTest(parameterized.TestCase):
  @parameterized.parameters(*NAMES)
  def test_has_command_paper_ours_time_and_arguments(self, name):
    text = header(name)
    self.assertIn(f'--config=configs/{name}.py', text)
    for word in ('Paper', '(?:Ours|.*and ours)', 'Time:', 'Arguments:'):
      self.assertRegex(text, rf'(?m)^{word}', name)
    described = text.partition('\nArguments:')[2]
    for argument in arguments(name):
      self.assertIn(f'{argument}=', described)

  @parameterized.parameters(*NAMES)
  def test_numbers_of_the_paper(self, name):
    known = numbers(header(name))
    for row in rows_of(name):
      if row.reported is not None:
        self.assertIn(row.reported, known, row.id)

  @parameterized.parameters(*NAMES)
  def test_our_numbers_are_those_of_the_ledger(self, name):
    text, results = header(name), results_by_row()
    known = numbers(text)
    ours = [r for row in rows_of(name) for r in results[row.id]]
    valid = [r for r in ours if not r.get('outdated') and r['kind'] == 'run']
    for result in valid:
      score = result['score']
      self.assertIn(round(score['mean'], 2), known, result['row'])
      if score['std'] is not None:
        self.assertIn(round(score['std'], 2), known, result['row'])
      self.assertIn(f'{result["steps"]:,} steps', text, result['row'])
    outdated = [r for r in ours if r.get('outdated')]
    self.assertEqual(bool(outdated), 'outdated' in text)
    if not ours:
      self.assertIn('Ours: not run.', text)

  def test_the_reader_of_numbers(self):
    self.assertEqual(
      numbers('NS-T6-8: 17.25 +- .22 at 3,000 of 29,000 steps'),
      {17.25, 0.22, 3000.0, 29_000.0},
    )


class TwinTest(parameterized.TestCase):
  @parameterized.parameters('cifar10', 'stl10', 'svhn')
  def test_ns3l_on_mixmatch_adds_a_term_alone(self, data):
    """Two files, so that each shows all of its numbers."""
    plain, added = (
      config_lib.load(f'configs/{data}_mixmatch{name}.py').to_dict()
      for name in ('', '_ns3l')
    )
    self.assertEqual(plain['method'].pop('terms'), {})
    self.assertEqual(list(added['method'].pop('terms')), ['ns3l'])
    self.assertNotEqual(plain.pop('row'), added.pop('row'))
    self.assertEqual(plain, added)


if __name__ == '__main__':
  absltest.main()
