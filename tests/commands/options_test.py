"""The options command lists what each part takes."""

import contextlib
import io
import re

from absl.testing import absltest, parameterized

from nsl_jax import errors, methods, models, optimizers, options, terms
from nsl_jax.commands import options as command
from nsl_jax.data import sources
from nsl_jax.terms import negative_samplers


def printed(*names):
  """What `python -m nsl_jax options NAMES` prints."""
  with contextlib.redirect_stdout(io.StringIO()) as out:
    command.main(names)
  return out.getvalue()


PARTS = command.parts()


class CommandTest(parameterized.TestCase):
  def test_without_names_it_lists_the_parts(self):
    listed = {
      line.split()[0]: line.split()[1:] for line in printed().splitlines()
    }
    self.assertEqual(
      listed,
      {
        'method': methods.names(),
        'term': terms.names(),
        'sampler': list(negative_samplers.NAMES),
        'network': list(models.NETWORKS),
        'optimizer': list(optimizers.MAKERS),
        'data': list(sources.OWN),
      },
    )

  @parameterized.parameters(
    ('nsl_jax.models.mlp:MLP', 'network', 'hidden=256'),
    ('nsl_jax.terms.vat', 'term', 'xi='),
    ('nsl_jax.methods.mixmatch', 'method', 'alpha='),
  )
  def test_parts_by_their_module(self, name, kind, option):
    text = printed(name)
    self.assertRegex(text, rf'^{kind} {re.escape(name)}: \S')
    self.assertRegex(text, rf'(?m)^  {option}')
    with self.assertRaisesRegex(errors.UserError, "unknown part 'nowhere.at'"):
      printed('nowhere.at')

  @parameterized.parameters(
    *((kind, name) for kind, found in PARTS.items() for name in found)
  )
  def test_every_part(self, kind, name):
    """Its title, and each of its options with its default."""
    text = printed(name)
    self.assertRegex(text, rf'(?m)^{kind} {name}: \S')
    section = text[text.index(f'{kind} {name}: ') :]
    own = options.of(PARTS[kind][name])
    if kind == 'network':
      own = models.options_of(name)
    for option in own.values():
      self.assertRegex(section, rf'(?m)^  {option.name}=')
      if not isinstance(option.limit, tuple):
        self.assertIn(f'  {option.name}={option.default!r}', section)
    for line in text.splitlines():
      if not line.startswith(
        ('method', 'term', 'sampler', 'network', 'opt', 'data')
      ):
        self.assertStartsWith(line, '  ')

  @parameterized.parameters(
    # What comes from another file than that of the part.
    ('vat', 'method', ('weight=0.3  (>= 0)', 'ramp_steps=50000  (>= 0)')),
    (
      'vat',
      'method',
      ('shared_batch_norm=True', 'eps=None  (> 0)', 'hold_steps=0'),
    ),
    ('entropy', 'term', ('weight=0.06  (>= 0)', "ramp='none'  (none | ")),
    ('ns3l', 'term', ('threshold=None  ((0, 1])', 'passes=2  ([1, 2])')),
    ('sgd', 'optimizer', ('lr=0.001  (>= 0)', 'momentum=0.9  ([0, 1))')),
    ('adam', 'optimizer', ('lr=0.001  (>= 0)', 'cosine_steps=0')),
    ('uniform', 'sampler', ('count=1  (>= 1)',)),
    ('cnn13', 'network', ('top_bn=None', "variant='vat'")),
    ('furthest', 'sampler', ('no options',)),
  )
  def test_lines(self, name, kind, lines):
    text = printed(name)
    section = text[text.index(f'{kind} {name}: ') :]
    for line in lines:
      self.assertRegex(section, r'(?m)^  ' + re.escape(line))

  def test_a_name_of_two_parts_shows_both(self):
    text = printed('dnll')
    self.assertRegex(text, r'(?ms)^method dnll: .*^  selection=.*^term dnll: ')
    self.assertRegex(text, r"(?ms)^term dnll: .*^  source='student'")
    self.assertEqual(printed('dnll', 'adam'), text + printed('adam'))

  def test_networks_hide_what_no_config_sets(self):
    for name in models.NETWORKS:
      self.assertNotRegex(printed(name), r'(?m)^  (num_classes|dtype|name)=')

  @parameterized.parameters(
    ('vta', "no part 'vta': did you mean 'vat'?"),
    ('negative_samplers', "no part 'negative_samplers': "),
  )
  def test_unknown_part(self, name, message):
    with self.assertRaises(errors.UserError) as caught:
      printed(name)
    self.assertStartsWith(str(caught.exception), message)


if __name__ == '__main__':
  absltest.main()
