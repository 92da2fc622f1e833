"""The progress bar, in a file and on a terminal."""

import io
from unittest import mock

from absl.testing import absltest

from nsl_jax import progress


class ProgressTest(absltest.TestCase):
  def _show(self, stream):
    with mock.patch.object(progress, '_LINE_S', 1e9):
      bar = progress.progress(
        file=stream, total=500, initial=0, desc='seed 0', unit='step'
      )
      for _ in range(500):
        bar.set_postfix({'loss': '0.5'}, refresh=False)
        bar.update(1)
      bar.close()
    return stream.getvalue()

  def test_in_a_file_lines_now_and_then(self):
    lines = self._show(io.StringIO()).replace('\r', '').split('\n')
    lines = [line.strip() for line in lines if line.strip()]
    self.assertLen(lines, 2)
    self.assertStartsWith(lines[0], 'seed 0: 0.0% 0/500 [')
    self.assertStartsWith(lines[1], 'seed 0: 100.0% 500/500 [')
    self.assertIn('loss=0.5', lines[1])

  def test_on_a_terminal_one_line(self):
    stream = io.StringIO()
    stream.isatty = lambda: True
    shown = self._show(stream)
    self.assertEqual(shown.count('\n'), 1)
    self.assertIn('500/500', shown)


if __name__ == '__main__':
  absltest.main()
