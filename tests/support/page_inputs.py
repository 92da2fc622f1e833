"""Lines of a log, for the tests of the report of an evaluation."""

PNG = b'\x89PNG\r\n\x1a\n'
LINES = (
  {'step': 5, 'kind': 'train', 'loss': 2.0},
  {'step': 10, 'kind': 'train', 'loss': 1.0},
  {'step': 10, 'kind': 'eval', 'validation_error': 30.0},
  {'step': 20, 'kind': 'eval', 'validation_error': 10.0},
  {'step': 30, 'kind': 'eval', 'validation_error': 10.0},
)
