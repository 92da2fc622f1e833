"""Learning curves of runs: their numbers, the picture and the command."""

import json
import shutil
from unittest import mock

import numpy as np
from absl.testing import absltest
from matplotlib import colors
from plotted_runs import PNG, TWO, PlotsTest, train_line

from nsl_jax import errors
from nsl_jax.reports import plots, style


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
    folder = self.run_of('begun', ([train_line(5, 1.0)], []))
    with self.assertRaisesRegex(
      errors.UserError, f'^{folder} has nothing to draw: '
    ):
      plots.curves(folder)

  def test_what_is_no_number(self):
    path = self.one / 'seed_1' / 'metrics.jsonl'
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
      if 'loss' in line:
        line['loss'] = 'abc'
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    with self.assertRaisesRegex(errors.UserError, 'loss in a .* not a number'):
      plots.curves(self.one)

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

  def test_negative_losses_are_seen(self):
    path = self.one / 'seed_0' / 'metrics.jsonl'
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
      if 'loss' in line:
        line['loss'] -= 10.0
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    loss, *_ = self.axes_of(self.one)
    self.assertLess(loss.get_ylim()[0], -5.0)

  def test_one_seed_has_no_band(self):
    shutil.rmtree(self.one / 'seed_1')
    for panel in self.axes_of(self.one):
      self.assertLen(panel.get_lines(), 1)
      self.assertEmpty(panel.collections)

  def test_more_runs_than_colors(self):
    folders = [self.run_of(f'run{i}', TWO) for i in range(7)]
    loss, _ = self.axes_of(*folders)
    kinds = {
      (line.get_color(), line.get_linestyle()) for line in loss.get_lines()
    }
    self.assertLen(kinds, 7)

  def test_a_single_point_and_every_name_are_seen(self):
    run = self.run_of('_r$\\nosuch$', ([train_line(5, 1.0)],))
    for panel in self.axes_of(run):
      self.assertEqual(panel.get_lines()[0].get_marker(), 'o')
      (text,) = panel.get_legend().get_texts()
      self.assertIn('_r$', text.get_text())
      self.assertFalse(text.get_parse_math())
    self.assertStartsWith(plots.draw([run]), PNG)

  def test_png(self):
    self.assertStartsWith(plots.draw([self.one, self.two]), PNG)


if __name__ == '__main__':
  absltest.main()
