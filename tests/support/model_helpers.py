"""Small networks, and their parts written out, for the tests of networks."""

import functools
import math

import jax
import numpy as np

# Compiling takes most of the time of these tests.
quick_jit = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)

TINY = {
  'small_cnn': {'name': 'small_cnn', 'batch_norm': True},
  'oliver': {'name': 'wide_resnet', 'width': 1, 'depth': 10},
  'vat': {'name': 'cnn13', 'width': 1 / 32},
  'l2i': {'name': 'cnn13', 'variant': 'l2i', 'width': 1 / 32},
  'dual_student': {'name': 'cnn13', 'variant': 'dual_student', 'width': 1 / 32},
}
MOMENTUM = {
  'small_cnn': 0.999,
  'oliver': 0.999,
  'vat': 0.99,
  'l2i': 0.9,
  'dual_student': 0.9,
}


def shapes(model, image_shape):
  """Shapes of the variables, without computing them."""
  return jax.eval_shape(
    lambda key: model.init(key, image_shape), jax.random.key(0)
  )


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def noisy(tree, seed, low=-0.3, high=0.3):
  """A tree with uniform noise added to every leaf."""
  leaves, treedef = jax.tree.flatten(tree)
  rng = np.random.default_rng(seed)
  return treedef.unflatten(
    [
      leaf + rng.uniform(low, high, leaf.shape).astype(np.float32)
      for leaf in leaves
    ]
  )


def values(model, image_shape):
  """Plausible variables from NumPy, which is faster than the initializers."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name in ('kernel', 'v'):
      scale = (2 / math.prod(leaf.shape[:-1])) ** 0.5
      return rng.normal(scale=scale, size=leaf.shape).astype(np.float32)
    start = 1 if name in ('scale', 'var', 'g') else 0
    return np.full(leaf.shape, start, np.float32)

  params, stats = shapes(model, image_shape)
  return tuple(
    jax.tree_util.tree_map_with_path(draw, tree) for tree in (params, stats)
  )


def initial(model, image_shape, *names):
  """Initial parameters of some layers; only theirs are compiled."""

  def init(key):
    params, _ = model.init(key, image_shape)
    return {name: params[name] for name in names}

  return jax.tree.map(np.asarray, quick_jit(init)(jax.random.key(0)))


def evaluate(model, params, stats, x):
  """Outputs in evaluation mode, compiled as one."""
  return quick_jit(
    lambda params, stats: model.apply(params, stats, x, train=False)[0]
  )(params, stats)


def images(batch, side, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(batch, side, side, channels)).astype(np.float32)


def plain_conv(x, layer, *, stride=1, padding='SAME'):
  """Convolution written out from its parameters."""
  kernel = layer.get('kernel')
  if kernel is None:
    norm = np.sqrt(np.square(layer['v']).sum((0, 1, 2), keepdims=True))
    kernel = np.asarray(layer['v']) / norm
    kernel = kernel * np.asarray(layer['g'])[None, None, None]
  y = jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  if 'bias' in layer:
    y = y + np.asarray(layer['bias'])[None, None, None]
  return np.asarray(y)


def plain_norm(x, layer, epsilon, stats=None):
  """Batch normalization, with the batch where no statistics are given."""
  mean = x.mean((0, 1, 2)) if stats is None else np.asarray(stats['mean'])
  var = x.var((0, 1, 2)) if stats is None else np.asarray(stats['var'])
  scale = np.asarray(layer['scale']) / np.sqrt(var + epsilon)
  return (x - mean[None]) * scale[None] + np.asarray(layer['bias'])[None]


def check_first_norm(stats, x):
  """The first batch has replaced statistics that started at 0 and 1."""
  found = stats['BatchNorm_0']
  np.testing.assert_allclose(
    found['mean'], x.mean((0, 1, 2)), rtol=1e-4, atol=1e-6
  )
  np.testing.assert_allclose(found['var'], x.var((0, 1, 2)), rtol=1e-4)


def plain_act(x):
  return np.where(x > 0, x, 0.1 * x)


def plain_wrn_features(params, x, *, units, epsilon, activate_all=False):
  """Pooled features of a three-stage network."""
  conv_names = iter(f'Conv_{i}' for i in range(100))
  norm_names = iter(f'BatchNorm_{i}' for i in range(100))

  def conv(x, stride=1):
    return plain_conv(x, params[next(conv_names)], stride=stride)

  def norm(x):
    return plain_act(plain_norm(x, params[next(norm_names)], epsilon))

  x = conv(x)
  for stage in range(3):
    for unit in range(units):
      stride = 2 if stage and not unit else 1
      h = norm(x)
      source = h if activate_all or (stage, unit) == (0, 0) else x
      h = conv(norm(conv(h, stride)))
      # Every stage of these networks changes the number of channels once.
      x = h + (conv(source, stride) if unit == 0 else source)
  return norm(x).mean((1, 2))
