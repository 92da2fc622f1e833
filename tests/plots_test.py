"""Learning curves of runs: their numbers, the picture and the command."""

import contextlib
import io
import json
import pathlib
import shutil
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from matplotlib import colors

from nsl_jax import errors
from nsl_jax.commands import plot
from nsl_jax.reports import plots
from nsl_jax.reports.figures import style

_PNG = b'\x89PNG\r\n\x1a\n'


def _train(step, loss):
  return {'step': step, 'kind': 'train', 'loss': loss, 'seconds': 1.0}


def _eval(step, validation, test):
  return {
    'step': step,
    'kind': 'eval',
    'validation_error': validation,
    'test_error': test,
    'seconds': 1.0,
  }


# By seed. The second seed of `one` stopped before the last lines of the first.
_ONE = (
  [
    _train(5, 4.0),
    _train(10, 2.0),
    _eval(10, 50.0, 60.0),
    _train(15, 1.0),
    _eval(20, 30.0, 40.0),
  ],
  [_train(5, 6.0), _train(10, 3.0), _eval(10, 70.0, 64.0)],
)
# Nothing is held out, so that no validation error is measured.
_TWO = (
  [_train(4, 1.0), _train(8, 0.5), _eval(8, None, 20.0)],
  [_train(4, 3.0), _train(8, 1.5), _eval(8, None, 10.0)],
)


class PlotsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.one = self.run_of('one', _ONE)
    self.two = self.run_of('two', _TWO)

  def run_of(self, name, seeds):
    """The folder of a run with these lines by seed."""
    for seed, lines in enumerate(seeds):
      folder = self.folder / name / f'seed_{seed}'
      folder.mkdir(parents=True)
      text = ''.join(json.dumps(line) + '\n' for line in lines)
      (folder / 'metrics.jsonl').write_text(text)
    return self.folder / name

  def assert_curves(self, folder, wanted):
    found = plots.curves(folder)
    self.assertEqual(set(found), set(wanted))
    for name, (steps, values) in wanted.items():
      np.testing.assert_array_equal(found[name][0], steps, err_msg=name)
      np.testing.assert_array_equal(found[name][1], values, err_msg=name)


class CurvesTest(PlotsTest):
  def test_steps_that_all_seeds_have(self):
    self.assert_curves(
      self.one,
      {
        'loss': ([5, 10], [[4.0, 2.0], [6.0, 3.0]]),
        'validation_error': ([10], [[50.0], [70.0]]),
        'test_error': ([10], [[60.0], [64.0]]),
      },
    )

  def test_what_was_not_measured_is_left_out(self):
    self.assert_curves(
      self.two,
      {
        'loss': ([4, 8], [[1.0, 0.5], [3.0, 1.5]]),
        'test_error': ([8], [[20.0], [10.0]]),
      },
    )

  def test_one_seed(self):
    shutil.rmtree(self.one / 'seed_1')
    steps, values = plots.curves(self.one)['test_error']
    self.assertEqual(steps.tolist(), [10, 20])
    self.assertEqual(values.tolist(), [[60.0, 40.0]])

  def test_no_run(self):
    for folder in (self.folder, self.folder / 'absent', self.one / 'seed_0'):
      with self.assertRaisesRegex(
        errors.UserError, f'^{folder} has no seed_.*: name the folder of a run'
      ):
        plots.curves(folder)

  def test_a_run_that_has_only_begun(self):
    folder = self.run_of('begun', ([_train(5, 1.0)], []))
    with self.assertRaisesRegex(
      errors.UserError, f'^{folder} has nothing to draw: '
    ):
      plots.curves(folder)

  def test_damaged_line(self):
    path = self.one / 'seed_1' / 'metrics.jsonl'
    path.write_text('{"step": 5, "ki\n' + path.read_text())
    with self.assertRaisesRegex(errors.UserError, 'metrics.jsonl, line 1 is'):
      plots.curves(self.one)


class DrawTest(PlotsTest):
  def axes_of(self, *folders):
    """The panels of the picture before it becomes one."""
    with mock.patch.object(style, 'png', return_value=b'') as png:
      plots.draw(folders)
    return png.call_args.args[0].axes

  def test_lines_are_means_and_bands_are_ranges(self):
    loss, validation, test = self.axes_of(self.one, self.two)
    self.assertEqual(
      [panel.get_ylabel() for panel in (loss, validation, test)],
      ['training loss', 'validation error %', 'test error %'],
    )
    lines = {line.get_label(): line for line in loss.get_lines()}
    self.assertEqual(list(lines), [str(self.one), str(self.two)])
    np.testing.assert_allclose(
      lines[str(self.one)].get_xydata(), [[5, 5.0], [10, 2.5]]
    )
    np.testing.assert_allclose(
      lines[str(self.two)].get_xydata(), [[4, 2.0], [8, 1.0]]
    )
    bands = [
      np.concatenate([p.vertices for p in band.get_paths()])
      for band in loss.collections
    ]
    self.assertLen(bands, 2)
    for band, (low, high) in zip(bands, ((2.0, 6.0), (0.5, 3.0))):
      self.assertEqual((band[:, 1].min(), band[:, 1].max()), (low, high))
    self.assertEqual(loss.get_ylim()[0], 0.0)
    # The second run has no validation error, and its own color in the third.
    self.assertLen(validation.get_lines(), 1)
    shades = [line.get_color() for line in test.get_lines()]
    self.assertEqual(
      [line.get_label() for line in test.get_lines()], list(lines)
    )
    self.assertEqual(shades, [line.get_color() for line in lines.values()])
    self.assertFalse(colors.same_color(*shades))

  def test_no_panel_of_what_no_run_has(self):
    labels = [panel.get_ylabel() for panel in self.axes_of(self.two)]
    self.assertEqual(labels, ['training loss', 'test error %'])

  def test_one_seed_has_no_band(self):
    shutil.rmtree(self.one / 'seed_1')
    for panel in self.axes_of(self.one):
      self.assertLen(panel.get_lines(), 1)
      self.assertEmpty(panel.collections)

  def test_more_runs_than_colors(self):
    folders = [self.run_of(f'run{i}', _TWO) for i in range(7)]
    loss, _ = self.axes_of(*folders)
    self.assertLen(loss.get_lines(), 7)

  def test_png(self):
    self.assertStartsWith(plots.draw([self.one, self.two]), _PNG)


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
    self.assertStartsWith((self.folder / 'curves.png').read_bytes(), _PNG)

  def test_no_run_is_one_line_and_writes_nothing(self):
    out = self.folder / 'x.png'
    empty = self.folder / 'empty'
    empty.mkdir()
    with self.assertRaises(errors.UserError) as raised:
      plot.main([str(self.one), str(empty), f'--out={out}'])
    self.assertStartsWith(str(raised.exception), f'{empty} has no seed_')
    self.assertNotIn('\n', str(raised.exception))
    self.assertFalse(out.exists())

  def test_needs_a_run(self):
    with contextlib.redirect_stderr(io.StringIO()) as told:
      with self.assertRaises(SystemExit) as stopped:
        plot.main([])
    self.assertEqual(stopped.exception.code, 2)
    self.assertRegex(told.getvalue(), '^error: .*workdirs; see --help\n$')


if __name__ == '__main__':
  absltest.main()
