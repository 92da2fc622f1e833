"""The examples in docstrings give what they say."""

import doctest
import importlib
import inspect

import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax.data import augment
from nsl_jax.terms import negative_samplers

_MODULES = (
  'losses',
  'options',
  'schedules',
  'compose.mixing',
  'data.augment',
  'reports.evaluation.examples',
  'reports.evaluation.scores',
  'terms.negative_samplers',
)


class ExamplesTest(parameterized.TestCase):
  @parameterized.parameters(*_MODULES)
  def test_examples_of(self, name):
    module = importlib.import_module(f'nsl_jax.{name}')
    with np.printoptions(precision=3, suppress=True):
      done = doctest.testmod(module, verbose=False)
    self.assertGreater(done.attempted, 0)
    self.assertEqual(done.failed, 0)

  def test_every_loss_and_sampler_has_one(self):
    losses = importlib.import_module('nsl_jax.losses')
    public = [
      function
      for name, function in inspect.getmembers(losses, inspect.isfunction)
      if function.__module__ == losses.__name__ and name[0] != '_'
    ]
    samplers = [negative_samplers.find(n) for n in negative_samplers.NAMES]
    views = [augment.flip, augment.translate, augment.noise]
    for function in (*public, *samplers, *views):
      self.assertIn('>>> ', function.__doc__, function)


if __name__ == '__main__':
  absltest.main()
