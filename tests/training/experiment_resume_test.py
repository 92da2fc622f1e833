"""A run that is started once more: what it continues, and what it refuses."""

import functools
import json
import shutil
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from digits_run import DigitsRunTestCase, make_config as _config

from nsl_jax import errors
from nsl_jax.data import sources, split_file
from nsl_jax.training import (
  checkpoint,
  experiment,
  loop,
  metrics_log,
  pipeline,
  workdir,
)


class ResumeTest(DigitsRunTestCase):
  def test_more_seeds_later_keep_the_first(self):
    folder = self.finished()
    lines = (folder / 'seed_0' / 'metrics.jsonl').read_bytes()
    twice = experiment.run(_config(words='seeds=2'), folder)
    self.assertEqual(twice['reports'][0], self.results['reports'][0])
    self.assertEqual((folder / 'seed_0' / 'metrics.jsonl').read_bytes(), lines)

  def test_a_checkpoint_keeps_the_steps_of_an_unfinished_line(self):
    save, saved = checkpoint.Checkpoints.save, {}

    def note(self, step, state, position):
      if 'pending' in position:  # not the best network, which is saved apart
        saved[step] = position  # written in the background, so read later
      save(self, step, state, position)

    self.enterContext(
      absltest.mock.patch.object(checkpoint.Checkpoints, 'save', note)
    )
    experiment.run(
      _config(
        **{'log_every': 7, 'checkpoint.every': 10, 'eval.every_steps': 6}
      ),
      self.folder,
    )
    found = {step: len(position['pending']) for step, position in saved.items()}
    self.assertEqual(found, {10: 3, 20: 0})  # the last step closes its line

  def test_best_network_that_is_gone(self):
    run = loop.run

    def lose(folder, **rest):
      found = run(folder, **rest)
      shutil.rmtree(folder / 'best')
      return found

    with absltest.mock.patch.object(loop, 'run', lose):
      results = experiment.run(_config(), self.folder)
    best = results['reports'][0]['best_validation']
    self.assertIsNone(best['weights'])
    self.assertIsNotNone(best['test_error'])

  def test_longer_equals_unbroken(self):
    changes = {'eval.every_steps': 6, 'checkpoint.every': 8, 'log_every': 4}
    experiment.run(_config(steps=12, **changes), self.folder / 'two')
    results = experiment.run(_config(steps=20, **changes), self.folder / 'two')
    once = experiment.run(_config(steps=20, **changes), self.folder / 'one')
    lines = self.metrics(self.folder / 'two')
    self.assertEqual(lines[-1]['step'], 20)
    self.assertEqual(lines, self.metrics(self.folder / 'one'))
    time = ('wall_time_s',)
    own = lambda r: {k: v for k, v in r['reports'][0].items() if k not in time}
    self.assertEqual(own(results), own(once))
    self.assertEqual(results['steps'], 20)

  def test_a_finished_run_is_found_done(self):
    folder = self.finished()
    with absltest.mock.patch.object(experiment.loop, 'run') as trained:
      second = experiment.run(_config(), folder)
    trained.assert_not_called()
    self.assertEqual(self.results['reports'], second['reports'])

  def test_another_config_is_refused_and_nothing_is_touched(self):
    folder = self.finished()
    before = {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
    with self.assertRaisesRegex(errors.UserError, 'optimizer.lr was 0.001'):
      experiment.run(_config(**{'optimizer.lr': 0.01}), folder)
    after = {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
    self.assertEqual(before, after)

  def test_finished_result_that_is_damaged(self):
    folder = self.finished()
    (folder / 'seed_0' / 'result.json').write_text('{"seed"')
    with self.assertRaisesRegex(errors.UserError, 'cannot be read'):
      experiment.run(_config(), folder)

  def test_a_data_set_that_changed_is_refused(self):
    folder = self.finished()
    seed = folder / 'seed_0'
    (seed / 'result.json').unlink()
    with np.load(seed / 'split.npz') as split:
      arrays = {**split, 'labeled': split['labeled'][::-1]}
    np.savez(seed / 'split.npz', **arrays)
    with self.assertRaisesRegex(
      errors.UserError, 'split.npz has other rows than'
    ):
      experiment.run(_config(), folder)

  def refused_with(self, other, folder, message):
    """What `other` makes of the data is refused."""
    load = pipeline.load_source
    with (
      absltest.mock.patch.object(
        pipeline, 'load_source', lambda config: other(load(config))
      ),
      self.assertRaisesRegex(errors.UserError, message),
    ):
      experiment.run(_config(), folder)

  def test_the_same_rows_of_another_order_are_refused(self):
    """A data set prepared anew has the same labels, but other images there."""
    folder = self.finished()

    def other(source):
      images, labels = source.train
      moved = images.copy()
      for k in range(10):
        rows = np.flatnonzero(labels == k)
        moved[rows] = images[np.roll(rows, 1)]
      return source._replace(train=source.train._replace(images=moved))

    message = 'split.npz has other images or labels than'
    self.refused_with(other, folder, message)
    (folder / 'seed_0' / 'result.json').unlink()
    self.refused_with(other, folder, message)

  def test_other_test_images_are_refused(self):
    """The errors of two seeds would be of different images."""
    folder = self.finished()
    other = lambda source: source._replace(
      test=source.test._replace(
        images=source.test.images[1:], labels=source.test.labels[1:]
      )
    )
    self.refused_with(other, folder, 'with other test images')
    path = folder / 'seed_0' / 'split.npz'
    with np.load(path) as file:  # as older versions wrote it
      np.savez(path, **{k: v for k, v in file.items() if k != 'test_sha256'})
    experiment.run(_config(), folder)
    self.assertNotEqual(split_file.load_hashes(path).test, '')

  def test_other_unlabeled_images_are_refused(self):
    folder = self.finished()
    path = folder / 'seed_0' / 'split.npz'
    unlabeled = split_file.load(path).unlabeled

    def other(source):
      images = source.train.images.copy()
      images[unlabeled] = images[unlabeled[::-1]]
      return source._replace(train=source.train._replace(images=images))

    self.refused_with(other, folder, 'with other unlabeled images')

  @parameterized.parameters('train', 'test')
  def test_a_single_other_image_of_own_data_is_refused(self, part):
    self.enterContext(mock.patch.object(split_file, '_HASHED', 8))
    source = sources.load('digits')._replace(name='mine')
    config = _config()
    rows = pipeline.split_of(config, source, 0).unlabeled
    experiment.run(config, self.folder / 'run', source)
    arrays = getattr(source, part)
    at = rows[1] if part == 'train' else 1  # not one of those in the sample
    images = arrays.images.copy()
    images[at] += 1
    other = source._replace(**{part: arrays._replace(images=images)})
    with self.assertRaisesRegex(errors.UserError, 'other unlabeled or test'):
      experiment.run(config, self.folder / 'run', other)
    with mock.patch.object(experiment, '_pixels', lambda *_: ''):
      experiment.run(config, self.folder / 'run', other)  # several processes
    with self.assertRaisesRegex(errors.UserError, 'other unlabeled or test'):
      experiment.run(config, self.folder / 'run', other)

  @parameterized.parameters(
    ({'steps': 40}, False, 'has a result but no checkpoint to go on from'),
    ({}, True, 'has lines up to step 20, but no checkpoint exists'),
  )
  def test_checkpoints_that_are_gone(self, changed, lost, message):
    folder = self.folder / 'run'
    experiment.run(_config(**{'checkpoint.every': 5}), folder)
    seed = folder / 'seed_0'
    shutil.rmtree(seed / 'checkpoints')
    experiment.run(_config(**{'checkpoint.every': 5}), folder)  # is done
    if lost:
      (seed / 'result.json').unlink()
    before = (seed / 'metrics.jsonl').read_text()
    with self.assertRaisesRegex(errors.UserError, message):
      experiment.run(_config(**{'checkpoint.every': 5, **changed}), folder)
    self.assertEqual((seed / 'metrics.jsonl').read_text(), before)
    if not lost:  # the folder is still that of the shorter run
      experiment.run(_config(**{'checkpoint.every': 5}), folder)

  def test_results_name_all_starts_that_trained(self):
    """And not one that only wrote them."""
    folder = self.folder / 'run'
    now = workdir.provenance(1)
    earlier = {**now, 'device': 'another', 'commit': 'abc'}
    with mock.patch.object(workdir, 'provenance', lambda devices: earlier):
      experiment.run(_config(steps=10), folder)
    result = experiment.run(_config(steps=20), folder)
    self.assertEqual(result['device'], f'another and {now["device"]}')
    self.assertIn('abc', result['commit'])
    self.assertEqual(result['versions'], now['versions'])
    (
      folder / 'seed_0' / 'result.json'
    ).unlink()  # as if it had not been written
    with mock.patch.object(
      workdir, 'provenance', lambda devices: {**now, 'device': 'a third'}
    ):
      repeated = experiment.run(_config(steps=20), folder)
    # The third start trained nothing.
    self.assertEqual(repeated['device'], result['device'])
    more = experiment.run(_config(steps=20, seeds=2), folder)
    self.assertEqual(more['device'], result['device'])

  def test_results_name_all_commits_that_trained(self):
    folder = self.finished()
    path = folder / 'seed_0' / 'result.json'
    content = json.loads(path.read_text())
    content['provenance'] |= {'commit': 'abc', 'versions': {'jax': '0.1'}}
    path.write_text(json.dumps(content))
    result = experiment.run(_config(), folder)
    self.assertEqual(result['commit'], 'abc')
    result = experiment.run(_config(seeds=2), folder)
    now = workdir.provenance(1)
    self.assertEqual(
      result['commit'], ' and '.join(filter(None, ['abc', now['commit']]))
    )
    self.assertEqual(
      result['versions'], {'jax': f'0.1 and {now["versions"]["jax"]}'}
    )

  @parameterized.parameters(
    ({'batch.labeled': 8}, 'batch.labeled was 16 there and is 8'),
    ({'seed': 1}, 'seed was 0 there'),
    ({'data.augment': ''}, 'data.augment'),
  )
  def test_another_config_is_refused(self, changed, message):
    folder = self.finished()
    with self.assertRaisesRegex(errors.UserError, message):
      experiment.run(_config(**changed), folder)

  def test_resumes_on_another_number_of_devices(self):
    """Half of a run on one device and half on four: the losses are those of
    one that was not stopped, but for rounding.
    """
    changed = {'log_every': 1, 'steps': 8, 'checkpoint.every': 4}
    losses = []
    for last in (1, 4):
      folder = self.folder / str(last)
      config = functools.partial(_config, 'digits_supervised', **changed)
      experiment.run(config(devices=1), folder)
      seed = folder / 'seed_0'
      (seed / 'result.json').unlink()
      shutil.rmtree(seed / 'checkpoints' / '8')
      experiment.run(config(devices=last), folder)
      lines = metrics_log.read(seed / 'metrics.jsonl')
      losses.append([e['loss'] for e in lines if e['kind'] == 'train'])
    self.assertLen(losses[0], 8)
    np.testing.assert_allclose(*losses, rtol=1e-4)


if __name__ == '__main__':
  absltest.main()
