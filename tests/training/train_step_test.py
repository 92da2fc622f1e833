"""The compiled step: the same however it is cut up or spread out."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from nsl_jax import methods, models
from nsl_jax.data import augment, normalize
from nsl_jax.training import sharding as mesh_lib, train_step
from nsl_jax.types import Components, Data, Method, State

SHAPE, CLASSES, COUNT = (8, 8, 1), 4, 64
UNIT = functools.partial(normalize.apply, 'unit')
READ = functools.partial(train_step.make_batch, UNIT)
NS3L = dict(
  name='ns3l',
  weight=1.0,
  ramp='sigmoid',
  ramp_steps=8,
  sampler='threshold',
  threshold=0.2,
  passes=2,
  terms={},
)


def arrays(seed=0):
  """Images of which each class has its own bright corner, and labels."""
  rng = np.random.default_rng(seed)
  labels = (np.arange(COUNT) % CLASSES).astype(np.int32)
  images = rng.integers(0, 160, (COUNT, *SHAPE))
  for image, label in zip(images, labels):
    row, column = divmod(int(label), 2)
    image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 90
  return images.astype(np.uint8), labels


def data_on(mesh, labels=None, per_image_tables=None):
  images, known = arrays()
  return mesh_lib.put(
    Data(
      images=images,
      labels=known if labels is None else labels,
      normalization={},
      per_image_tables=per_image_tables or {},
    ),
    mesh_lib.replicated_sharding(mesh),
  )


def rows_of(steps, seed=0, unlabeled=8):
  """Rows of the first half as labeled, of the second as unlabeled."""
  rng = np.random.default_rng(seed)
  draw = lambda low, size: rng.integers(
    low, low + COUNT // 2, (40, size)
  ).astype(np.int32)[:steps]
  return {'labeled': draw(0, 8), 'unlabeled': draw(COUNT // 2, unlabeled)}


def to_method(config, tx, views='', batch_norm=False):
  components = Components(
    model=models.build(
      {'name': 'small_cnn', 'batch_norm': batch_norm}, CLASSES
    ),
    tx=tx,
    augment=augment.build(views),
    image_shape=SHAPE,
    ema_decay=0.5,
  )
  return methods.build(config, components)


@functools.cache
def chunk_of(method, devices):
  return train_step.make_train_steps(
    train_step.one_step(method, READ), mesh=mesh_lib.make(devices)
  )


@contextlib.contextmanager
def compilations():
  """A list that grows by one for each program compiled inside."""
  found = []

  def listen(event, seconds, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      found.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield found
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def run(method, counts, *, devices=1, seed=0):
  """The last state and the metrics f64[steps] of calls of so many steps; only
  another number of steps may compile.
  """
  mesh = mesh_lib.make(devices)
  chunk = chunk_of(method, devices)
  state, data = train_step.initial_state(method, seed, mesh), data_on(mesh)
  rows, at, history, seen = rows_of(40), 0, [], set()
  for count in counts:
    here = {k: v[at : at + count] for k, v in rows.items()}
    here = mesh_lib.put(here, mesh_lib.batch_sharding(mesh, axis=1))
    with compilations() as found:
      state, metrics = chunk(state, data, here)
      mesh_lib.block_until_ready(metrics)
    assert not (count in seen and found), 'compiled more than once'
    seen.add(count)
    history.append(jax.device_get(metrics))
    at += count
  state = state.replace(key=jax.random.key_data(state.key))
  joined = jax.tree.map(lambda *m: np.concatenate(m), *history)
  return jax.device_get(state), joined


@functools.cache
def ns3l_with_batch_norm():
  """By plain descent: a bias before batch normalization has no gradient but
  rounding, which Adam would blow up to the size of its rate.
  """
  tx = optax.sgd(0.1, momentum=0.9)
  return to_method(NS3L, tx, 'translate:1', batch_norm=True)


@functools.cache
def one_by_one_of_ns3l():
  return run(ns3l_with_batch_norm(), (1,) * 6)


def assert_close(one, other, atol):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=atol, atol=atol),
    one,
    other,
  )


def counting():
  """A method whose state is arithmetic: no network, nothing to round."""

  def init(key):
    return State(
      step=jnp.zeros((), jnp.int32),
      key=key,
      params=jnp.zeros((3,), jnp.int32),
      stats={},
      opt=(),
      slots={},
    )

  def update(state, batch, key):
    seen = jnp.stack([batch.y.sum(), batch.u_index.sum(), state.step])
    noise = jax.random.uniform(key)
    return state.replace(params=state.params + seen), {
      'noise': noise,
      'step': state.step.astype(jnp.float32),
    }

  return Method(init, update, predict=None)


class ChunkTest(parameterized.TestCase):
  def test_compilations_are_noticed(self):
    # `run` relies on it.
    double = jax.jit(lambda x: 2 * x)
    x, longer = jnp.ones(3), jnp.ones(4)
    for argument, expected in ((x, 1), (x, 0), (longer, 1)):
      with compilations() as found:
        double(argument)
      self.assertLen(found, expected)

  @parameterized.parameters(((1,) * 7,), ((5, 2),), ((3, 3, 1),), ((7,),))
  def test_steps_rows_and_keys(self, counts):
    state, history = run(counting(), counts, seed=3)
    labels, rows = arrays()[1], rows_of(7)
    expected = [
      labels[rows['labeled'][:7]].sum(),
      rows['unlabeled'][:7].sum(),
      sum(range(7)),
    ]
    np.testing.assert_array_equal(state.params, expected)
    self.assertEqual(state.step, 7)
    np.testing.assert_array_equal(history['step'], np.arange(7))
    key = jax.random.key(3)
    np.testing.assert_array_equal(
      history['noise'],
      [jax.random.uniform(jax.random.fold_in(key, step)) for step in range(7)],
    )
    np.testing.assert_array_equal(state.key, jax.random.key_data(key))

  @parameterized.parameters(2, 5)
  def test_the_compiler_knows_the_number_of_steps(self, count):
    """Else an accelerator asks the host after every step."""
    mesh, method = mesh_lib.make(1), counting()
    state = train_step.initial_state(method, 0, mesh)
    rows = mesh_lib.put(rows_of(count), mesh_lib.batch_sharding(mesh, axis=1))
    program = chunk_of(method, 1).lower(state, data_on(mesh), rows).compile()
    self.assertIn(f'"known_trip_count":{{"n":"{count}"', program.as_text())

  def test_training_does_not_depend_on_steps_per_call(self):
    one, one_by_one = one_by_one_of_ns3l()
    state, history = run(ns3l_with_batch_norm(), (1, 5))
    assert_close(one_by_one, history, 1e-5)
    assert_close(one, state, 1e-5)
    self.assertGreater(one_by_one['ns3l'].min(), 0)
    self.assertEqual(
      set(one_by_one),
      {'loss', 'cross_entropy', 'ns3l', 'ns3l_weight', 'params_norm'},
    )

  def test_loss_falls(self):
    method = to_method(dict(name='supervised', terms={}), optax.adam(3e-3))
    _, history = run(method, (1,) * 30)
    self.assertLess(history['loss'][-3:].mean(), history['loss'][0] / 2)

  @parameterized.parameters(1, 3)
  def test_state_is_donated_and_data_are_not(self, count):
    mesh, method = mesh_lib.make(4), counting()
    chunk = chunk_of(method, 4)
    state, data = train_step.initial_state(method, 0, mesh), data_on(mesh)
    rows = mesh_lib.put(rows_of(count), mesh_lib.batch_sharding(mesh, axis=1))
    new, _ = chunk(state, data, rows)
    self.assertTrue(state.params.is_deleted())
    self.assertFalse(any(a.is_deleted() for a in jax.tree.leaves((data, rows))))
    self.assertTrue(new.params.sharding.is_fully_replicated)


class DevicesTest(parameterized.TestCase):
  """Batch statistics are those of the whole batch, wherever its rows lie."""

  def test_1_and_4_agree(self):
    one, history = one_by_one_of_ns3l()
    four, spread = run(ns3l_with_batch_norm(), (1,) * 6, devices=4)
    assert_close(history, spread, 1e-5)
    assert_close(one, four, 1e-5)
    # Training changed something that could have differed.
    self.assertGreater(np.ptp(history['loss']), 1e-2)
    self.assertGreater(history['ns3l'].min(), 0)


class GatherTest(parameterized.TestCase):
  def make_batch(self, labels=None, per_image_tables=None, rows=None):
    data = data_on(mesh_lib.make(1), labels, per_image_tables)
    rows = rows or {k: v[0] for k, v in rows_of(1).items()}
    return READ(data, rows)

  def test_rows(self):
    images, labels = arrays()
    per_image_tables = {
      'table': np.arange(COUNT * 2, dtype=np.float32).reshape(COUNT, 2)
    }
    rows = {k: v[0] for k, v in rows_of(1).items()}
    batch = self.make_batch(per_image_tables=per_image_tables)
    known, unknown = rows['labeled'], rows['unlabeled']
    np.testing.assert_allclose(batch.x, images[known] / 255, atol=1e-6)
    np.testing.assert_allclose(batch.u, images[unknown] / 255, atol=1e-6)
    np.testing.assert_array_equal(batch.y, labels[known])
    np.testing.assert_array_equal(batch.u_index, unknown)
    np.testing.assert_array_equal(
      batch.per_image_tables['table'], per_image_tables['table'][unknown]
    )
    self.assertEqual(batch.x.dtype, jnp.float32)

  def test_hidden_labels_stay_behind(self):
    labels = arrays()[1]
    hidden = np.where(np.arange(COUNT) < COUNT // 2, labels, -1)
    jax.tree.map(
      np.testing.assert_array_equal, self.make_batch(), self.make_batch(hidden)
    )

  def test_no_unlabeled_rows(self):
    rows = {k: v[0] for k, v in rows_of(1, unlabeled=0).items()}
    batch = self.make_batch(rows=rows)
    self.assertEqual(batch.u.shape, (0, *SHAPE))
    self.assertEqual(batch.x.shape, (8, *SHAPE))


if __name__ == '__main__':
  absltest.main()
