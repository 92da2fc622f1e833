"""Networks by name, each a pair of pure functions."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nsl_jax import errors, options, references
from nsl_jax.models import weights
from nsl_jax.models.choice import Choice, choose
from nsl_jax.models.cnn3 import CNN3
from nsl_jax.models.cnn13 import CNN13
from nsl_jax.models.mlp import MLP
from nsl_jax.models.resnet18 import ResNet18
from nsl_jax.models.resnet26 import ResNet26
from nsl_jax.models.small_cnn import SmallCNN
from nsl_jax.models.tcdcn import TCDCN
from nsl_jax.models.wide_resnet import WideResNet
from nsl_jax.options import Option
from nsl_jax.types import Array, Key, Model, Outputs, Params, Stats

__all__ = ['Choice', 'NETWORKS', 'build', 'choose', 'find', 'options_of']

#: Name -> Linen class of each network in the package.
NETWORKS: Mapping[str, type[nn.Module]] = {
  'cnn13': CNN13,
  'cnn3': CNN3,
  'mlp': MLP,
  'resnet18': ResNet18,
  'resnet26': ResNet26,
  'small_cnn': SmallCNN,
  'tcdcn': TCDCN,
  'wide_resnet': WideResNet,
}
_PRECISIONS = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
_NOT_CONFIGURED = ('num_classes', 'dtype', 'parent', 'name')
_INIT_FROM = Option(
  'init_from',
  '',
  str,
  '',
  'weights to start from: a .safetensors file, or the folder of a checkpoint '
  'of a run such as seed_0/best/1200; a run that is resumed '
  'reads them, too.',
)


def _lookup(kind: str, word: Any, table: Mapping[str, Any]) -> Any:
  """The entry of a table; UserError with a suggestion if there is none."""
  if word not in table:
    hint = errors.did_you_mean(str(word), table)
    raise errors.UserError(f'unknown {kind} {word!r}; {hint}')
  return table[word]


def find(name: str) -> Callable[..., nn.Module]:
  """What makes the Linen module of a network.

  A network from elsewhere is a Linen class with the field `num_classes`, whose
  other fields with a default are its options, or a function
  `make_network(*, num_classes, option=default, ...)` that returns a Linen
  module; its keyword-only arguments with a default are its options.
  `options.declare` says which values they may have. Either is given `dtype` if
  it has such a field or argument. The module:

  - is called as `(images, train=...)`, images f32[B, H, W, C], and returns
    f32[B, num_classes] logits, or `Outputs`;
  - has its variables in `params`, and in `batch_stats` if it has statistics,
    which it changes only where `train` is true;
  - draws at random by the stream `dropout` alone, and only where `train` is
    true: a pass without a key has none. One with a field `dropout` is then
    run with that field at 0;
  - has parameters of the same names for every number of classes.

  Args:
    name: a key of `NETWORKS`, or `package.module:make_network`.

  Returns:
    The class, or the function.

  Raises:
    UserError: no network has this name, or what has it is neither.
  """
  network: Callable[..., nn.Module]
  if ':' in name:
    network = references.find(name, 'network')
  else:
    network = _lookup('network', name, NETWORKS)
  if inspect.isclass(network) and not issubclass(network, nn.Module):
    raise errors.UserError(
      f'{name} is neither a Linen module nor a function that makes one'
    )
  if 'num_classes' not in inspect.signature(network).parameters:
    raise errors.UserError(f'{name} does not take num_classes')
  return network


def options_of(name: str) -> dict[str, Option]:
  """The options of a network: its own, and `init_from`.

  Raises:
    UserError: no network has this name.
  """
  declared = options.of(find(name))
  own_options = {k: v for k, v in declared.items() if k not in _NOT_CONFIGURED}
  return {**own_options, _INIT_FROM.name: _INIT_FROM}


def build(
  config: Mapping[str, Any],
  num_classes: int,
  *,
  precision: str = 'float32',
  new_head: bool = False,
) -> Model:
  """Builds a network.

  Args:
    config: `name`, see `find`, and options of that network. With `init_from`
      it starts from those weights, see `weights.start_from`.
    num_classes: K, the number of outputs.
    precision: 'float32', or 'bfloat16' to compute in bfloat16; parameters,
      batch-norm statistics and outputs are always float32.
    new_head: see `weights.start_from`.

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
  init_from = config.pop(_INIT_FROM.name, '')
  network = find(name)
  if 'dtype' in inspect.signature(network).parameters:
    config['dtype'] = dtype

  def make(num_classes: int) -> Model:
    module = network(num_classes=num_classes, **config)
    if not isinstance(module, nn.Module):
      raise errors.UserError(
        f'{name} returns {type(module).__name__} and not a Linen module'
      )
    return _as_functions(module, name, num_classes)

  model = make(num_classes)
  if not init_from:
    return model
  return weights.start_from(
    model, init_from, other_classes=make(num_classes + 1), new_head=new_head
  )


def _outputs(result: Any, name: str, wanted: tuple[int, int]) -> Outputs:
  """`Outputs` of a network, also of one that returns logits only.

  Raises:
    errors.UserError: if the logits are not floating-point numbers of the shape
      `wanted`.
  """
  if not isinstance(result, Outputs):
    result = Outputs(result, features=result, consistency=result)
  outputs: Outputs = result
  logits = outputs.logits
  if (
    not isinstance(logits, jax.Array)
    or logits.shape != wanted
    or not jnp.issubdtype(logits.dtype, jnp.floating)
  ):
    raise errors.UserError(
      f'the network {name} returns {errors.described(logits)} for {wanted[0]} '
      f'images and num_classes={wanted[1]}: return logits '
      f'float32{list(wanted)}, or Outputs'
    )
  return outputs


def _as_functions(module: nn.Module, name: str, num_classes: int) -> Model:
  """Splits the variables of a Linen module into parameters and statistics."""
  call = inspect.signature(type(module).__call__).parameters
  if 'train' not in call and not any(
    one.kind is inspect.Parameter.VAR_KEYWORD for one in call.values()
  ):
    raise errors.UserError(
      f'the network {name} is called as (images, train=...): its __call__ has '
      'no argument train'
    )

  @functools.partial(jax.jit, static_argnums=1)  # traced once for all callers
  def variables_of(key: Key, image_shape: tuple[int, int, int]) -> Any:
    return module.init(key, jnp.zeros((1, *image_shape)), train=False)

  def init(key: Key, image_shape: tuple[int, int, int]) -> tuple[Params, Stats]:
    variables = variables_of(key, image_shape)
    if 'params' not in variables:
      raise errors.UserError(f'the network {name} has no parameters')
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
    wanted = images.shape[0], num_classes
    if not train:
      result: Any = module.apply(variables, images, train=False)
      return _outputs(result, name, wanted), stats
    result, updated = (still if key is None else module).apply(
      variables,
      images,
      train=True,
      mutable=['batch_stats'],
      rngs=None if key is None else {'dropout': key},
    )
    return _outputs(result, name, wanted), updated.get('batch_stats', {})

  return Model(init, apply)
