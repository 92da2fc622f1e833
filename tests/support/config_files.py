"""Names of the config files."""

from repository import ROOT

NAMES = sorted(
  f'configs/{path.name}'
  for path in (ROOT / 'configs').glob('*.py')
  if 'def get_config' in path.read_text()
  and path.name
  != 'folder.py'  # whose settings are open: see training/automatic_test
)
