"""Step times, their breakdown, and startup times; nothing here trains."""
