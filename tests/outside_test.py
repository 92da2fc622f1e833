"""A method, term, network, augmentation and data set from outside."""

import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import errors, methods, models, terms
from nsl_jax.data import augment, sources
from nsl_jax.training import config as config_lib, config_checks, metrics_log

FILES = {
  'twice': '''
    """The supervised loss, several times."""
    from nsl_jax import options, terms as terms_lib
    from nsl_jax.compose import combinators
    from nsl_jax.methods import supervised

    @options.declare(factor='> 0')
    def build(components, *, terms, factor: float = 2.0):
      base = supervised.supervised_loss(components)

      def loss(params, state, batch, key):
        value, aux = base(params, state, batch, key)
        return factor * value, aux

      loss = combinators.add_terms(loss, terms_lib.from_config(terms))
      return combinators.to_method(
        combinators.SingleNetworkMethod(loss), components)
    ''',
  'confidence': '''
    """The most likely class becomes more likely."""
    import jax
    from nsl_jax import options

    DEFAULTS = {'weight': 0.5, 'ramp': 'none', 'ramp_steps': 0}

    @options.declare(power='> 0')
    def build(*, power: float = 1.0):
      return lambda inputs, batch, key: (
        1.0 - jax.nn.softmax(inputs.logits_u).max(-1) ** power)
    ''',
  'parts': '''
    from flax import linen as nn

    class Linear(nn.Module):
      """One dense layer, which returns logits alone."""
      num_classes: int
      scale: float = 1.0

      @nn.compact
      def __call__(self, images, *, train):
        flat = images.reshape(images.shape[0], -1)
        return nn.Dense(self.num_classes)(self.scale * flat)

    def make_scaled(*, num_classes, scale: float = 1.0):
      """One dense layer again.

      Args:
        num_classes: K.
        scale: of the images.
      """
      return Linear(num_classes=num_classes, scale=scale)

    def make_nothing(*, num_classes):
      return num_classes

    def make_for_ten():
      return Linear(num_classes=10)

    class NoModule:
      pass

    def darker(images, key):
      return 0.5 * images
    ''',
}
OVERRIDES = (
  'method.name=outside_parts.twice',
  'method.factor=3',
  'method.terms.sure.power=2',
  'method.terms.sure.module=outside_parts.confidence',
  'model.name=outside_parts.parts:Linear',
  'model.scale=0.5',
  'data.augment=outside_parts.parts:darker',
)


class OutsideTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    package = cls.folder / 'outside_parts'
    package.mkdir()
    (package / '__init__.py').touch()
    for name, text in FILES.items():
      (package / f'{name}.py').write_text(textwrap.dedent(text).lstrip())
    sys.path.insert(0, str(cls.folder))
    cls.addClassCleanup(sys.path.remove, str(cls.folder))
    cls.addClassCleanup(cls._forget_package)

  @staticmethod
  def _forget_package():
    """Another worker of the class imports it from another folder."""
    for name in [n for n in sys.modules if n.startswith('outside_parts')]:
      del sys.modules[name]

  def test_options_are_those_of_the_signatures(self):
    config = config_lib.load(
      'configs/digits_ns3l.py', [pair.split('=') for pair in OVERRIDES]
    )
    self.assertEqual(config.method.factor, 3.0)
    self.assertEqual(config.model.scale, 0.5)
    term = config.method.terms.sure
    self.assertEqual((term.weight, term.ramp, term.power), (0.5, 'none', 2.0))
    config_checks.check(config)
    for pair, message in (
      ('method.factor=0', 'config.method.factor=0.0: must be > 0'),
      ('method.terms.sure.power=0', 'terms.sure.power=0.0: must be > 0'),
      ('model.scale=true', 'scale=true: must be float'),
    ):
      with self.assertRaisesRegex(errors.UserError, message):
        config_checks.check(
          config_lib.load(
            'configs/digits_ns3l.py',
            [one.split('=') for one in (*OVERRIDES, pair)],
          )
        )

  def test_a_run_by_the_command(self):
    words = [f'--config.{pair}' for pair in OVERRIDES]
    done = subprocess.run(
      [
        sys.executable,
        '-m',
        'nsl_jax',
        'train',
        '--config=configs/digits_ns3l.py:smoke=true',
        '--workdir=run',
        *words,
      ],
      cwd=self.folder,
      env={
        **os.environ,
        'PYTHONPATH': os.pathsep.join(
          [str(self.folder), str(pathlib.Path(methods.__file__).parents[2])]
        ),
      },
      capture_output=True,
      text=True,
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    lines = metrics_log.read(self.folder / 'run/seed_0/metrics.jsonl')
    last = [line for line in lines if line['kind'] == 'train'][-1]
    self.assertEqual(last['sure_weight'], 0.5)
    # A term is divided by all 16 + 16 images of the batch (F-N3).
    expected = 3.0 * last['cross_entropy'] + 0.5 * last['sure'] / 2
    self.assertAlmostEqual(last['loss'], expected, places=4)

  def test_a_network_by_a_function(self):
    name = 'outside_parts.parts:make_scaled'
    overrides = [('model.name', name), ('model.scale', '2')]
    config = config_lib.load('configs/digits_ns3l.py', overrides)
    self.assertEqual(
      config.model.to_dict(), {'name': name, 'scale': 2.0, 'init_from': ''}
    )
    options = models.options_of(name)
    self.assertEqual(list(options), ['scale', 'init_from'])
    self.assertEqual(options['scale'].doc, 'of the images.')
    model = models.build(config.model, 3)
    params, stats = model.init(jax.random.key(0), (2, 2, 1))
    images = jnp.ones((5, 2, 2, 1))
    outputs, _ = model.apply(params, stats, images, train=True)
    kernel = params['Dense_0']['kernel']
    np.testing.assert_allclose(
      outputs.logits[0], 2 * kernel.sum(0), rtol=1e-5, atol=1e-6
    )
    with self.assertRaisesRegex(errors.UserError, 'scl is not an option'):
      models.build({'name': name, 'scl': 1.0}, 3)

  @parameterized.parameters(
    ('make_nothing', 'make_nothing returns int and not a Linen module'),
    ('make_for_ten', 'make_for_ten does not take num_classes'),
    ('NoModule', 'NoModule is neither a Linen module nor a function'),
    ('nn', 'parts:nn is neither a function nor a class'),
  )
  def test_what_is_no_network(self, attribute, message):
    with self.assertRaisesRegex(errors.UserError, message):
      models.build({'name': f'outside_parts.parts:{attribute}'}, 3)

  @parameterized.parameters(
    (lambda: methods.find('nothing_here.at_all'), "unknown method 'nothing_"),
    (lambda: terms.find('nothing_here.at_all'), "unknown term 'nothing_here"),
    (lambda: models.find('nothing_here:At'), "unknown network 'nothing_here'"),
    (lambda: models.find('outside_parts.parts:Line'), 'no network .Line.'),
    (
      lambda: augment.build('outside_parts.parts:darkr'),
      "outside_parts.parts has no augmentation 'darkr'",
    ),
    (
      lambda: sources.load('my_data'),
      "unknown data set 'my_data'.*nor is there",
    ),
  )
  def test_what_is_not_there(self, find, message):
    with self.assertRaisesRegex(errors.UserError, message) as e:
      find()
    self.assertNotIn('\n', str(e.exception))


if __name__ == '__main__':
  absltest.main()
