"""The folders of the tests are those of the package, a file for each module."""

from absl.testing import absltest
from repository import ROOT

PACKAGE, TESTS = ROOT / 'nsl_jax', ROOT / 'tests'
# Modules without a test file of the same name, and where they are tested.
ELSEWHERE = {
  '__main__': 'package_test, commands/cli_test',
  'errors': 'the errors of every part',
  'files': 'training/workdir_test, data/cache_test',
  'references': 'outside_test',
  'types': 'nothing but types',
  'benchmarks/growth': 'commands/bench_test',
  'benchmarks/startup': 'commands/bench_test',
  'benchmarks/step': 'commands/bench_test',
  'benchmarks/step_times': 'commands/bench_test',
  'commands/evaluate': 'own_images_test',
  'commands/export': 'own_images_test',
  'commands/predict': 'own_images_test',
  'commands/report': 'reports/tables_test',
  'commands/search': 'training/search_test',
  'data/datasets/face_lists': 'data/datasets/aflw_test',
  'data/decoded': 'data/datasets/folder_test',
  'data/examples': 'data/records_test, data/datasets/npz_test',
  'data/features': 'data/datasets/npz_test',
  'data/labels_csv': 'data/listing_test',
  'data/manual': 'data/prepare_test',
  'data/versions': 'data/datasets/usps_test',
  'data/views': 'data/augment_test',
  'inference/export': 'inference/predictor_test',
  'inference/tables': 'inference/predictor_test',
  'benchmarks/augmentation': 'data/randaugment_test',
  **dict.fromkeys(
    (
      'methods/fixmatch',
      'methods/flexmatch',
      'methods/freematch',
      'methods/softmatch',
    ),
    'methods/of_rule_test',
  ),
  'parameters': 'optimizers_test',
  'methods/supervised': 'methods/methods_test',
  'models/choice': 'models/mlp_test, training/automatic_test',
  'reports/evaluation/calibration': 'reports/evaluation/scores_test',
  'reports/evaluation/markup': 'reports/evaluation/page_test',
  'reports/evaluation/sections': 'reports/evaluation/page_test',
  'reports/figures/cells': 'reports/figures/curves_test',
  'reports/marked': 'reports/hosts_test, reports/tables_test',
  'reports/style': 'reports/figures/figures_test',
  'terms/mean_teacher': 'terms/pi_test',
  'training/assembly': 'training/experiment_test',
  'training/config_checks': 'training/config_test',
  'training/config_options': 'training/config_test',
  'training/network_file': 'inference/predictor_test',
  'training/origin': 'inference/predictor_test',
  'training/pipeline': 'training/train_step_test, training/experiment_test',
  'training/results': 'training/experiment_test',
  'training/sharding': 'training/train_step_test',
}


def modules():
  """Files of the package as 'data/cache'."""
  return {
    path.relative_to(PACKAGE).with_suffix('').as_posix()
    for path in PACKAGE.rglob('*.py')
    if path.name != '__init__.py'
  }


def files_of_tests():
  """Files of tests as 'data/cache'."""
  return {
    path.relative_to(TESTS).as_posix().removesuffix('_test.py')
    for path in TESTS.rglob('*_test.py')
  }


class MirrorTest(absltest.TestCase):
  def test_folders_and_names_are_those_of_the_package(self):
    """At the top may be anything; in a folder a file is named by a module or,
    for its `__init__`, by the folder, and perhaps by what it tests of it."""
    known = modules()
    for name in sorted(files_of_tests()):
      folder, _, file = name.rpartition('/')
      if folder:
        self.assertTrue((PACKAGE / folder).is_dir(), f'no nsl_jax/{folder}')
        own = f'{folder}/{folder.rpartition("/")[2]}'
        self.assertTrue(
          any(f'{name}_'.startswith(f'{one}_') for one in {*known, own}),
          f'tests/{name}_test.py is named by no module of nsl_jax/{folder}',
        )

  def test_every_module_has_its_file(self):
    self.assertEqual(
      modules() - files_of_tests(),
      set(ELSEWHERE),
      'add a file of tests, or say in ELSEWHERE which one tests the module',
    )


if __name__ == '__main__':
  absltest.main()
