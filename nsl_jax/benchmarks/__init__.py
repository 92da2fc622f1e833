"""Step times, where they go, and the time to start; nothing here trains."""
