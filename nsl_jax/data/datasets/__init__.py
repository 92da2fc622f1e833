"""Data sets that need separate code, one per file."""
