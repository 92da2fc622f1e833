"""DN-T7: the passes that it counts, what it measures and prints."""

import contextlib
import io
import json
import pathlib
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.benchmarks import stopwatch, table7
from nsl_jax.commands import reproduce
from nsl_jax.papers import rows
from nsl_jax.reports import ledger
from nsl_jax.training import assembly, sharding as mesh_lib
from nsl_jax.types import Batch

real_configs = table7.configs
METHODS = ('mean_teacher', 'dual_student', 'dnll')


def small_configs():
  """The rows' methods on a network that compiles fast."""
  found = real_configs()
  for row_id, config in found.items():
    config = config.copy_and_resolve_references().unlock()
    config.model = dict(name='small_cnn')
    config.data.update(augment='', strong='')
    config.batch = dict(labeled=2, unlabeled=2)
    found[row_id] = config.lock()
  return found


def flops(config, labeled, unlabeled):
  """Of an update and of a prediction of as many images, before compiling."""
  shape = (32, 32, 3)
  method = assembly.build_method(config, 10, shape, dict)
  abstract = lambda *size: jax.ShapeDtypeStruct(size, jnp.float32)
  index = lambda size: jax.ShapeDtypeStruct((size,), jnp.int32)
  batch = Batch(
    x=abstract(labeled, *shape),
    y=index(labeled),
    u=abstract(unlabeled, *shape),
    u_index=index(unlabeled),
    per_image_tables={},
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(method.init, key)
  count = lambda f, *inputs: jax.jit(f).lower(*inputs).cost_analysis()['flops']
  images = abstract(labeled + unlabeled, *shape)
  return {
    table7.TRAINING: count(method.update, state, batch, key),
    table7.EVALUATION: count(method.predict, state, images),
  }


class PassesTest(parameterized.TestCase):
  def test_by_hand(self):
    units = {
      method: {
        kind: cost.units()
        for kind, cost in table7.passes(method, 50, 50).items()
      }
      for method in METHODS
    }
    self.assertEqual(
      units,
      {
        'mean_teacher': {'training': 350, 'inference': 100, 'evaluation': 100},
        'dual_student': {'training': 800, 'inference': 100, 'evaluation': 200},
        'dnll': {'training': 700, 'inference': 100, 'evaluation': 200},
      },
    )

  def test_floors_are_ratios_of_the_arithmetic_of_the_real_steps(self):
    """A further pass in a method would show; uneven sizes tell them apart."""
    labeled, unlabeled = 4, 8
    found = {}
    for config in table7.configs().values():
      config = config.copy_and_resolve_references().unlock()
      config.model.width = 0.25
      found[config.method.name] = flops(config, labeled, unlabeled)
    first = found['mean_teacher']
    cost = lambda method: table7.passes(method, labeled, unlabeled)
    for method in METHODS:
      for kind, count in found[method].items():
        floor = cost(method)[kind].units() / cost('mean_teacher')[kind].units()
        self.assertAlmostEqual(
          count / first[kind], floor, delta=0.01, msg=f'{method} {kind}'
        )


class ConfigTest(absltest.TestCase):
  def test_the_three_rows(self):
    found = table7.configs()
    self.assertEqual([c.method.name for c in found.values()], list(METHODS))
    for config in found.values():
      self.assertEqual(config.model.name, 'cnn13')
      self.assertEqual(config.data.labeled, 4000)
      self.assertEqual(config.batch.to_dict(), {'labeled': 50, 'unlabeled': 50})
      self.assertEqual(config.precision, 'float32')
    dnll = found['DN-T7-3'].method
    self.assertEqual(
      (dnll.selection, dnll.count, dnll.unsupervised), ('epm', 3, 'both')
    )
    self.assertEqual({rows.find(i).kind for i in table7.ROWS}, {'timing'})
    self.assertIn(' 0.145 s ', reproduce.list_rows(rows.match('DN-T7')))


class MeasureTest(absltest.TestCase):
  def test_any_row_measures_all_three_into_one_file(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    printed = io.StringIO()
    with (
      mock.patch.object(table7, 'configs', small_configs),
      mock.patch.object(table7, 'LABELED', 2),
      mock.patch.object(table7, 'UNLABELED', 2),
      mock.patch.object(table7, '_SHAPE', (8, 8, 3)),
      mock.patch.object(stopwatch, '_WARM_UP', (1, 1)),
      contextlib.redirect_stdout(printed),
    ):
      reproduce.main(
        [
          '--row=DN-T7-2',
          '--reduced=2',
          f'--ledger={folder}',
          f'--workdir={folder}/runs',
        ]
      )
    path = folder / 'DN-T7-cpu-reduced2-seeds1.json'
    content = json.loads(path.read_text())
    self.assertEqual(ledger.read(folder), [content])
    self.assertEqual(
      (content['row'], content['kind']), ('DN-T7-1 DN-T7-2 DN-T7-3', 'timing')
    )
    self.assertEqual((content['steps'], content['full_steps']), (2, 20))
    for row_id, one in content['methods'].items():
      self.assertEqual(one['config']['data']['labeled'], 4000)
      for kind in ('training', 'inference', 'evaluation'):
        step = one[kind]
        self.assertLen(step['ms'], 2)
        self.assertGreater(min(step['ms']), 0.0)
        self.assertIn(kind, content['definitions'])
      self.assertIn(f'| {row_id} | {one["method"]} |', printed.getvalue())
    first = content['methods']['DN-T7-1']
    self.assertEqual(first['training']['ratio'], 1.0)
    self.assertEqual(first['training']['passes'], {'backward': 4, 'forward': 2})
    self.assertIn(str(path), printed.getvalue())

  def test_table_of_ratios(self):
    step = lambda ms, ratio, **more: {'median_ms': ms, 'ratio': ratio, **more}
    one = {'inference': step(0.8125, 1.0), 'evaluation': step(506.25, 2.0)}
    text = table7.table(
      {
        'methods': {
          'DN-T7-3': {
            'method': 'dnll',
            **one,
            'training': step(2812.5, 1.867, floor=1.75, expected=1.8333),
          }
        }
      }
    )
    cells = [c.strip() for c in text.splitlines()[-1].strip('|').split('|')]
    self.assertEqual(
      cells,
      [
        'DN-T7-3',
        'dnll',
        '2812',
        '1.87',
        '1.99',
        '1.75',
        '1.83',
        '0.8125',
        '1.00',
        '1.01',
        '506.2',
        '2.00',
      ],
    )

  def test_expected_ratio(self):
    """Inference takes 0.25 ms an image, a pass with gradient 5.5 of these:
    60 units less the teacher's 5, of 10 images."""
    setting = stopwatch.Setting(
      5, 5, (8, 8, 3), 10, 1, 'float32', mesh_lib.make(1)
    )
    times = {
      'training': [15.0, 15.0],
      'inference': [2.5, 2.5],
      'evaluation': [2.5, 2.5],
    }
    found = small_configs()
    taken = {
      (row_id, kind): ms for row_id in found for kind, ms in times.items()
    }
    with (
      mock.patch.object(table7, '_subjects', return_value=times),
      mock.patch.object(stopwatch, 'in_turn', return_value=taken),
    ):
      measured = table7.measure(found, setting, steps=2)
    expected = [one['training']['expected'] for one in measured.values()]
    np.testing.assert_allclose(expected, [1.0, 130 / 60, 120 / 60])
    floors = [one['training']['floor'] for one in measured.values()]
    np.testing.assert_allclose(floors, [1.0, 80 / 35, 70 / 35])

  def test_wrong_numbers(self):
    with self.assertRaisesRegex(errors.UserError, 'has no seeds'):
      table7.run(seeds=2)
    for steps in (-1, table7.whole_steps() + 1):
      with self.assertRaisesRegex(errors.UserError, 'timing has 20 steps'):
        table7.run(reduced=steps)


if __name__ == '__main__':
  absltest.main()
