"""The site of these pages: `sphinx-build -W docs build/site`.

The pages are written to be read on GitHub, too: links to files outside of this
folder are relative there and lead to the repository from the site.
"""

import re

import nsl_jax

REPOSITORY = 'https://github.com/nsl-jax/nsl_jax'

project = 'nsl_jax'
release = version = nsl_jax.__version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build']
default_role = 'code'  # docstrings are Markdown-like: `x` is code
myst_heading_anchors = 4
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
python_use_unqualified_type_names = True
napoleon_use_ivar = True  # fields of a tuple are a list, not entries each
html_theme = 'furo'
html_title = f'nsl_jax {version}'
html_copy_source = False
html_theme_options = {
  'source_repository': REPOSITORY,
  'source_branch': 'main',
  'source_directory': 'docs/',
}


def _on_github(text: str, prefix: str) -> str:
  """Links that start with `prefix` and leave this folder; pictures stay."""
  pattern = re.compile(
    rf'\]\({prefix}(?!https?:|#|docs/)([\w./-]+)(?<!\.png)\)'
  )
  return pattern.sub(rf']({REPOSITORY}/blob/main/\1)', text)


def _read(app, name, source):
  source[0] = _on_github(source[0], r'\.\./')


def _include(app, relative_path, parent, content):
  content[0] = _on_github(content[0], '')


def _skip(app, what, name, value, skip, options):
  """Fields of a named tuple, which its docstring describes."""
  return skip or (value.__doc__ or '').startswith('Alias for field number')


def setup(app):
  """Called by Sphinx."""
  app.connect('source-read', _read)
  app.connect('include-read', _include)
  app.connect('autodoc-skip-member', _skip)
