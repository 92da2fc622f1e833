"""Options: which values a declaration allows, and how they are listed."""

import dataclasses
import inspect
import math
from collections.abc import Callable

from absl.testing import absltest, parameterized

from nsl_jax import errors, methods, options, terms
from nsl_jax.commands import options as command


@options.declare(eps='> 0', rate='[0, 1)', mode=('exact', 'approximate'))
def build(
  components,
  *,
  terms,
  eps: float = 1.0,
  rate: float = 0.5,
  mode: str = 'exact',
  count: int = 3,
  moves: bool = False,
  top: bool | None = None,
  steps: int | tuple[int, ...] = 0,
):
  """A part.

  Args:
    components: no option, since it is positional.
    terms: no option, since it has no default.
    eps: length of the change,
      in units of the image.
    rate: a share.
    mode: how.
    count: how many.
    top: of the top.

  Returns:
    eps: what it was given.
  """
  return components, terms, eps, rate, mode, count, moves, top, steps


@options.declare(width='>= 1', kind=('a', 'b'))
@dataclasses.dataclass
class Network:
  """A network.

  Attributes:
    num_classes: no option, since it has no default.
    width: factor on
      the filters.
    kind: which.
  """

  num_classes: int
  width: int = 2
  kind: str = 'a'


class IntervalTest(parameterized.TestCase):
  @parameterized.parameters(
    # Interval, what is in it, what is not.
    ('> 0', (1e-9, 1, math.inf), (0, 0.0, -1, math.nan)),
    ('>= 0', (0, 0.0, 3), (-1e-9, -1, math.nan)),
    ('>= 1', (1, 1.5), (0.999, 0)),
    ('> -1.5', (-1, 0), (-1.5, -2)),
    ('[0, 1]', (0, 0.5, 1), (-1e-9, 1.001, math.nan)),
    ('[0, 1)', (0, 0.999), (1, 1.0, -0.1, math.nan)),
    ('(0, 1]', (1e-9, 1), (0, 0.0, 1.1)),
    ('(0, 1)', (0.5,), (0, 1, 2, -1)),
    ('[-2.5, 1e3]', (-2.5, 1000), (-2.6, 1000.5)),
    ('(0, inf)', (1e30,), (0, math.inf)),
  )
  def test_ends(self, interval, inside, outside):
    for value in inside:
      self.assertTrue(options.allows(interval, value), value)
    for value in outside:
      self.assertFalse(options.allows(interval, value), value)

  @parameterized.parameters('0, 1', '[0 1]', '< 3', '>3', '')
  def test_what_is_no_interval(self, text):
    with self.assertRaises(AssertionError):
      options.allows(text, 0.5)

  def test_every_declared_interval_can_be_read(self):
    """And it has the default, as the choices do."""
    for kind, found in command.parts().items():
      for name, part in found.items():
        for option in options.of(part).values():
          with self.subTest(f'{kind} {name} {option.name}'):
            if isinstance(option.limit, tuple):
              self.assertIn(option.default, option.limit)
            elif isinstance(option.limit, str) and option.limit:
              if option.default is None:
                options.allows(option.limit, 0.5)
                continue
              self.assertTrue(options.allows(option.limit, option.default))


class NestedTest(absltest.TestCase):
  """An option that is a mapping has the options of another part."""

  def test_of_dual_student(self):
    part = methods.find('dual_student')
    good = dict(negatives=dict(count=2, weight=0.5))
    options.check(part, good, 'dual_student ')
    options.check(part, dict(negatives=None), 'dual_student ')
    for negatives, message in (
      (dict(count=0), 'dual_student negatives.count=0: must be >= 1'),
      (dict(cont=1), "dual_student negatives.cont .* did you mean 'count'"),
    ):
      with self.assertRaisesRegex(errors.UserError, message):
        options.check(part, dict(negatives=negatives), 'dual_student ')
    self.assertIn('with count, weight', options.table(options.of(part)))


class OfTest(parameterized.TestCase):
  def test_a_function(self):
    """Keyword-only arguments with a default, in order."""
    found = options.of(build)
    self.assertEqual(
      [(o.name, o.default, o.kind, o.limit) for o in found.values()],
      [
        ('eps', 1.0, float, '> 0'),
        ('rate', 0.5, float, '[0, 1)'),
        ('mode', 'exact', str, ('exact', 'approximate')),
        ('count', 3, int, ''),
        ('moves', False, bool, ''),
        ('top', None, bool, ''),
        ('steps', 0, None, ''),
      ],
    )
    self.assertEqual(list(found), [option.name for option in found.values()])

  def test_types_that_are_known(self):
    def part(
      *,
      whole: int | None = None,
      word: str | None = 'a',
      many: list[int] = (),
      call: Callable[[int], float] | None = None,
      either: int | float = 0,
      anything=1,
    ):
      pass

    self.assertEqual(
      {name: option.kind for name, option in options.of(part).items()},
      dict(
        whole=int, word=str, many=None, call=None, either=None, anything=None
      ),
    )

  def test_docs_are_those_of_the_docstring(self):
    """Of the section Args alone, lines joined; '' where there is none."""
    self.assertEqual(
      {name: option.doc for name, option in options.of(build).items()},
      {
        'eps': 'length of the change, in units of the image.',
        'rate': 'a share.',
        'mode': 'how.',
        'count': 'how many.',
        'moves': '',
        'top': 'of the top.',
        'steps': '',
      },
    )

  def test_a_dataclass(self):
    self.assertEqual(
      options.of(Network),
      {
        'width': options.Option(
          'width', 2, int, '>= 1', 'factor on the filters.'
        ),
        'kind': options.Option('kind', 'a', str, ('a', 'b'), 'which.'),
      },
    )

  def test_without_a_declaration(self):
    def part(rows, columns=2, *, size: int = 4, **others):
      return rows, columns, size, others

    self.assertEqual(
      options.of(part), {'size': options.Option('size', 4, int, '', '')}
    )
    self.assertEqual(options.of(lambda: None), {})


class CheckTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(eps=2),  # a whole number is a number
    dict(eps=1e-9, rate=0, mode='approximate', count=-7),
    dict(moves=True, top=None),
    dict(top=False),
    dict(steps=(1, 2)),
    dict(steps='anything'),  # a type of which nothing is known
    {},
  )
  def test_allowed(self, **values):
    options.check(build, values, 'vat ')
    options.check_values(options.of(build), values, 'vat ')

  @parameterized.parameters(
    (dict(eps=0), 'eps=0: must be > 0'),
    (dict(eps=math.nan), 'eps=nan: must be > 0'),
    (dict(eps='1'), "eps='1': must be a number"),
    (dict(eps=None), 'eps=None: must be a number'),
    (dict(eps=True), 'eps=True: must be a number'),
    (dict(rate=1.0), 'rate=1.0: must be in [0, 1)'),
    (dict(rate=-0.5), 'rate=-0.5: must be in [0, 1)'),
    (dict(mode='exakt'), "mode='exakt': did you mean 'exact'?"),
    (dict(mode='?'), "mode='?': known: approximate, exact"),
    (dict(mode=1), 'mode=1: known: approximate, exact'),
    (dict(count=1.0), 'count=1.0: must be a whole number'),
    (dict(count=True), 'count=True: must be a whole number'),
    (dict(count='3'), "count='3': must be a whole number"),
    (dict(moves=1), 'moves=1: must be true or false'),
    (dict(moves='true'), "moves='true': must be true or false"),
    (dict(moves=None), 'moves=None: must be true or false'),
    (dict(top=0), 'top=0: must be true or false, or null'),
    (dict(eps=1.0, rate=2.0), 'rate=2.0: must be in [0, 1)'),
  )
  def test_refused(self, values, message):
    for check in (
      lambda: options.check(build, values, 'config.method.'),
      lambda: options.check_values(options.of(build), values, 'config.method.'),
    ):
      with self.assertRaises(errors.UserError) as caught:
        check()
      self.assertEqual(str(caught.exception), f'config.method.{message}')

  @parameterized.parameters(
    ('epss', "epss is not an option: did you mean 'eps'?"),
    ('zzzz', 'zzzz is not an option: known: count, eps, mode, moves, '),
    ('terms', 'terms is not an option: '),
    ('tools', 'tools is not an option: '),
  )
  def test_unknown_names(self, name, message):
    with self.assertRaises(errors.UserError) as caught:
      options.check_values(options.of(build), {name: 1.0}, 'config.method.')
    self.assertStartsWith(str(caught.exception), f'config.method.{message}')
    # Of a call it is Python's to say which arguments there are.
    options.check(build, {name: 1.0}, 'build ')

  def test_a_dataclass(self):
    options.check(Network, dict(width=1, kind='b', num_classes='x'), '')
    for values, message in (
      (dict(width=0), 'net: width=0: must be >= 1'),
      (dict(width=1.5), 'net: width=1.5: must be a whole number'),
      (dict(kind='c'), "net: kind='c': known: a, b"),
    ):
      with self.assertRaises(errors.UserError) as caught:
        options.check(Network, values, 'net: ')
      self.assertEqual(str(caught.exception), message)


class DeclareTest(parameterized.TestCase):
  def test_a_call_gives_what_the_function_gives(self):
    self.assertEqual(
      build('tools', terms={}, rate=0, count=9, top=True),
      ('tools', {}, 1.0, 0, 'exact', 9, False, True, 0),
    )

  @parameterized.parameters(
    (dict(eps=-1), 'eps=-1: must be > 0'),
    (dict(rate=1), r'rate=1: must be in \[0, 1\)'),
    (dict(mode='exac'), "mode='exac': did you mean 'exact'"),
    (dict(count=False), 'count=False: must be a whole number'),
  )
  def test_a_call_is_checked(self, values, message):
    """Messages begin with the file of the function."""
    file = build.__module__.rpartition('.')[2]
    with self.assertRaisesRegex(errors.UserError, f'^{file} {message}'):
      build('tools', terms={}, **values)

  def test_unknown_arguments_are_python_errors(self):
    with self.assertRaisesRegex(TypeError, 'epss'):
      build('tools', terms={}, epss=1.0)

  def test_the_function_keeps_its_name_and_signature(self):
    self.assertEqual(build.__name__, 'build')
    self.assertStartsWith(build.__doc__, 'A part.')
    self.assertIn('eps', inspect.signature(build).parameters)

  def test_a_class_stays_the_class(self):
    self.assertIsInstance(Network(3, width=5), Network)
    self.assertEqual(Network(3), Network(num_classes=3, width=2, kind='a'))

  @parameterized.parameters(
    ('vat', dict(eps=0.0), 'vat eps=0.0: must be > 0'),
    ('vat', dict(mode='exat'), "vat mode='exat': did you mean 'exact'"),
    ('dnll', dict(count=0), 'dnll count=0: must be >= 1'),
    ('pseudo_label', dict(threshold=2), r'pseudo_label .* in \[0, 1\]'),
  )
  def test_terms_of_the_package(self, name, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      terms.find(name).build(**fields)


class TableTest(parameterized.TestCase):
  def test_by_hand(self):
    text = options.table(
      {
        'eps': options.Option('eps', 1.0, float, '> 0', 'word ' * 20 + 'end'),
        'mode': options.Option('mode', 'a', str, ('a', 'b'), ''),
        'moves': options.Option('moves', True, bool, '', 'whether.'),
      }
    )
    self.assertEqual(
      text.splitlines(),
      [
        '  eps=1.0  (> 0)',
        '      ' + ' '.join(['word'] * 14),
        '      ' + ' '.join(['word'] * 6 + ['end']),
        "  mode='a'  (a | b)",
        '  moves=True',
        '      whether.',
      ],
    )

  def test_nothing(self):
    self.assertEqual(options.table({}), '')


if __name__ == '__main__':
  absltest.main()
