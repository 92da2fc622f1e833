"""The data command: a line for each data set."""

from absl.testing import absltest
from data_command import TempDirTest, run_command

from nsl_jax.data import sources


class CheckTest(TempDirTest):
  def check(self):
    code, out, _ = run_command('--check', '--data_dir', str(self.data_dir))
    self.assertEqual(code, 0)
    return {
      line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()
    }

  def test_every_name_has_a_line(self):
    folder = self.write()
    lines = self.check()
    self.assertEqual(tuple(lines), sources.NAMES)
    self.assertStartsWith(lines['digits'], 'ready')
    self.assertRegex(lines['svhn'], f'^ready +{folder}$')
    self.assertRegex(lines['svhn_extra'], f'^ready +{folder}$')
    self.assertRegex(lines['stl10'], f'^missing +{self.data_dir}/stl10$')
    self.assertStartsWith(lines['usps'], 'missing')

  def test_tfrecord_damaged_and_usps(self):
    folder = self.write()
    file = folder / 'dataset_info.json'
    file.write_text(file.read_text().replace('array_record"', 'tfrecord"'))
    (self.write('cifar100') / 'features.json').unlink()
    self.write_usps()
    lines = self.check()
    self.assertStartsWith(lines['svhn'], 'TFRecord only')
    self.assertStartsWith(lines['cifar100'], 'damaged')
    self.assertIn('usps.h5', lines['usps'])

  def test_converted_copy_beside_tfrecord_is_ready(self):
    file = self.write() / 'dataset_info.json'
    info = file.read_text().replace('"array_record"', '"tfrecord"')
    info = info.replace('{', '{"alternativeFileFormats": ["array_record"],', 1)
    file.write_text(info)
    self.assertStartsWith(self.check()['svhn'], 'ready')
    source = sources.load('svhn', self.data_dir)
    self.assertLen(source.train.labels, 4)


if __name__ == '__main__':
  absltest.main()
