"""A run's folder: one config's own, whole files, and where they came from."""

import json
import os
import pathlib
import stat
import subprocess
import tempfile
from unittest import mock

import jax
import temporary
from absl.testing import absltest, parameterized

from nsl_jax import errors, files
from nsl_jax.training import workdir

CONFIG = {
  'steps': 100,
  'seeds': 1,
  'steps_per_call': 0,
  'devices': 0,
  'row': '',
  'data': {'name': 'digits', 'dir': '', 'labeled': 50},
  'checkpoint': {'every': 500, 'keep': 2},
  'method': {'name': 'ns3l', 'terms': {}},
}


def changed(**fields):
  """The config with other values at `section__field`."""
  config = json.loads(json.dumps(CONFIG))
  for name, value in fields.items():
    *sections, field = name.split('__')
    part = config
    for section in sections:
      part = part[section]
    part[field] = value
  return config


class WorkdirTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    self.path = self.folder / 'config.json'

  def refused(self, config, message):
    with self.assertRaisesRegex(errors.UserError, message) as e:
      workdir.lock_workdir_to_config(self.folder, config)
    self.assertNotIn('\n', str(e.exception))
    self.assertIn('--workdir', str(e.exception))


class ClaimTest(WorkdirTest):
  def test_is_written(self):
    workdir.lock_workdir_to_config(self.folder, CONFIG)
    self.assertEqual(workdir.read_json(self.path), CONFIG)

  def test_again(self):
    workdir.lock_workdir_to_config(self.folder, CONFIG)
    workdir.lock_workdir_to_config(self.folder, CONFIG)
    self.assertEqual(workdir.read_json(self.path), CONFIG)

  def test_tuples_are_lists(self):
    workdir.lock_workdir_to_config(self.folder, CONFIG | {'widths': (1, 2)})
    workdir.lock_workdir_to_config(self.folder, CONFIG | {'widths': (1, 2)})

  @parameterized.parameters(
    (dict(seeds=5),),
    (dict(data__dir='/elsewhere'),),
    (dict(devices=4),),
    (dict(steps_per_call=32),),
    (dict(checkpoint__keep=9),),
    (dict(seeds=2, data__dir='/elsewhere', steps_per_call=1),),
  )
  def test_what_may_change(self, fields):
    workdir.lock_workdir_to_config(self.folder, CONFIG)
    workdir.lock_workdir_to_config(self.folder, changed(**fields))
    self.assertEqual(workdir.read_json(self.path), changed(**fields))

  @parameterized.parameters(
    (dict(steps=50), 'steps was 100 there and is 50 here .a run can be made'),
    (dict(data__labeled=51), 'data.labeled was 50 there and is 51 here'),
    (dict(data__name='svhn'), "data.name was 'digits' there and is 'svhn'"),
    (dict(checkpoint__every=1), 'checkpoint.every was 500'),
    (dict(method__weight=2.0), 'method.weight was None there and is 2.0'),
    (
      dict(method__terms={'ns3l': {'weight': 1}}),
      'method.terms.ns3l.weight was None there and is 1 here',
    ),
    # The first by name, but for the length, from which others may follow.
    (dict(log_every=200, data__labeled=51, seeds=9), 'data.labeled was 50'),
    (dict(steps=200, data__labeled=51, seeds=9), 'steps was 100'),
  )
  def test_another_config_is_refused(self, fields, message):
    workdir.lock_workdir_to_config(self.folder, CONFIG)
    before = self.path.read_bytes()
    self.refused(changed(**fields), f'belongs to another config: {message}')
    self.assertEqual(self.path.read_bytes(), before)

  def longer(self, **before):
    """Claims for 100 steps, then for 200."""
    config = CONFIG | {
      'eval': {'every_steps': 20},
      'log_every': 50,
      'optimizer': {'lr': 0.1, 'cosine_steps': 0},
    }
    config |= before
    workdir.lock_workdir_to_config(self.folder, config)
    return config | {'steps': 200}

  def test_longer(self):
    config = self.longer() | {'full_steps': 200, 'row': 'X'}
    workdir.lock_workdir_to_config(self.folder, config)
    self.assertEqual(workdir.read_json(self.path), config)

  @parameterized.parameters(
    (dict(eval={'every_steps': 30}), '100 is not a multiple of eval.every_s'),
    (dict(log_every=7), 'not a multiple of log_every=7'),
    (dict(optimizer={'cosine_steps': 100}), 'optimizer.cosine_steps scheduled'),
    (dict(), 'ema_decay was 0.5 and is 0.75'),
  )
  def test_longer_is_another_run(self, before, message):
    follows = {} if before else {'ema_decay': 0.5}
    longer = self.longer(**before, **follows)
    longer |= {'ema_decay': 0.75} if follows else {}
    self.refused(longer, f'steps was 100 there and is 200 here .*{message}')

  def test_a_folder_from_before_a_field_was_added(self):
    workdir.lock_workdir_to_config(self.folder, CONFIG)
    added = {'model': {**CONFIG.get('model', {}), 'init_from': ''}}
    workdir.lock_workdir_to_config(self.folder, CONFIG | added)
    added['model']['init_from'] = 'w.safetensors'
    with self.assertRaisesRegex(errors.UserError, "init_from was '' there"):
      workdir.lock_workdir_to_config(self.folder, CONFIG | added)

  def test_missing_field_is_refused(self):
    workdir.lock_workdir_to_config(self.folder, changed(method__weight=2.0))
    self.refused(CONFIG, 'method.weight was 2.0 there and is None here')

  @parameterized.parameters(
    b'', b'{"steps": 100', b'\xff\xfe\x00', b'[]', b'null', b'3'
  )
  def test_damaged(self, content):
    self.path.write_bytes(content)
    self.refused(CONFIG, 'config.json cannot be read')
    self.assertEqual(self.path.read_bytes(), content)

  def test_full_disk(self):
    error = OSError(28, 'No space left on device')
    with mock.patch.object(pathlib.Path, 'write_bytes', side_effect=error):
      with self.assertRaisesRegex(
        errors.UserError, 'cannot write .*config.json .No space left'
      ):
        workdir.lock_workdir_to_config(self.folder, CONFIG)


class MakeFolderTest(temporary.FolderTestCase):
  def refused(self, folder, message):
    with self.assertRaisesRegex(
      errors.UserError, f'{message}.*choose another --workdir$'
    ):
      files.make_folder(folder, '--workdir')

  def test_makes_parents(self):
    for _ in range(2):  # it may exist
      files.make_folder(self.folder / 'runs' / 'one', '--workdir')
    self.assertTrue((self.folder / 'runs' / 'one').is_dir())

  def test_not_a_folder(self):
    file = self.folder / 'file'
    file.write_text('')
    self.refused(file, 'cannot make the folder .*file')
    self.refused(file / 'below', 'cannot make the folder .*below')

  @absltest.skipIf(os.geteuid() == 0, 'root may write everywhere')
  def test_unwritable(self):
    self.folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    self.addCleanup(self.folder.chmod, stat.S_IRWXU)
    self.refused(self.folder, 'cannot write to ')


class JsonTest(WorkdirTest):
  def test_round_trip(self):
    content = {'b': [1, 2.5, None], 'a': {'mean': 'x ± y'}}
    workdir.write_json(self.path, content)
    self.assertEqual(workdir.read_json(self.path), content)
    text = self.path.read_text()
    self.assertIn('±', text)
    self.assertEndsWith(text, '}\n')
    self.assertEqual(list(self.folder.iterdir()), [self.path])

  def test_stopped_while_writing_leaves_the_old_file(self):
    workdir.write_json(self.path, {'a': 1})
    with mock.patch.object(os, 'replace', side_effect=KeyboardInterrupt):
      with self.assertRaises(KeyboardInterrupt):
        workdir.write_json(self.path, {'a': 2})
    self.assertEqual(workdir.read_json(self.path), {'a': 1})
    workdir.write_json(self.path, {'a': 3})
    self.assertEqual(workdir.read_json(self.path), {'a': 3})
    self.assertEqual(list(self.folder.iterdir()), [self.path])

  def test_what_json_cannot_hold_leaves_the_old_file(self):
    workdir.write_json(self.path, {'a': 1})
    with self.assertRaises(TypeError):
      workdir.write_json(self.path, {'a': object()})
    self.assertEqual(workdir.read_json(self.path), {'a': 1})

  def test_only_process_0_writes(self):
    with mock.patch.object(jax, 'process_index', return_value=1):
      workdir.write_json(self.path, {'a': 1})
    self.assertFalse(self.path.exists())

  def test_absent(self):
    with self.assertRaisesRegex(errors.UserError, 'config.json cannot be read'):
      workdir.read_json(self.path)


class ProvenanceTest(parameterized.TestCase):
  def test_keys(self):
    found = workdir.provenance(2)
    self.assertEqual(set(found), {'device', 'commit', 'versions'})
    self.assertEqual(json.loads(json.dumps(found)), found)
    self.assertRegex(found['device'], r'^2 x \w+ \(cpu; host: \d+ cores\)$')
    for package in (
      'python',
      'nsl-jax',
      'jax',
      'jaxlib',
      'flax',
      'optax',
      'numpy',
      'orbax-checkpoint',
      'tensorflow-datasets',
    ):
      self.assertIn(package, found['versions'])
    self.assertEqual(found['versions']['jax'], jax.__version__)

  def test_commit(self):
    file = pathlib.Path(workdir.__file__).resolve()
    git = lambda *words: subprocess.run(
      ['git', '-C', str(file.parent), *words], capture_output=True, text=True
    )
    if git('ls-files', '--error-unmatch', str(file)).returncode:
      self.skipTest('not in a repository')
    changed = git('status', '--porcelain', str(file.parents[1])).stdout
    changes = '+changes' if changed else ''
    self.assertEqual(
      workdir.provenance(2)['commit'],
      git('rev-parse', 'HEAD').stdout.strip() + changes,
    )

  def test_changes_anywhere_in_the_package(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    git = lambda *words: subprocess.run(
      ['git', '-C', folder, '-c', 'user.name=a', '-c', 'user.email=b', *words],
      check=True,
      capture_output=True,
    )
    file = folder / 'nsl_jax' / 'training' / 'workdir.py'
    file.parent.mkdir(parents=True)
    file.touch()
    losses = folder / 'nsl_jax' / 'losses.py'
    losses.touch()
    git('init')
    git('add', '.')
    git('commit', '-m', 'all')
    with mock.patch.object(workdir, '__file__', str(file)):
      self.assertRegex(workdir.provenance(1)['commit'], '^[0-9a-f]{40}$')
      (folder / 'notes.txt').touch()
      self.assertNotIn('+', workdir.provenance(1)['commit'])
      losses.write_text('changed')
      self.assertEndsWith(workdir.provenance(1)['commit'], '+changes')

  def test_without_git(self):
    with mock.patch.dict(os.environ, PATH=''):
      self.assertIsNone(workdir.provenance(2)['commit'])


if __name__ == '__main__':
  absltest.main()
