"""`:terms=NAME` adds a term that acts within the run it is added to."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from configs import common
from nsl_jax import terms as terms_lib
from nsl_jax.training import config as config_lib, experiment, metrics_log

CONFIGS = (
  'configs/digits_supervised.py',
  'configs/fashion_mnist_ssl.py:method=supervised',
  'configs/ns3l_table1.py:data=cifar10,method=supervised',
  'configs/ns3l_table1.py:data=cifar10,method=supervised,labels=250',
)


def with_term(argument, name, **more):
  joint = ',' if ':' in argument else ':'
  return config_lib.load(f'{argument}{joint}terms={name}', **more)


class WeightTest(parameterized.TestCase):
  @parameterized.product(
    argument=CONFIGS, name=tuple(common.TERMS), reduced=(0, 100)
  )
  def test_full_weight_from_a_quarter_of_the_run_on(
    self, argument, name, reduced
  ):
    config = with_term(argument, name, reduced=reduced)
    fields = config.method.terms[name].to_dict()
    weight, _ = terms_lib.from_config({name: fields})[name]
    np.testing.assert_allclose(
      float(weight(round(config.steps * 0.26))), fields['weight'], rtol=1e-6
    )
    self.assertEqual(fields['weight'], common.TERMS[name]['weight'])
    if fields['ramp'] == 'sigmoid':  # exp(-5 / 4) half-way up the ramp
      np.testing.assert_allclose(
        float(weight(round(config.steps / 8))),
        fields['weight'] * 0.286505,
        rtol=0.15,
      )

  def test_values_follow_the_method_and_the_data(self):
    ns3l = lambda argument: with_term(argument, 'ns3l').method.terms.ns3l
    vat = lambda argument: with_term(argument, 'vat').method.terms.vat
    for data, weight in (('cifar10', 5.0), ('svhn', 2.0), ('stl10', 2.0)):
      fields = ns3l(f'configs/{data}_mixmatch.py')
      self.assertEqual(
        (fields.weight, fields.threshold, fields.passes, fields.ramp),
        (weight, 0.05, 1, 'none'),
      )
    fields = ns3l('configs/ns3l_table1.py:data=cifar100,method=vat')
    self.assertEqual((fields.weight, fields.threshold), (1.0, None))
    table = 'configs/ns3l_table1.py:method=supervised,data='
    self.assertEqual(vat(f'{table}svhn').eps, 1.0)
    self.assertIsNone(vat(f'{table}cifar10').eps)

  def test_two_terms_on_a_method(self):
    config = config_lib.load('configs/digits_ns3l.py:terms=pi+vat')
    for name in 'pi', 'vat':
      self.assertEqual(config.method.terms[name].ramp_steps, 500)


class RunTest(parameterized.TestCase):
  # Fairness needs a method with confidences, see inference/classifier_test.
  @parameterized.parameters(*(sorted(common.TERMS.keys() - {'fairness'})))
  def test_acts_on_digits(self, name):
    """Weight and value are logged; the last weight is that of the config."""
    config = with_term('configs/digits_supervised.py', name, smoke='true')
    with config.unlocked():
      config.devices = 1
      config.model = {'name': 'mlp', 'hidden': 16, 'layers': 1}
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    experiment.run(config, folder)
    lines = [
      line
      for line in metrics_log.read(folder / 'seed_0' / 'metrics.jsonl')
      if line['kind'] == 'train'
    ]
    last = lines[-1]
    np.testing.assert_allclose(
      last[f'{name}_weight'], common.TERMS[name]['weight'], rtol=1e-6
    )
    np.testing.assert_allclose(last['learning_rate'], 1e-3, rtol=1e-6)
    self.assertGreaterEqual(last[name], 0.0)
    # Supervised rows weigh 1 / (B_l + B_u), as do a term's (family O).
    share = 16 / 32
    self.assertAlmostEqual(
      last['loss'],
      last['cross_entropy'] + share * last[f'{name}_weight'] * last[name],
      delta=1e-4 * last['loss'] + 1e-6,
    )


if __name__ == '__main__':
  absltest.main()
