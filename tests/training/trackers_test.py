"""Lines that are sent to Weights & Biases and MLflow, with neither network nor
account.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from unittest import mock

import pytest
from absl.testing import absltest, parameterized

from nsl_jax import errors
from nsl_jax.training import config as config_lib, experiment, loop, trackers

_LINES = (
  ('train', 5, {'loss': 0.5, 'params_norm': 2.0}),
  ('eval', 5, {'test_error': 12.5, 'by_class': {'test_error': [1.0]}}),
  ('train', 10, {'loss': 0.25, 'params_norm': 3.0}),
)
_WANDB, _MLFLOW = (
  pytest.mark.skipif(
    importlib.util.find_spec(name) is None, reason=f'{name} is not installed'
  )
  for name in trackers.NAMES
)


def _config(**targets):
  config = config_lib.load('configs/digits_supervised.py', smoke=True)
  with config.unlocked():
    config.log.update(targets)
    config.devices = 1
  return config


class TrackersTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def send(self, lines, **targets):
    sent = trackers.Trackers(_config(**targets), self.folder, 'supervised')
    for line in lines:
      sent.write(*line)
    sent.close()
    return sent.warnings

  @_WANDB
  @mock.patch.dict(os.environ, WANDB_MODE='offline')
  def test_wandb_offline(self):
    self.assertEqual(self.send(_LINES[:2], wandb='digits'), [])
    key = json.loads((self.folder / 'trackers.json').read_text())['wandb']
    self.assertEqual(self.send(_LINES[2:], wandb='digits'), [])
    self.assertEqual(
      json.loads((self.folder / 'trackers.json').read_text())['wandb'], key
    )
    files = sorted(self.folder.glob(f'wandb/offline-run-*/run-{key}.wandb'))
    self.assertNotEmpty(files)
    content = b''.join(path.read_bytes() for path in files)
    for name in (b'train/loss', b'eval/test_error', b'params_norm', b'digits'):
      self.assertIn(name, content)
    self.assertNotIn(b'by_class', content)

  def assert_lines(self, uri):
    from mlflow import tracking

    client = tracking.MlflowClient(tracking_uri=uri)
    key = json.loads((self.folder / 'trackers.json').read_text())['mlflow']
    loss = client.get_metric_history(key, 'train/loss')
    self.assertEqual([(m.step, m.value) for m in loss], [(5, 0.5), (10, 0.25)])
    run = client.get_run(key)
    self.assertEqual(run.data.metrics['eval/test_error'], 12.5)
    self.assertEqual(run.data.params['method.name'], 'supervised')
    self.assertEqual(run.info.status, 'FINISHED')

  @_MLFLOW
  def test_mlflow_offline(self):
    uri = f'sqlite:///{self.folder}/mlflow.db'
    self.assertEqual(self.send(_LINES[:2], mlflow=uri), [])
    self.assertEqual(self.send(_LINES[2:], mlflow=uri), [])
    self.assert_lines(uri)

  @_MLFLOW
  @pytest.mark.slow
  def test_mlflow_server(self):
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      port = probe.getsockname()[1]
    uri = f'http://127.0.0.1:{port}'
    server = subprocess.Popen(
      [
        *(sys.executable, '-m', 'mlflow', 'server', '--host=127.0.0.1'),
        *(f'--port={port}', '--workers=1'),
        f'--backend-store-uri=sqlite:///{self.folder}/server.db',
      ],
      cwd=self.folder,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    try:
      until = time.monotonic() + 120
      while time.monotonic() < until:
        try:
          urllib.request.urlopen(f'{uri}/health', timeout=5).close()
          break
        except OSError:
          time.sleep(0.5)
      self.assertEqual(self.send(_LINES[:2], mlflow=uri), [])
      self.assertEqual(self.send(_LINES[2:], mlflow=uri), [])
      self.assert_lines(uri)
    finally:
      server.terminate()
      server.wait()

  def test_one_that_fails_is_warned_of_once(self):
    calls = []

    def send(step, values):
      calls.append(step)
      raise OSError(111, 'Connection refused')

    with (
      mock.patch.dict(trackers._OPEN, mlflow=lambda *_: ('key', send)),
      self.assertLogs(level='WARNING') as logged,
    ):
      warnings = self.send(_LINES, mlflow='http://127.0.0.1:1')
    line = 'mlflow gets no more metrics of supervised: Connection refused'
    self.assertEqual(warnings, [line])
    self.assertLen(logged.records, 1)
    self.assertEqual(calls, [5])

  @mock.patch.object(trackers, '_PATIENCE_S', 0.1)
  def test_one_that_hangs_is_left(self):
    with mock.patch.dict(trackers._OPEN, wandb=lambda *_: time.sleep(5)):
      begun = time.monotonic()
      warnings = self.send(_LINES, wandb='digits')
    self.assertLess(time.monotonic() - begun, 3)
    self.assertEqual(
      warnings,
      ['wandb gets no more metrics of supervised: it is not done after 0 s'],
    )

  def test_run_goes_on_without(self):
    def fail(*_):
      raise SystemExit('no account')

    with (
      mock.patch.dict(trackers._OPEN, wandb=fail),
      mock.patch.object(trackers, 'check'),
    ):
      experiment.run(_config(wandb='digits'), self.folder, verbose=False)
    found = json.loads((self.folder / 'seed_0' / 'result.json').read_text())
    self.assertIn(
      'wandb gets no more metrics of supervised: no account', found['warnings']
    )

  def test_how_a_run_ended_is_told(self):
    ended = {}
    for name in trackers.NAMES:
      ends = ended.setdefault(name, [])
      fake = lambda *given, ends=ends: (
        'key',
        lambda step, values: ends.append(values),
      )
      for error in (None, loop.Interrupted(15), errors.TrainingError('nan')):
        with (
          mock.patch.dict(trackers._OPEN, {name: fake}),
          contextlib.suppress(loop.Interrupted, errors.TrainingError),
        ):
          sent = trackers.Trackers(_config(**{name: 'x'}), self.folder, 'x')
          with experiment._closing(sent):
            if error:
              raise error
    wanted = [trackers.FINISHED, trackers.KILLED, trackers.FAILED]
    self.assertEqual(ended, {name: wanted for name in trackers.NAMES})

  def test_not_installed(self):
    with mock.patch.object(
      trackers.importlib.util, 'find_spec', lambda name: None
    ):
      with self.assertRaisesRegex(
        errors.UserError,
        r'config.log.wandb=digits: wandb is not installed: pip install '
        r'"nsl_jax\[wandb\]"',
      ):
        trackers.check(_config(wandb='digits'))
      trackers.check(_config())


if __name__ == '__main__':
  absltest.main()
