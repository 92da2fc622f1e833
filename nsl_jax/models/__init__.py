"""Networks by name, each a pair of pure functions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import errors, options
from nsl_jax.models.cnn3 import CNN3
from nsl_jax.models.cnn13 import CNN13
from nsl_jax.models.resnet26 import ResNet26
from nsl_jax.models.small_cnn import SmallCNN
from nsl_jax.models.tcdcn import TCDCN
from nsl_jax.models.wide_resnet import WideResNet
from nsl_jax.options import Option
from nsl_jax.types import Array, Key, Model, Outputs, Params, Stats

NETWORKS: Mapping[str, type[nn.Module]] = {
  'cnn13': CNN13,
  'cnn3': CNN3,
  'resnet26': ResNet26,
  'small_cnn': SmallCNN,
  'tcdcn': TCDCN,
  'wide_resnet': WideResNet,
}
_PRECISIONS = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
_NOT_CONFIGURED = ('num_classes', 'dtype', 'parent', 'name')


def _lookup(kind: str, word: Any, table: Mapping[str, Any]) -> Any:
  """The entry of a table; UserError with a suggestion if there is none."""
  if word not in table:
    hint = errors.did_you_mean(str(word), table)
    raise errors.UserError(f'unknown {kind} {word!r}; {hint}')
  return table[word]


def find(name: str) -> type[nn.Module]:
  """The Linen module of a network.

  Args:
    name: a key of `NETWORKS`, or `package.module:Class` of another network. It
      is built with `num_classes`, called as `(images, train=...)`, and returns
      f32[B, num_classes] logits, or `Outputs`.

  Raises:
    UserError: no network has this name.
  """
  module, _, attribute = name.partition(':')
  network: type[nn.Module] | None
  if not attribute:
    network = _lookup('network', name, NETWORKS)
  else:
    network = getattr(errors.import_module(module, 'network'), attribute, None)
  if network is None:
    raise errors.UserError(f'module {module} has no network {attribute!r}')
  return network


def options_of(name: str) -> dict[str, Option]:
  """The options of a network.

  Raises:
    UserError: no network has this name.
  """
  known = options.of(find(name))
  return {k: v for k, v in known.items() if k not in _NOT_CONFIGURED}


def build(
  config: Mapping[str, Any], num_classes: int, *, precision: str = 'float32'
) -> Model:
  """Builds a network.

  Args:
    config: `name`, a key of `NETWORKS`, and fields of that network.
    num_classes: K, the number of outputs.
    precision: 'float32', or 'bfloat16' to compute in bfloat16; parameters,
      batch-norm statistics and outputs are always float32.

  Returns:
    The network; its running statistics are {} without batch normalization.

  Raises:
    UserError: the name, a field or the precision is unknown, or a value has
      the wrong type. A value out of range raises at the first use.
  """
  config = dict(config)
  name = config.pop('name', '')
  options.check_values(options_of(name), config, f'{name}: ')
  dtype = _lookup('precision', precision, _PRECISIONS)
  network = find(name)
  if 'dtype' in {field.name for field in dataclasses.fields(network)}:
    config['dtype'] = dtype
  return _as_functions(network(num_classes=num_classes, **config))


def _outputs(result: Any) -> Outputs:
  """`Outputs` of a network, also of one that returns logits only."""
  if isinstance(result, Outputs):
    return result
  return Outputs(result, features=result, consistency=result)


def _as_functions(module: nn.Module) -> Model:
  """Splits the variables of a Linen module into parameters and statistics."""

  def init(key: Key, image_shape: tuple[int, int, int]) -> tuple[Params, Stats]:
    images = jnp.zeros((1, *image_shape))
    variables = jax.jit(lambda key: module.init(key, images, train=False))(key)
    return variables['params'], variables.get('batch_stats', {})

  still = module
  if hasattr(module, 'dropout'):
    still = module.clone(dropout=0.0)

  def apply(
    params: Params,
    stats: Stats,
    images: Array,
    *,
    train: bool,
    key: Key | None = None,
  ) -> tuple[Outputs, Stats]:
    variables = {'params': params, 'batch_stats': stats}
    if not train:
      result: Any = module.apply(variables, images, train=False)
      return _outputs(result), stats
    result, moved = (still if key is None else module).apply(
      variables,
      images,
      train=True,
      mutable=['batch_stats'],
      rngs=None if key is None else {'dropout': key},
    )
    return _outputs(result), moved.get('batch_stats', {})

  return Model(init, apply)
