"""Inputs that users of such libraries report trouble with.

A case is a line: a data set, what is changed in the config, and what must come
out: a result, perhaps with a warning, or one line that names the field.
Faults of a run (files, signals, two processes) are in field_run_test.py, those
of reading images in data/records_test.py and data/pictures_test.py.
"""

from typing import Any, NamedTuple

import numpy as np
import temporary
import tfds_fixtures
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.training import config as config_lib, experiment, kernels


class Case(NamedTuple):
  """Images of each class, changes of the config, and what must come out.

  Attributes:
    counts: training images by class; as many classes as there are numbers.
    changed: fields of the config.
    says: of the error, or of a warning where `labeled` is given.
    labeled: labeled images by class, sorted; () where an error must come.
    unknown: training images without a label.
    file: config file.
  """

  counts: tuple[int, ...]
  changed: dict[str, Any] = {}
  says: str = ''
  labeled: tuple[int, ...] = ()
  unknown: int = 0
  file: str = 'digits_ns3l'


_PROPORTIONAL = {'data.rule': 'proportional'}
_SUPERVISED = {'batch.unlabeled': 0}
CASES = {
  # Classes with hardly an image, by rule.
  'balanced, a class of one': Case(
    (9, 9, 1), {'data.labeled': 3}, labeled=(1, 1, 1)
  ),
  'balanced, a class of one, two of each requested': Case(
    (9, 9, 1),
    {'data.labeled': 6},
    says=r'labeled=6: .* 2 images of class 2, of which 1 .*lower',
  ),
  'balanced, a class of none': Case(
    (9, 9, 0), {'data.labeled': 3}, says=r'of class 2, of which 0'
  ),
  'balanced, the extra one goes to a class that has it': Case(
    (9, 1, 9),
    {'data.labeled': 5},
    labeled=(1, 2, 2),
    says='not the same number of each of 3 classes: 2 1 2',
  ),
  'proportional, a class without a label': Case(
    (60, 30, 6),
    {'data.labeled': 3, **_PROPORTIONAL},
    labeled=(0, 1, 2),
    says='no labeled image of class 2 .*: 2 1 0',
  ),
  'uniform, a class of one': Case(
    (20, 20, 1),
    {'data.labeled': 3, 'data.rule': 'uniform'},
    labeled=(0, 1, 2),
    says='no labeled image of class',
  ),
  'validation would take the only image of a class': Case(
    (9, 9, 1),
    {'data.labeled': 3, 'data.validation': 3, 'protocol': 'best_validation'},
    says=r'validation=3: .* of class 2, of which 0 .*lower '
    r'config\.data\.validation',
  ),
  'uniform validation leaves it': Case(
    (9, 9, 1),
    {
      'data.labeled': 3,
      'data.validation': 15,
      'data.validation_rule': 'uniform',
    },
    labeled=(1, 1, 1),
  ),
  # Few and many classes.
  'two classes': Case((9, 9), {'data.labeled': 4}, labeled=(2, 2)),
  'one class': Case((9,), {'data.labeled': 4}, labeled=(4,)),
  'fifty classes with a label each': Case(
    (3,) * 50, {'data.labeled': 50}, labeled=(1,) * 50
  ),
  'fewer labels than classes': Case(
    (3,) * 50, {'data.labeled': 49}, says='to at least 50'
  ),
  # Batches and sets of other sizes than each other.
  'a batch larger than the labeled set': Case(
    (9, 9), {'data.labeled': 2, 'batch.labeled': 8}, labeled=(1, 1)
  ),
  'a batch larger than the unlabeled set': Case(
    (9, 9), {'data.labeled': 14, 'batch.unlabeled': 12}, labeled=(7, 7)
  ),
  'no image is left without a label': Case(
    (9, 9), {'data.labeled': 18}, says='no unlabeled image is left'
  ),
  'that is no fault where none is needed': Case(
    (9, 9),
    {'data.labeled': 18, **_SUPERVISED},
    labeled=(9, 9),
    file='digits_supervised',
  ),
  'more labels than images': Case(
    (9, 9), {'data.labeled': 20}, says='only 18 labeled images'
  ),
  'training images without a label are unlabeled': Case(
    (4, 4), {'data.labeled': 8}, labeled=(4, 4), unknown=9
  ),
  # Methods without what they need: before data are loaded.
  'a term without unlabeled images': Case(
    (9, 9),
    {'data.labeled': 4, 'batch.unlabeled': 0},
    says=r'batch\.unlabeled=0, but config\.method\.name=ns3l',
  ),
  # Weights averaged before there is anything to average, tiny intervals.
  'averaged weights, evaluated from the first step on': Case(
    (9, 9),
    {
      'data.labeled': 4,
      'ema_decay': 0.999,
      'steps': 1,
      'scheduled_steps': 1,
      'eval.every_steps': 1,
    },
    labeled=(2, 2),
  ),
  'evaluation batches of one': Case(
    (9, 9), {'data.labeled': 4, 'eval.batch': 1}, labeled=(2, 2)
  ),
  # Numbers that cannot be.
  'no steps': Case((9, 9), {'steps': 0}, says=r'config\.steps=0'),
  'batch of zero': Case((9, 9), {'batch.labeled': 0}, says=r'batch\.labeled=0'),
  'an unknown rule': Case(
    (9, 9),
    {'data.labeled': 4, 'data.rule': 'balancd'},
    says="rule='balancd': did you mean 'balanced'",
  ),
  'ten labels of other classes than there are': Case(
    (9, 9), {'data.labeled': 1}, says='to at least 2'
  ),
}


def write(folder, case):
  """A data set `mnist` of those classes, random images of 8x8."""
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(len(case.counts)), case.counts)
  labels = rng.permutation(np.concatenate([labels, [-1] * case.unknown]))
  images = rng.integers(0, 256, (len(labels), 8, 8, 1), np.uint8)
  test = rng.integers(0, 256, (5, 8, 8, 1), np.uint8)
  tfds_fixtures.write(
    folder,
    'mnist',
    {
      'train': (images, labels.astype(np.int32)),
      'test': (test, np.arange(5, dtype=np.int32) % len(case.counts)),
    },
    max(len(case.counts), 1),
  )


class FieldTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    cache = {'NSL_JAX_CACHE': str(self.folder / 'cache')}
    self.enterContext(absltest.mock.patch.dict('os.environ', cache))
    kernels.remember('default')  # or the new cache would have it measured

  @parameterized.named_parameters(
    (name.replace(' ', '_').replace(',', ''), case)
    for name, case in CASES.items()
  )
  def test_case(self, case):
    write(self.folder / 'data', case)
    config = config_lib.load(f'configs/{case.file}.py', smoke='true')
    with config.unlocked():
      config.model = {'name': 'mlp', 'hidden': 8, 'layers': 1}
      config.update_from_flattened_dict(
        {
          'devices': 1,
          'data.name': 'mnist',
          'protocol': 'last',
          'data.dir': str(self.folder / 'data'),
          'data.validation': 0,
          'steps': 4,
          'scheduled_steps': 4,
          'batch.labeled': 4,
          'batch.unlabeled': 4,
          **case.changed,
        }
      )
    workdir = self.folder / 'run'
    if not case.labeled:
      with self.assertRaisesRegex(errors.UserError, case.says) as caught:
        experiment.run(config, workdir)
      self.assertNotIn('\n', str(caught.exception))
      self.assertFalse(workdir.exists())  # nothing is begun
      return
    results = experiment.run(config, workdir)
    report = results['reports'][0]
    self.assertSequenceEqual(sorted(report['labeled_by_class']), case.labeled)
    self.assertIsNotNone(report['last']['test_error'])
    told = ' '.join(results['warnings'])
    self.assertRegex(told, case.says or '^$')


if __name__ == '__main__':
  absltest.main()
