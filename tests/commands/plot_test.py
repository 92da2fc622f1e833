"""The plot command: where the picture goes."""

import contextlib
import io

from absl.testing import absltest
from plotted_runs import PNG, PlotsTest

from nsl_jax import errors
from nsl_jax.commands import plot
from nsl_jax.reports import plots


class CommandTest(PlotsTest):
  def test_writes_the_picture_and_prints_where(self):
    out = self.folder / 'pictures' / 'both.png'
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      plot.main([str(self.one), str(self.two), f'--out={out}'])
    self.assertEqual(printed.getvalue(), f'{out}\n')
    self.assertEqual(out.read_bytes(), plots.draw([self.one, self.two]))
    self.assertEqual(list(out.parent.iterdir()), [out])

  def test_in_the_current_folder_if_not_told_where(self):
    self.enterContext(contextlib.chdir(self.folder))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      plot.main(['one'])
    self.assertEqual(printed.getvalue(), 'curves.png\n')
    self.assertStartsWith((self.folder / 'curves.png').read_bytes(), PNG)

  def test_no_run_is_one_line_and_writes_nothing(self):
    out = self.folder / 'x.png'
    empty = self.folder / 'empty'
    empty.mkdir()
    with self.assertRaises(errors.UserError) as raised:
      plot.main([str(self.one), str(empty), f'--out={out}'])
    self.assertStartsWith(str(raised.exception), f'{empty} has no seed_')
    self.assertNotIn('\n', str(raised.exception))
    self.assertFalse(out.exists())
    with self.assertRaisesRegex(errors.UserError, 'must end in .png'):
      plot.main([str(self.one), '--out=x.jpg'])

  def test_needs_a_run(self):
    with contextlib.redirect_stderr(io.StringIO()) as told:
      with self.assertRaises(SystemExit) as stopped:
        plot.main([])
    self.assertEqual(stopped.exception.code, 2)
    self.assertRegex(told.getvalue(), '^error: .*workdirs; see --help\n$')


if __name__ == '__main__':
  absltest.main()
