"""Networks: what a config may say, sizes and shapes."""

import jax
import jax.numpy as jnp
import ml_collections
from absl.testing import absltest, parameterized
from model_helpers import TINY, count, images, shapes, values

from nsl_jax import errors, models


class BuildTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'name': 'smal_cnn'}, "unknown network 'smal_cnn'.*'small_cnn'"),
    ({}, "unknown network ''"),
    ({'name': 'cnn13', 'widht': 1.0}, "cnn13: widht is not an .*'width'"),
    ({'name': 'cnn13', 'num_classes': 3}, 'cnn13: num_classes is not an'),
    ({'name': 'cnn13', 'width': 'wide'}, "width='wide': must be a number"),
    ({'name': 'cnn13', 'width': True}, 'cnn13: width=True: must be a number'),
    (
      {'name': 'cnn13', 'top_bn': 1},
      'cnn13: top_bn=1: must be true or false, or null',
    ),
    ({'name': 'cnn13', 'width': None}, 'width=None: must be a number$'),
    ({'name': 'small_cnn', 'batch_norm': 1}, 'batch_norm=1: must be true or'),
    ({'name': 'wide_resnet', 'width': 2.0}, 'width=2.0: must be a whole'),
  )
  def test_rejects_config(self, config, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      models.build(config, 10)
    self.assertNotIn('\n', str(caught.exception))

  def test_rejects_precision(self):
    with self.assertRaisesRegex(errors.UserError, "mean 'bfloat16'"):
      models.build({'name': 'small_cnn'}, 10, precision='bfloat')

  @parameterized.parameters(
    ({'name': 'wide_resnet', 'variant': 'olivier'}, 32, "mean 'oliver'"),
    ({'name': 'wide_resnet', 'stages': 5}, 32, 'stages must be 3 or 4'),
    ({'name': 'wide_resnet', 'width': 0}, 32, 'width must be at least 1'),
    ({'name': 'wide_resnet', 'depth': 27}, 32, 'depth must be 10, 16'),
    ({'name': 'cnn13', 'variant': 'dual'}, 32, 'no variant'),
    ({'name': 'cnn13', 'width': 0.0}, 32, 'width must be positive'),
    ({'name': 'cnn13', 'dropout': 1.0}, 32, r'dropout must be in \[0, 1\)'),
    ({'name': 'cnn13'}, 8, 'at least 12x12 pixels, not 8x8'),
    ({'name': 'small_cnn'}, 3, 'at least 4x4 pixels, not 3x3'),
  )
  def test_rejects_values_at_first_use(self, config, side, message):
    with self.assertRaisesRegex(errors.UserError, message):
      shapes(models.build(config, 10), (side, side, 3))

  def test_reads_config_dict_and_leaves_it(self):
    config = ml_collections.ConfigDict(TINY['vat'])
    params, _ = shapes(models.build(config, 7), (32, 32, 3))
    self.assertEqual(params['Dense_0']['kernel'].shape, (4, 7))
    self.assertEqual(config.to_dict(), TINY['vat'])

  @parameterized.parameters(
    ('small_cnn', {'batch_norm': False}),
    ('mlp', {'hidden': 256, 'layers': 2, 'dropout': 0.0}),
    (
      'wide_resnet',
      {'variant': 'oliver', 'stages': 3, 'width': 2, 'depth': 28},
    ),
    ('cnn13', {'variant': 'vat', 'width': 1.0, 'dropout': 0.5, 'top_bn': None}),
  )
  def test_options(self, name, expected):
    found = models.options_of(name)
    defaults = {k: o.default for k, o in found.items()}
    self.assertEqual(defaults, {**expected, 'init_from': ''})

  def test_every_network_has_a_line_for_each_option(self):
    for name in models.NETWORKS:
      for option in models.options_of(name).values():
        self.assertNotEmpty(option.doc, f'{name} {option.name}')

  def test_options_of_an_unknown_network(self):
    with self.assertRaisesRegex(errors.UserError, "mean 'small_cnn'"):
      models.options_of('smal_cnn')


class ShapeTest(parameterized.TestCase):
  @parameterized.parameters(
    ('oliver', 10, 1_467_610),
    ('oliver', 100, 1_479_220),
    ('mixmatch', 10, 1_469_642),
    ('mixmatch', 100, 1_481_252),
    ('l2i', 10, 1_469_626),
    ('l2i', 100, 1_481_236),
  )
  def test_wide_resnet_parameters(self, variant, classes, expected):
    model = models.build({'name': 'wide_resnet', 'variant': variant}, classes)
    params, stats = shapes(model, (32, 32, 3))
    self.assertEqual(count(params), expected)
    self.assertEqual(count(stats), 3616 + 25)  # and a counter a norm

  @parameterized.parameters(('mixmatch', 5_933_770), ('oliver', 5_929_434))
  def test_four_stage_parameters(self, variant, expected):
    config = {'name': 'wide_resnet', 'variant': variant, 'stages': 4}
    params, _ = shapes(models.build(config, 10), (96, 96, 3))
    self.assertEqual(count(params), expected)

  @parameterized.parameters(
    ('vat', None, 10, (32, 32, 3), 3_121_802),
    ('vat', True, 10, (32, 32, 3), 3_121_822),
    ('l2i', False, 10, (32, 32, 3), 3_123_850),
    ('l2i', False, 100, (32, 32, 3), 3_135_460),
    ('l2i', None, 10, (32, 32, 3), 3_123_870),
    ('l2i', None, 100, (32, 32, 3), 3_135_660),
    ('dual_student', None, 10, (32, 32, 3), 3_127_208),
    ('dual_student', None, 100, (32, 32, 3), 3_150_608),
    ('dual_student', None, 10, (28, 28, 1), 3_124_904),
  )
  def test_cnn13_parameters(self, variant, top_bn, classes, shape, expected):
    config = {'name': 'cnn13', 'variant': variant, 'top_bn': top_bn}
    params, _ = shapes(models.build(config, classes), shape)
    self.assertEqual(count(params), expected)

  @parameterized.parameters((3, 15_256), (1, 14_968))
  def test_cnn3_parameters(self, channels, expected):
    model = models.build({'name': 'cnn3', 'channels': channels}, 10)
    params, _ = shapes(model, (28, 28, 1))
    self.assertEqual(count(params), expected)

  def test_small_cnn_parameters(self):
    params, stats = shapes(models.build({'name': 'small_cnn'}, 10), (28, 28, 1))
    self.assertEqual(count(params), 421_642)
    self.assertEqual(stats, {})
    params, stats = shapes(models.build(TINY['small_cnn'], 10), (28, 28, 1))
    self.assertEqual(count(params), 421_642 + 192)
    self.assertEqual(count(stats), 192 + 2)

  @parameterized.product(
    config=(
      ({'name': 'small_cnn'}, 128),
      ({'name': 'wide_resnet'}, 128),
      ({'name': 'wide_resnet', 'stages': 4}, 256),
      ({'name': 'cnn13'}, 128),
      ({'name': 'cnn13', 'variant': 'dual_student'}, 128),
      ({'name': 'cnn3'}, 32),
    ),
    shape=((28, 28, 1), (32, 32, 3), (64, 64, 3), (96, 96, 3)),
  )
  def test_outputs(self, config, shape):
    config, width = config
    if config['name'] == 'wide_resnet' and shape != (32, 32, 3):
      config = {**config, 'depth': 10}  # the width is that of any depth
    model = models.build(config, 7)
    params, stats = shapes(model, shape)
    outputs, _ = jax.eval_shape(
      lambda params, stats, x: model.apply(params, stats, x, train=False),
      params,
      stats,
      jax.ShapeDtypeStruct((5, *shape), jnp.float32),
    )
    self.assertEqual(outputs.logits.shape, (5, 7))
    self.assertEqual(outputs.consistency.shape, (5, 7))
    self.assertEqual(outputs.features.shape, (5, width))

  @parameterized.parameters(
    ('wide_resnet', 'BatchNorm_24', 32, (1, 8, 8, 128)),
    ('cnn13', 'BatchNorm_8', 32, (1, 6, 6, 128)),
    ('cnn13', 'BatchNorm_8', 28, (1, 5, 5, 128)),
  )
  def test_map_before_pooling(self, name, last, side, expected):
    module = models.NETWORKS[name](num_classes=10)
    _, variables = jax.eval_shape(
      lambda key: module.init_with_output(
        key,
        jnp.zeros((1, side, side, 3)),
        train=False,
        capture_intermediates=True,
        mutable=True,
      ),
      jax.random.key(0),
    )
    found = variables['intermediates'][last]['__call__'][-1]
    self.assertEqual(found.shape, expected)

  def test_small_cnn_follows_image_size(self):
    model = models.build({'name': 'small_cnn'}, 10)
    params, stats = values(model, (8, 8, 1))
    self.assertEqual(params['Dense_0']['kernel'].shape, (2 * 2 * 64, 128))
    outputs, moved = model.apply(params, stats, images(3, 8, 1), train=True)
    self.assertEqual(outputs.logits.shape, (3, 10))
    self.assertEqual(moved, {})


if __name__ == '__main__':
  absltest.main()
