"""Metrics files: complete lines only, and none beyond where a run resumes."""

import json

import temporary
from absl.testing import absltest, parameterized
from tensorboardX import proto

from nsl_jax.training import metrics_log


class LogTest(temporary.FolderTestCase):
  def setUp(self):
    super().setUp()
    self.path = self.folder / 'metrics.jsonl'

  def start(self, step, writes=()):
    """Opens the log at a step and writes a training line at some others."""
    lines = metrics_log.Log(self.folder, step=step)
    for at in writes:
      lines.write('train', at, at / 10, {'loss': 1 / at})
    lines.close()

  def steps(self):
    return [line['step'] for line in metrics_log.read(self.path)]

  def test_lines(self):
    lines = metrics_log.Log(self.folder, step=0)
    lines.write('train', 5, 0.25, {'loss': 1.5, 'accuracy': 0.5})
    # On disk at once, whatever becomes of the process.
    self.assertEqual(
      json.loads(self.path.read_text()),
      {
        'step': 5,
        'kind': 'train',
        'loss': 1.5,
        'accuracy': 0.5,
        'seconds': 0.25,
      },
    )
    lines.write('eval', 10, 0.5, {'test_error': 3.0, 'validation_error': None})
    lines.close()
    text = self.path.read_text()
    self.assertEqual(text.count('\n'), 2)
    self.assertEndsWith(text, '\n')
    self.assertEqual(
      metrics_log.read(self.path)[1],
      {
        'step': 10,
        'kind': 'eval',
        'test_error': 3.0,
        'validation_error': None,
        'seconds': 0.5,
      },
    )

  def test_absent(self):
    self.assertEqual(metrics_log.read(self.path), [])

  @parameterized.parameters(
    (0, []),
    (9, []),
    (10, [10]),
    (25, [10, 20]),
    (40, [10, 20, 30, 40]),
    (99, [10, 20, 30, 40]),
  )
  def test_resume_drops_what_lies_beyond(self, step, kept):
    self.start(0, (10, 20, 30, 40))
    self.start(step)
    self.assertEqual(self.steps(), kept)

  def test_resumed_file_is_that_of_an_unbroken_run(self):
    self.start(0, (10, 20, 30))
    unbroken = self.path.read_text()
    self.start(20, (30,))
    self.assertEqual(self.path.read_text(), unbroken)

  @parameterized.parameters(1, 5, 20)
  def test_line_cut_off_while_written(self, missing):
    self.start(0, (10, 20))
    text = self.path.read_text()
    self.path.write_text(text[:-missing])
    self.assertEqual(self.steps(), [10])
    self.start(10, (20,))
    self.assertEqual(self.path.read_text(), text)

  def test_start_leaves_no_other_file(self):
    self.start(0, (10,))
    self.start(10)
    names = sorted(path.name for path in self.folder.iterdir())
    self.assertEqual(names, ['metrics.jsonl', 'tb'])

  def test_tensorboard(self):
    lines = metrics_log.Log(self.folder, step=0)
    lines.write('train', 5, 0.1, {'loss': 1.5})
    lines.write('eval', 10, 0.2, {'test_error': 25.0, 'validation_error': None})
    lines.close()
    self.assertEqual(
      self.events(), {('train/loss', 5, 1.5), ('eval/test_error', 10, 25.0)}
    )

  def events(self):
    """(name, step, value) of every scalar in the TensorBoard files."""
    found = set()
    for path in (self.folder / 'tb').glob('events.out.tfevents.*'):
      data, at = path.read_bytes(), 0
      while at < len(data):  # length u64, checksum u32, record, checksum u32
        size = int.from_bytes(data[at : at + 8], 'little')
        event = proto.event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
        found |= {
          (value.tag, event.step, value.simple_value)
          for value in event.summary.value
        }
        at += 16 + size
    return found


if __name__ == '__main__':
  absltest.main()
