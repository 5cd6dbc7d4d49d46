"""The start of a run: it is created, or claimed and replayed."""
