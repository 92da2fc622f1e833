"""Where the repository is, for the tests of what lies beside the package."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
