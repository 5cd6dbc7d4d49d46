"""The command `spine-async`."""
