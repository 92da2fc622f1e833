"""A server of Google Cloud Storage on the loopback, as much as a run needs."""

import http.server
import json
import re
import threading
import urllib.parse


class Bucket:
  """Serves buckets from memory; every name but `missing` is one.

  The clients are the real ones: gcsfs of files, tensorstore of arrays.

  Attributes:
    objects: `bucket/name` -> content.
    read_only: whether writing is refused.
  """

  def __init__(self):
    self.objects: dict[str, bytes] = {}
    self.generations: dict[str, int] = {}
    self.read_only = False
    self.uploads: dict[str, tuple[str, bytearray]] = {}
    handler = type('Handler', (_Handler,), {'bucket': self})
    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    self._server.daemon_threads = True
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  @property
  def environment(self) -> dict[str, str]:
    """What a process needs to take it for the real one."""
    address = f'http://127.0.0.1:{self._server.server_port}'
    return {
      'STORAGE_EMULATOR_HOST': address,
      'TENSORSTORE_GCS_HTTP_URL': address,
      'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none',
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
      'NO_GCE_CHECK': 'true',
    }

  def put(self, name: str, content: bytes) -> dict:
    """Stores an object; returns what the service says of it."""
    self.generations[name] = self.generations.get(name, 0) + 1
    self.objects[name] = bytes(content)
    return self.facts(name)

  def facts(self, name: str) -> dict:
    """What the service says of an object."""
    bucket, _, path = name.partition('/')
    return {
      'kind': 'storage#object',
      'name': path,
      'bucket': bucket,
      'size': str(len(self.objects[name])),
      'generation': str(self.generations[name]),
      'metageneration': '1',
      'storageClass': 'STANDARD',
      'timeCreated': '2026-01-01T00:00:00.000Z',
      'updated': '2026-01-01T00:00:00.000Z',
    }

  def close(self) -> None:
    """Ends the server."""
    self._server.shutdown()
    self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  bucket: Bucket

  def log_message(self, *_):
    pass

  def _answer(self, status, content=b'', **headers):
    if not isinstance(content, bytes):
      content = json.dumps(content).encode()
      headers.setdefault('Content-Type', 'application/json')
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name.replace('_', '-'), value)
    self.send_header('Content-Length', str(len(content)))
    self.end_headers()
    self.wfile.write(content)

  def _missing(self, status=404):
    words = {404: 'Not Found', 403: 'no access to this bucket'}
    message = words.get(status, 'conditionNotMet')
    self._answer(status, {'error': {'code': status, 'message': message}})

  def _parse(self):
    url = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
    found = re.match(r'.*?/b/([^/]+)(?:/o(?:/(.*))?)?$', url.path)
    bucket, path = found.groups() if found else (None, None)
    name = f'{bucket}/{urllib.parse.unquote(path)}' if path else None
    return url.path, query, bucket, name

  def _body(self):
    if self.headers.get('Transfer-Encoding') == 'chunked':
      parts = []
      while size := int(self.rfile.readline(), 16):
        parts.append(self.rfile.read(size))
        self.rfile.readline()
      self.rfile.readline()
      return b''.join(parts)
    return self.rfile.read(int(self.headers.get('Content-Length', 0)))

  def do_GET(self):
    url, query, bucket, name = self._parse()
    if name is None and url.rstrip('/').endswith('/o'):
      return self._answer(200, self._list(bucket, query))
    if name is None:
      return self._answer(200, {'kind': 'storage#bucket', 'name': bucket})
    content = self.bucket.objects.get(name)
    if content is None:
      return self._missing()
    if query.get('alt') != 'media' and 'download' not in url:
      return self._answer(200, self.bucket.facts(name))
    headers = {'x-goog-generation': str(self.bucket.generations[name])}
    wanted = re.match(
      r'bytes=(\d*)-(\d*)', self.headers.get('Range', ''), re.ASCII
    )
    if not wanted:
      return self._answer(200, content, **headers)
    first, last = wanted.groups()
    start = int(first) if first else max(len(content) - int(last), 0)
    end = int(last) + 1 if first and last else len(content)
    if start >= len(content):
      return self._answer(416)
    end = min(end, len(content))
    headers['Content-Range'] = f'bytes {start}-{end - 1}/{len(content)}'
    return self._answer(206, content[start:end], **headers)

  def _list(self, bucket, query):
    prefix, delimiter = query.get('prefix', ''), query.get('delimiter', '')
    items, prefixes = [], set()
    for name in sorted(self.bucket.objects):
      where, _, path = name.partition('/')
      if where != bucket or not path.startswith(prefix):
        continue
      if path < query.get('startOffset', ''):
        continue
      if query.get('endOffset') and path >= query['endOffset']:
        continue
      rest = path[len(prefix) :]
      if delimiter and delimiter in rest:
        prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
      else:
        items.append(self.bucket.facts(name))
    return {
      'kind': 'storage#objects',
      'items': items,
      'prefixes': sorted(prefixes),
    }

  def do_POST(self):
    url, query, bucket, name = self._parse()
    body = self._body()
    if '/batch/' in url:
      return self._batch(body)
    if '/rewriteTo/' in url or '/copyTo/' in url:
      match = re.match(
        r'.*?/b/([^/]+)/o/(.*)/(?:rewriteTo|copyTo)/b/([^/]+)/o/(.*)$', url
      )
      old, old_name, new, new_name = map(urllib.parse.unquote, match.groups())
      content = self.bucket.objects.get(f'{old}/{old_name}')
      if content is None:
        return self._missing()
      facts = self.bucket.put(f'{new}/{new_name}', content)
      return self._answer(200, {'done': True, 'resource': facts})
    if bucket == 'missing':
      return self._missing()
    if self.bucket.read_only:
      return self._missing(403)
    if 'upload_id' in query:
      return self._resume(query['upload_id'], body)
    if query.get('uploadType') == 'resumable':
      if query.get('ifGenerationMatch') == '0' and (
        f'{bucket}/{query.get("name")}' in self.bucket.objects
      ):
        return self._missing(412)
      given = json.loads(body or b'{}').get('name') or query.get('name')
      key = f'upload{len(self.bucket.uploads)}'
      self.bucket.uploads[key] = f'{bucket}/{given}', bytearray()
      host = self.headers['Host']
      place = f'http://{host}{url}?upload_id={key}'
      return self._answer(200, {}, Location=place)
    if query.get('uploadType') == 'multipart':
      limit = re.search(r'boundary="?([^";]+)', self.headers['Content-Type'])
      parts = body.split(b'--' + limit[1].encode())[1:3]
      facts, content = (
        (p.split(b'\r\n\r\n', 1)[1] for p in parts)
        if (b'\r\n\r\n' in parts[0])
        else (p.split(b'\n\n', 1)[1] for p in parts)
      )
      content = content.removesuffix(b'\n').removesuffix(b'\r')
      given = json.loads(facts)['name']
      return self._store(f'{bucket}/{given}', content, query)
    return self._store(f'{bucket}/{query["name"]}', body, query)

  def _store(self, name, content, query):
    if self.bucket.read_only:
      return self._missing(403)
    there = self.bucket.generations.get(name, 0)
    there = there if name in self.bucket.objects else 0
    if query.get('ifGenerationMatch') not in (None, str(there)):
      return self._missing(412)
    return self._answer(200, self.bucket.put(name, content))

  def _resume(self, key, body):
    """One part of an upload; the last one tells the size of the whole."""
    name, content = self.bucket.uploads[key]
    content += body
    if self.headers.get('Content-Range', '').endswith('/*'):
      return self._answer(308, Range=f'bytes=0-{len(content) - 1}')
    return self._answer(200, self.bucket.put(name, content))

  def do_DELETE(self):
    *_, name = self._parse()
    if self.bucket.read_only:
      return self._missing(403)
    if self.bucket.objects.pop(name, None) is None:
      return self._missing()
    return self._answer(204)

  def _batch(self, body):
    """Several deletions in one request."""
    parts = []
    for number, path in enumerate(re.findall(rb'DELETE (\S+) HTTP', body), 1):
      found = re.match(r'.*?/b/([^/]+)/o/(.*)$', path.decode())
      name = '/'.join(map(urllib.parse.unquote, found.groups()))
      known = self.bucket.objects.pop(name, None) is not None
      status = 'HTTP/1.1 204 No Content' if known else 'HTTP/1.1 404 Not Found'
      parts.append(
        '--batch_x\r\nContent-Type: application/http\r\n'
        f'Content-ID: <response-{number}>\r\n\r\n{status}\r\n'
        'Content-Length: 0\r\n\r\n\r\n'
      )
    text = ''.join(parts) + '--batch_x--'
    self._answer(
      200, text.encode(), Content_Type='multipart/mixed; boundary=batch_x'
    )
