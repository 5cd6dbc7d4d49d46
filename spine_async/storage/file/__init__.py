"""A run store in files: one folder for each run, with a log that a person can read."""
