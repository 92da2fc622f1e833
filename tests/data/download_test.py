"""Whether a server answers, before anything is downloaded."""

import http.server
import os
import threading
from unittest import mock

from absl.testing import absltest, parameterized

from nsl_jax.data import download


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers HEAD /<status> with that status."""

  def do_HEAD(self):
    self.send_response(int(self.path[1:]))
    self.end_headers()

  def log_message(self, *unused_arguments):
    pass


class ReachableTest(parameterized.TestCase):
  @parameterized.parameters((200, True), (405, True), (404, False))
  def test_status(self, status, want):
    server = http.server.HTTPServer(('127.0.0.1', 0), _Handler)
    self.addCleanup(server.server_close)
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    url = f'http://127.0.0.1:{server.server_port}/{status}'
    with mock.patch.dict(os.environ, no_proxy='*'):
      self.assertEqual(download._reachable(url), want)
    thread.join()

  def test_silent_server_does_not_hang(self):
    server = http.server.HTTPServer(('127.0.0.1', 0), _Handler)  # Never reads.
    self.addCleanup(server.server_close)
    url = f'http://127.0.0.1:{server.server_port}/200'
    self.enter_context(mock.patch.dict(os.environ, no_proxy='*'))
    self.enter_context(mock.patch.object(download, '_CONNECT_SECONDS', 0.2))
    self.assertFalse(download._reachable(url))


if __name__ == '__main__':
  absltest.main()
