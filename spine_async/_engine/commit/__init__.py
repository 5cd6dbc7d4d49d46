"""Commits: the only writer to the store."""
