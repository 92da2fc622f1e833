"""A folder for each test that writes files."""

import pathlib
import tempfile

from absl.testing import parameterized


class FolderTestCase(parameterized.TestCase):
  """Has a separate empty folder, `self.folder`, for each test."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
