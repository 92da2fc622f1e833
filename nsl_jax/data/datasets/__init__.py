"""Data sets that need code of their own: a file each."""
